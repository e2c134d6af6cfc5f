// A plugin in C++ that throws exceptions: each call throws one and catches it. With "do": "uncaught" nobody catches it.

#include <stdexcept>
#include <string>

extern "C" {
#include "host/host.h"
}

namespace {

// A destructor runs while the exception passes.
struct Counted {
    int &count;
    ~Counted() { ++count; }
};

int destroyed = 0;

void refuse(const std::string &what) {
    Counted counted{destroyed};
    throw std::runtime_error("thrown for " + what);
}

} // namespace

extern "C" host_outcome process(const host_message *message) {
    std::string id(message->id.bytes, message->id.length);
    std::string body(message->body.bytes, message->body.length);
    if (body.find("uncaught") != std::string::npos) refuse(id);
    try {
        refuse(id);
    } catch (const std::exception &caught) {
        host_text json = host_format(R"({"caught":"%s","destroyed":%d})", caught.what(), destroyed);
        return host_emit(json);
    }
    return host_drop();
}

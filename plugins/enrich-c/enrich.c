// Adds `random_property` to every message and leaves everything else unchanged.

#include <inttypes.h>

#include "host/host.h"

host_outcome process(const host_message *message) {
    host_text random = host_format("%016" PRIx64, host_random());
    return host_emit(host_add_property(message->body, "random_property", host_json(random)));
}

// Properties of a JSON object, found and changed in its text. The host has checked that a message is an object, so
// wrong JSON is not reported here; it only must not be read past its end.

#include <stdint.h>
#include <string.h>

#include "host.h"

static size_t skip_blanks(host_text json, size_t at) {
    while (at < json.length && strchr(" \t\n\r", json.bytes[at]) != NULL && json.bytes[at] != 0) at++;
    return at;
}

// From an opening quote to behind the closing one.
static size_t skip_string(host_text json, size_t at) {
    for (at++; at < json.length; at++) {
        if (json.bytes[at] == '"') return at + 1;
        if (json.bytes[at] == '\\') at++;
    }
    return json.length;
}

// From the beginning of a value to behind its end.
static size_t skip_value(host_text json, size_t at) {
    size_t depth = 0;
    while (at < json.length) {
        char byte = json.bytes[at];
        if (byte == '"') {
            at = skip_string(json, at);
            if (depth == 0) return at;
            continue;
        }
        if (depth == 0 && (byte == ',' || byte == '}' || byte == ']' || strchr(" \t\n\r", byte) != NULL)) return at;
        if (byte == '{' || byte == '[') depth++;
        if ((byte == '}' || byte == ']') && --depth == 0) return at + 1;
        at++;
    }
    return at;
}

static uint32_t hex(const char *digits) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char digit = digits[i];
        value = value << 4 | (uint32_t)(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
    }
    return value;
}

static size_t put_utf8(char *to, uint32_t code) {
    if (code < 0x80) return to[0] = (char)code, 1;
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(lead[more] | code >> (6 * more));
    for (size_t i = 1; i <= more; i++) to[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

// The text of the string between the quotes, with its escapes resolved. Half of a surrogate pair has no text: it becomes
// `lone`, or bytes that are no UTF-8 if that is 0.
static host_text unescaped(host_text string, uint32_t lone) {
    if (memchr(string.bytes, '\\', string.length) == NULL) return string;
    char *plain = host_alloc(string.length);
    size_t length = 0;
    for (size_t at = 0; at < string.length;) {
        if (string.bytes[at] != '\\' || at + 1 >= string.length) {
            plain[length++] = string.bytes[at++];
            continue;
        }
        char escape = string.bytes[at + 1];
        at += 2;
        if (escape != 'u' || string.length - at < 4) {
            static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
            const char *found = strchr(from, escape);
            plain[length++] = found != NULL && escape != 0 ? to[found - from] : escape;
            continue;
        }
        uint32_t code = hex(string.bytes + at);
        at += 4;
        bool pair = code >= 0xd800 && code < 0xdc00 && string.length - at >= 6 && string.bytes[at] == '\\' &&
                    string.bytes[at + 1] == 'u';
        uint32_t low = pair ? hex(string.bytes + at + 2) : 0;
        if (low >= 0xdc00 && low < 0xe000) {
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            at += 6;
        } else if (code >= 0xd800 && code < 0xe000 && lone != 0) {
            code = lone;
        }
        length += put_utf8(plain + length, code);
    }
    return (host_text){plain, length};
}

// Whether the string between the quotes is this name.
static bool is_named(host_text string, const char *name) { return host_equal(unescaped(string, 0), name); }

// The value of the last property with this name; an empty text behind the last value if there is none.
typedef struct {
    size_t start, end;
    bool found, empty;
} place;

static place find(host_text object, const char *name) {
    place last = {.empty = true};
    size_t at = skip_blanks(object, 0);
    size_t end = at + 1;
    for (at = skip_blanks(object, end); at < object.length && object.bytes[at] == '"';) {
        size_t key = at + 1;
        at = skip_string(object, at);
        if (at >= object.length) break;
        host_text text = {object.bytes + key, at - key - 1};
        at = skip_blanks(object, skip_blanks(object, at) + 1); // the colon
        if (at >= object.length) break;
        end = skip_value(object, at);
        last.empty = false;
        if (is_named(text, name)) {
            last.start = at;
            last.end = end;
            last.found = true;
        }
        at = skip_blanks(object, end);
        if (at >= object.length || object.bytes[at] != ',') break;
        at = skip_blanks(object, at + 1);
    }
    if (!last.found) last.start = last.end = end < object.length ? end : object.length;
    return last;
}

bool host_property(host_text object, const char *name, host_text *value) {
    place place = find(object, name);
    if (place.found) *value = (host_text){object.bytes + place.start, place.end - place.start};
    return place.found;
}

bool host_property_string(host_text object, const char *name, host_text *text) {
    host_text value;
    if (!host_property(object, name, &value) || value.length < 2 || value.bytes[0] != '"') return false;
    *text = unescaped((host_text){value.bytes + 1, value.length - 2}, 0xfffd);
    return true;
}

static size_t put(char *to, host_text text) {
    memcpy(to, text.bytes, text.length);
    return text.length;
}

host_text host_add_property(host_text object, const char *name, host_text value) {
    place place = find(object, name);
    host_text before = {object.bytes, place.start}, after = {object.bytes + place.end, object.length - place.end};
    host_text comma = {",", !place.found && !place.empty}, key = {"", 0}, colon = {":", !place.found};
    if (!place.found) key = host_json(host_string(name));

    char *bytes = host_alloc(object.length + key.length + value.length + 2);
    size_t length = put(bytes, before);
    length += put(bytes + length, comma);
    length += put(bytes + length, key);
    length += put(bytes + length, colon);
    length += put(bytes + length, value);
    length += put(bytes + length, after);
    return (host_text){bytes, length};
}

host_text host_json(host_text text) {
    char *bytes = host_alloc(2 + 6 * text.length), *end = bytes;
    *end++ = '"';
    for (size_t i = 0; i < text.length; i++) {
        unsigned char byte = (unsigned char)text.bytes[i];
        if (byte == '"' || byte == '\\') *end++ = '\\';
        if (byte >= 0x20) {
            *end++ = (char)byte;
            continue;
        }
        memcpy(end, "\\u00", 4);
        end[4] = "0123456789abcdef"[byte >> 4];
        end[5] = "0123456789abcdef"[byte & 15];
        end += 6;
    }
    *end++ = '"';
    return (host_text){bytes, (size_t)(end - bytes)};
}

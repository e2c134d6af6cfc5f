// What a plugin in C has from its host. Implement `process`; everything else here is there to be called.
//
// Memory: a text that one of these functions returns lives until `process` returns, and so does the message. Nothing
// needs to be freed. What has to survive from message to message, copy with `malloc` or into a global variable.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// UTF-8 text with a length. No zero byte ends the text; `printf("%.*s", HOST_ARGS(text))` prints one.
typedef struct {
    const char *bytes;
    size_t length;
} host_text;

#define HOST_ARGS(text) (int)(text).length, (text).bytes

// A published message.
typedef struct {
    host_text id;     // the `message_id`: the string itself, or the JSON text of a number
    host_text body;   // one JSON object, byte for byte as published
    uint32_t attempt; // 1 at first, one more after each retry
} host_message;

// One of several results.
typedef struct {
    const char *to; // name of an output that the operator has configured, or NULL for the main output
    host_text body; // a JSON object
} host_output;

// The decision about a message. Made by the functions below.
typedef struct {
    int kind;
    host_text text;
    const host_output *outputs;
    size_t count;
    uint32_t delay_ms;
} host_outcome;

// Processes one message. A plugin implements this function.
host_outcome process(const host_message *message);

// --- Outcomes -------------------------------------------------------------------------------------------------------

// One result for the main output: the JSON text of an object.
host_outcome host_emit(host_text body);

// Several results, written all at once. The array must live until `process` has returned: `static` or from `malloc`, or
// `host_alloc`.
host_outcome host_emit_all(const host_output *outputs, size_t count);

// No result: the message is filtered out.
host_outcome host_drop(void);

// Try again later; the host chooses the delay.
host_outcome host_retry(void);
host_outcome host_retry_after(uint32_t delay_ms);

// The message is wrong, and becomes a dead letter at once, with this reason.
host_outcome host_reject(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The plugin failed; the message is tried again. The text is for the operator.
host_outcome host_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// --- JSON -----------------------------------------------------------------------------------------------------------
// These functions work on the text, so every number keeps all digits and every property its place.

// The object with this property. An existing property of that name gets the new value in its old place, otherwise the
// property is added at the end. `value` is JSON text.
host_text host_add_property(host_text object, const char *name, host_text value);

// The JSON text of a property of the object, without its descendants' names: "a" is found at the top level only. If the
// name occurs twice, the last one counts.
bool host_property(host_text object, const char *name, host_text *value);

// The text of a property that is a string, without quotes and escapes; false if there is no such property or if it is no
// string. Half of a surrogate pair, such as "\ud800", becomes U+FFFD.
bool host_property_string(host_text object, const char *name, host_text *text);

// A JSON string with this text: quoted, with escapes.
host_text host_json(host_text text);

// --- Text -----------------------------------------------------------------------------------------------------------

// A C string as a text. Not copied.
host_text host_string(const char *string);

// As `printf` writes.
host_text host_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool host_equal(host_text text, const char *string);

// Memory until `process` returns, with the alignment of any type. Without memory the call ends in a trap.
void *host_alloc(size_t size);

// --- Configuration, log, randomness, time, facts ----------------------------------------------------------------------

// The value that the operator has set for this key of the plugin's configuration.
bool host_config(const char *key, host_text *value);

typedef enum { HOST_TRACE, HOST_DEBUG, HOST_INFO, HOST_WARN, HOST_ERROR, HOST_CRITICAL } host_level;

// A line in the host's log, with the ids of consumer and message.
void host_log(host_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

// 64 random bits from the operating system.
uint64_t host_random(void);

// Milliseconds since 1970-01-01T00:00:00Z.
uint64_t host_time_ms(void);

// Channel of the message, the time at which the host took the message in (milliseconds since 1970-01-01T00:00:00Z), id
// of the consumer, number of the plugin's version.
host_text host_channel(void);
uint64_t host_received_ms(void);
host_text host_consumer_id(void);
uint64_t host_generation(void);

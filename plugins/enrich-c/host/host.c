// From the generated bindings to the functions in host.h: outcomes, memory, and the host's services.

#include "host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../bindings/plugin.h"

enum { EMIT, EMIT_ALL, DROP, RETRY, RETRY_AFTER, REJECT, FAIL };

// --- Memory of one call ---------------------------------------------------------------------------------------------

// Blocks of memory, the newest first. They are freed when the next message comes, except for a small one.
typedef struct block {
    struct block *next;
    size_t size, used;
    _Alignas(max_align_t) char memory[];
} block;

enum { BLOCK_BYTES = 16 * 1024 };

static block *blocks;

static void *checked(void *memory) {
    // The host reports a trap after refused memory as exceeded memory.
    if (memory == NULL) abort();
    return memory;
}

void *host_alloc(size_t size) {
    size_t align = _Alignof(max_align_t);
    if (size > SIZE_MAX - sizeof(block) - align) abort();
    size = (size + align - 1) & ~(align - 1);
    if (blocks == NULL || blocks->size - blocks->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        block *new = checked(malloc(sizeof(block) + room));
        *new = (block){.next = blocks, .size = room};
        blocks = new;
    }
    void *memory = blocks->memory + blocks->used;
    blocks->used += size;
    return memory;
}

static void free_all(void) {
    while (blocks != NULL && (blocks->next != NULL || blocks->size > BLOCK_BYTES)) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
    if (blocks != NULL) blocks->used = 0;
}

// --- Text -----------------------------------------------------------------------------------------------------------

host_text host_string(const char *string) { return (host_text){string, strlen(string)}; }

bool host_equal(host_text text, const char *string) {
    return text.length == strlen(string) && memcmp(text.bytes, string, text.length) == 0;
}

static host_text formatted(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length < 0) abort();
    char *bytes = host_alloc((size_t)length + 1);
    vsnprintf(bytes, (size_t)length + 1, format, again);
    va_end(again);
    return (host_text){bytes, (size_t)length};
}

host_text host_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    host_text text = formatted(format, arguments);
    va_end(arguments);
    return text;
}

// What the bindings own becomes a text of this call.
static host_text taken(plugin_string_t *string) {
    char *bytes = host_alloc(string->len);
    if (string->len > 0) memcpy(bytes, string->ptr, string->len);
    host_text text = {bytes, string->len};
    plugin_string_free(string);
    return text;
}

// What the bindings free after the call.
static plugin_string_t given(host_text text) {
    if (text.length == 0) return (plugin_string_t){NULL, 0};
    uint8_t *bytes = checked(malloc(text.length));
    memcpy(bytes, text.bytes, text.length);
    return (plugin_string_t){bytes, text.length};
}

static plugin_string_t lent(host_text text) { return (plugin_string_t){(uint8_t *)text.bytes, text.length}; }

// --- Outcomes -------------------------------------------------------------------------------------------------------

host_outcome host_emit(host_text body) { return (host_outcome){.kind = EMIT, .text = body}; }

host_outcome host_emit_all(const host_output *outputs, size_t count) {
    return (host_outcome){.kind = EMIT_ALL, .outputs = outputs, .count = count};
}

host_outcome host_drop(void) { return (host_outcome){.kind = DROP}; }

host_outcome host_retry(void) { return (host_outcome){.kind = RETRY}; }

host_outcome host_retry_after(uint32_t delay_ms) { return (host_outcome){.kind = RETRY_AFTER, .delay_ms = delay_ms}; }

host_outcome host_reject(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    host_outcome outcome = {.kind = REJECT, .text = formatted(format, arguments)};
    va_end(arguments);
    return outcome;
}

host_outcome host_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    host_outcome outcome = {.kind = FAIL, .text = formatted(format, arguments)};
    va_end(arguments);
    return outcome;
}

static exports_host_plugin_processor_list_output_t outputs(const host_outcome *outcome) {
    exports_host_plugin_processor_list_output_t list = {NULL, outcome->count};
    if (list.len == 0) return list;
    list.ptr = checked(calloc(list.len, sizeof *list.ptr));
    for (size_t i = 0; i < list.len; i++) {
        const host_output *from = &outcome->outputs[i];
        list.ptr[i].body = given(from->body);
        list.ptr[i].to.is_some = from->to != NULL;
        if (from->to != NULL) list.ptr[i].to.val = given(host_string(from->to));
    }
    return list;
}

// The exported function. False means an error.
bool exports_host_plugin_processor_process(exports_host_plugin_processor_message_t *message,
                                           exports_host_plugin_processor_outcome_t *ret, plugin_string_t *err) {
    free_all();
    host_message copy = {
        .id = {(char *)message->id.ptr, message->id.len},
        .body = {(char *)message->body.ptr, message->body.len},
        .attempt = message->attempt,
    };
    host_outcome outcome = process(&copy);

    bool good = true;
    switch (outcome.kind) {
    case EMIT:
        ret->tag = EXPORTS_HOST_PLUGIN_PROCESSOR_OUTCOME_EMIT;
        ret->val.emit = given(outcome.text);
        break;
    case EMIT_ALL:
        ret->tag = EXPORTS_HOST_PLUGIN_PROCESSOR_OUTCOME_EMIT_ALL;
        ret->val.emit_all = outputs(&outcome);
        break;
    case DROP: ret->tag = EXPORTS_HOST_PLUGIN_PROCESSOR_OUTCOME_DROP; break;
    case RETRY:
    case RETRY_AFTER:
        ret->tag = EXPORTS_HOST_PLUGIN_PROCESSOR_OUTCOME_RETRY;
        ret->val.retry = (plugin_option_u32_t){outcome.kind == RETRY_AFTER, outcome.delay_ms};
        break;
    case REJECT:
        ret->tag = EXPORTS_HOST_PLUGIN_PROCESSOR_OUTCOME_REJECT;
        ret->val.reject = given(outcome.text);
        break;
    default:
        *err = given(outcome.text);
        good = false;
    }
    exports_host_plugin_processor_message_free(message);
    return good;
}

// --- Configuration, log, randomness, time, facts ----------------------------------------------------------------------

bool host_config(const char *key, host_text *value) {
    plugin_string_t name = lent(host_string(key));
    plugin_option_string_t found = {0};
    wasi_config_store_error_t error = {0};
    // The host promises that reading never fails.
    if (!wasi_config_store_get(&name, &found, &error) || !found.is_some) return false;
    *value = taken(&found.val);
    return true;
}

void host_log(host_level level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    plugin_string_t context = {NULL, 0}, line = lent(formatted(format, arguments));
    va_end(arguments);
    wasi_logging_logging_log((uint8_t)level, &context, &line);
}

uint64_t host_random(void) { return wasi_random_random_get_random_u64(); }

uint64_t host_time_ms(void) {
    wasi_clocks_wall_clock_datetime_t now;
    wasi_clocks_wall_clock_now(&now);
    return now.seconds * 1000 + now.nanoseconds / 1000000;
}

host_text host_channel(void) {
    plugin_string_t name;
    host_plugin_context_channel(&name);
    return taken(&name);
}

host_text host_consumer_id(void) {
    plugin_string_t id;
    host_plugin_context_consumer_id(&id);
    return taken(&id);
}

uint64_t host_received_ms(void) { return host_plugin_context_received_ms(); }

uint64_t host_generation(void) { return host_plugin_context_generation(); }

// The bindings refer to an object file with the types of the contract. `host componentize` adds the types instead.
void __component_type_object_force_link_plugin(void);
void __component_type_object_force_link_plugin(void) {}

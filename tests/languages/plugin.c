// The plugin of tests/conformance.rs in C: the property `do` of a message says what. README.md lists the words.

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/host.h"

// The tests write another number into the component.
static const char *const VERSION = "c-version-1";

// Messages of this instance that asked for its state.
static int calls;

static host_text property(const host_message *message, const char *name) {
    host_text value = {"", 0};
    host_property(message->body, name, &value);
    return value;
}

// The text of a property that is a JSON string.
static host_text text(const host_message *message, const char *name) {
    host_text value = {"", 0};
    host_property_string(message->body, name, &value);
    return value;
}

static uint32_t number(const host_message *message, const char *name) {
    // With a zero byte at its end.
    return (uint32_t)strtoul(host_format("%.*s", HOST_ARGS(property(message, name))).bytes, NULL, 10);
}

// A result with one property, whose value is JSON text.
static host_outcome emit(const char *name, host_text value) {
    return host_emit(host_add_property(host_string("{}"), name, value));
}

static host_outcome emit_number(const char *name, uint64_t value) { return emit(name, host_format("%" PRIu64, value)); }

static host_outcome retry(const host_message *message) {
    return property(message, "delay").length > 0 ? host_retry_after(number(message, "delay")) : host_retry();
}

static host_outcome context(void) {
    host_text result = host_string("{}");
    result = host_add_property(result, "channel", host_json(host_channel()));
    result = host_add_property(result, "consumer", host_json(host_consumer_id()));
    result = host_add_property(result, "received", host_format("%" PRIu64, host_received_ms()));
    return host_emit(host_add_property(result, "generation", host_format("%" PRIu64, host_generation())));
}

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static host_outcome many_randoms(void) {
    enum { COUNT = 20000 };
    double *values = host_alloc(COUNT * sizeof *values), sum = 0;
    for (int i = 0; i < COUNT; i++) sum += values[i] = ldexp((double)(host_random() >> 11), -53);
    qsort(values, COUNT, sizeof *values, compare);
    int different = 1;
    for (int i = 1; i < COUNT; i++) different += values[i] != values[i - 1];
    const char *inside = values[0] >= 0 && values[COUNT - 1] < 1 ? "true" : "false";
    return host_emit(host_format("{\"different\": %d, \"inside\": %s, \"mean\": %.1f}", different, inside, sum / COUNT));
}

static host_outcome config(const char *key) {
    host_text value;
    return emit("value", host_config(key, &value) ? host_json(value) : host_string("null"));
}

static host_outcome log_lines(void) {
    static const char *const names[] = {"trace", "debug", "info", "warn", "error", "critical"};
    for (int level = HOST_TRACE; level <= HOST_CRITICAL; level++) {
        host_log((host_level)level, "to %s: é😀", names[level]);
    }
    return host_drop();
}

static host_outcome print(void) {
    printf("to stdout: é😀\n");
    // Nobody else flushes: the program does not end.
    fflush(stdout);
    fprintf(stderr, "to stderr: é😀\n");
    return host_drop();
}

static host_outcome several(void) {
    static host_output all[2];
    all[0] = (host_output){.body = host_string("{\"n\": 1}")};
    all[1] = (host_output){.body = host_string("{\"n\": 2.0}")};
    return host_emit_all(all, 2);
}

static host_outcome outputs(void) {
    static const char *const to[] = {"audit", NULL, "fraud", "audit"};
    host_output *all = host_alloc(4 * sizeof *all);
    for (int i = 0; i < 4; i++) all[i] = (host_output){.to = to[i], .body = host_format("{\"n\": %d}", i + 1)};
    return host_emit_all(all, 4);
}

static host_outcome unknown_output(void) {
    host_output *one = host_alloc(sizeof *one);
    *one = (host_output){.to = "nowhere", .body = host_string("{}")};
    return host_emit_all(one, 1);
}

static void eat(void) {
    // A compiler leaves memory out that nobody reads.
    for (;;) {
        void *megabyte = malloc(1 << 20);
        if (megabyte == NULL) abort();
        *(volatile char *)memset(megabyte, 1, 1 << 20);
    }
}

host_outcome process(const host_message *message) {
    host_text asked = text(message, "do");
#define ASKED(word) host_equal(asked, word)
    if (ASKED("")) return emit("version", host_json(host_string(VERSION)));
    if (ASKED("echo")) return host_emit(message->body);
    if (ASKED("add")) {
        const char *name = host_format("%.*s", HOST_ARGS(text(message, "name"))).bytes;
        return host_emit(host_add_property(message->body, name, property(message, "value")));
    }
    // C has no ordinary library.
    if (ASKED("exact") || ASKED("ordinary")) return emit("text", host_json(property(message, "value")));
    if (ASKED("id")) return emit("id", host_json(message->id));
    if (ASKED("attempt")) {
        return message->attempt < number(message, "until") ? retry(message) : emit_number("attempt", message->attempt);
    }
    if (ASKED("random")) return emit("random", host_json(host_format("%016" PRIx64, host_random())));
    if (ASKED("many-randoms")) return many_randoms();
    if (ASKED("time")) return emit_number("ms", host_time_ms());
    if (ASKED("config")) return config(host_format("%.*s", HOST_ARGS(text(message, "key"))).bytes);
    if (ASKED("context")) return context();
    if (ASKED("log")) return log_lines();
    if (ASKED("print")) return print();
    if (ASKED("several")) return several();
    if (ASKED("outputs")) return outputs();
    if (ASKED("unknown-output")) return unknown_output();
    if (ASKED("none")) return host_emit_all(NULL, 0);
    if (ASKED("raw")) return host_emit(text(message, "result"));
    if (ASKED("drop")) return host_drop();
    if (ASKED("retry")) return retry(message);
    if (ASKED("reject")) return host_reject("asked for: %s", "é😀");
    if (ASKED("fail")) return host_fail("asked for: %s", "é😀");
    if (ASKED("throw")) {
        fprintf(stderr, "asked for: é😀\n");
        abort();
    }
    if (ASKED("state")) return emit_number("calls", (uint64_t)++calls);
    if (ASKED("loop")) {
        for (volatile unsigned i = 0;; i++) {}
    }
    if (ASKED("eat")) eat();
    return host_fail("unknown: %.*s", HOST_ARGS(asked));
}

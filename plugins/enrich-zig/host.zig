//! What a plugin in Zig has from its host: outcomes, JSON, configuration, randomness, time, facts. The functions are
//! those of host/host.h. `std.log` writes to the host's log, with the ids of consumer and message.
//!
//! Memory: what these functions return lives until the function of the plugin returns, and so does the message. Nothing
//! needs to be freed. What has to survive from message to message, copy with `std.heap.wasm_allocator`.

const std = @import("std");
const c = @import("c");

/// A published message.
pub const Message = struct {
    /// The `message_id`: the string itself, or the JSON text of a number.
    id: []const u8,
    /// One JSON object, byte for byte as published.
    body: []const u8,
    /// 1 at first, one more after each retry.
    attempt: u32,
};

/// One of several results, for an output that the operator has configured, or for the main output.
pub const Output = struct { to: ?[:0]const u8 = null, body: []const u8 };

/// The decision about a message. Made by the functions below.
pub const Outcome = c.host_outcome;

/// Makes a function the one that the host calls. An error means that the plugin failed; the message is tried again.
pub fn plugin(comptime process: fn (Message) anyerror!Outcome) void {
    const exported = struct {
        fn call(message: *const c.host_message) callconv(.c) Outcome {
            const id, const body = .{ slice(message.id), slice(message.body) };
            return process(.{ .id = id, .body = body, .attempt = message.attempt }) catch |failure|
                c.host_fail("%s", @errorName(failure).ptr);
        }
    };
    @export(&exported.call, .{ .name = "process" });
}

/// Memory until the function of the plugin returns.
pub const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = alloc,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = std.mem.Allocator.noFree,
} };

fn alloc(_: *anyopaque, length: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
    // Without memory the call ends in a trap.
    const start = @intFromPtr(c.host_alloc(length + alignment.toByteUnits()));
    return @ptrFromInt(alignment.forward(start));
}

// --- Outcomes -------------------------------------------------------------------------------------------------------

/// One result for the main output: the JSON text of an object.
pub fn emit(body: []const u8) Outcome {
    return c.host_emit(text(body));
}

/// Several results, written all at once.
pub fn emitAll(outputs: []const Output) Outcome {
    const all = allocator.alloc(c.host_output, outputs.len) catch unreachable;
    for (all, outputs) |*to, from| to.* = .{ .to = if (from.to) |name| name.ptr else null, .body = text(from.body) };
    return c.host_emit_all(all.ptr, all.len);
}

/// No result: the message is filtered out.
pub fn drop() Outcome {
    return c.host_drop();
}

/// Another attempt, after this delay or one that the host chooses.
pub fn retry(delay_ms: ?u32) Outcome {
    return if (delay_ms) |delay| c.host_retry_after(delay) else c.host_retry();
}

/// The message is wrong, and becomes a dead letter at once, with this reason.
pub fn reject(comptime reason: []const u8, arguments: anytype) Outcome {
    return c.host_reject("%s", format(reason, arguments).ptr);
}

/// The plugin failed; the message is tried again. The text is for the operator.
pub fn fail(comptime reason: []const u8, arguments: anytype) Outcome {
    return c.host_fail("%s", format(reason, arguments).ptr);
}

// --- JSON and text --------------------------------------------------------------------------------------------------
// These functions work on the text, so every number keeps all digits and every property its place.

/// The object with this property. An existing property of that name gets the new value in its old place, otherwise the
/// property is added at the end. `value` is JSON text.
pub fn addProperty(object: []const u8, name: [:0]const u8, value: []const u8) []const u8 {
    return slice(c.host_add_property(text(object), name.ptr, text(value)));
}

/// The JSON text of a property of the object, not of objects in it. If the name occurs twice, the last one counts.
pub fn property(object: []const u8, name: [:0]const u8) ?[]const u8 {
    var value: c.host_text = undefined;
    return if (c.host_property(text(object), name.ptr, &value)) slice(value) else null;
}

/// A JSON string with this text: quoted, with escapes.
pub fn json(plain: []const u8) []const u8 {
    return slice(c.host_json(text(plain)));
}

/// As `std.fmt` writes.
pub fn format(comptime template: []const u8, arguments: anytype) [:0]const u8 {
    return std.fmt.allocPrintSentinel(allocator, template, arguments, 0) catch unreachable;
}

fn text(bytes: []const u8) c.host_text {
    return .{ .bytes = bytes.ptr, .length = bytes.len };
}

fn slice(from: c.host_text) []const u8 {
    return if (from.length == 0) "" else from.bytes[0..from.length];
}

// --- Configuration, log, randomness, time, facts ----------------------------------------------------------------------

/// The value that the operator has set for this key of the plugin's configuration.
pub fn config(key: [:0]const u8) ?[]const u8 {
    var value: c.host_text = undefined;
    return if (c.host_config(key.ptr, &value)) slice(value) else null;
}

/// The function behind `std.log`: see `std_options` beside the function of the plugin.
pub fn log(
    comptime level: std.log.Level,
    comptime scope: @EnumLiteral(),
    comptime line: []const u8,
    arguments: anytype,
) void {
    const prefix = if (scope == .default) "" else "(" ++ @tagName(scope) ++ ") ";
    const severity = switch (level) {
        .debug => c.HOST_DEBUG,
        .info => c.HOST_INFO,
        .warn => c.HOST_WARN,
        .err => c.HOST_ERROR,
    };
    c.host_log(@intCast(severity), "%s", format(prefix ++ line, arguments).ptr);
}

/// 64 random bits from the operating system.
pub fn random() u64 {
    return c.host_random();
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn timeMs() u64 {
    return c.host_time_ms();
}

/// Channel of the message.
pub fn channel() []const u8 {
    return slice(c.host_channel());
}

/// Time at which the host took the message in, in milliseconds since 1970-01-01T00:00:00Z.
pub fn receivedMs() u64 {
    return c.host_received_ms();
}

/// Id of the consumer.
pub fn consumerId() []const u8 {
    return slice(c.host_consumer_id());
}

/// Number of the plugin's version.
pub fn generation() u64 {
    return c.host_generation();
}

//! What tests/componentize.rs asks of the functions for Zig: the property `do` of a message says what.

const std = @import("std");
const host = @import("host.zig");

const Order = enum { drop, retry, @"retry-later", reject, fail, @"error", several, facts, @"out-of-bounds", log };

fn process(message: host.Message) !host.Outcome {
    const quoted = host.property(message.body, "do") orelse return error.NoOrder;
    const order = std.meta.stringToEnum(Order, std.mem.trim(u8, quoted, "\"")) orelse return error.UnknownOrder;
    switch (order) {
        .drop => return host.drop(),
        .retry => return host.retry(null),
        .@"retry-later" => return host.retry(1500),
        .reject => return host.reject("bad {d}%s", .{7}),
        .fail => return host.fail("worse {d}", .{8}),
        .@"error" => return error.Broken,
        .several => {
            const currency = host.json(host.config("currency") orelse "none");
            const missing = host.config("other") == null;
            const first = host.format("{{\"currency\":{s},\"missing\":{}}}", .{ currency, missing });
            return host.emitAll(&.{ .{ .body = first }, .{ .body = "{\"n\":2}" } });
        },
        .facts => {
            var body = host.addProperty("{}", "channel", host.json(host.channel()));
            body = host.addProperty(body, "consumer", host.json(host.consumerId()));
            body = host.addProperty(body, "generation", host.format("{d}", .{host.generation()}));
            body = host.addProperty(body, "attempt", host.format("{d}", .{message.attempt}));
            const now = host.receivedMs() > 0 and host.timeMs() >= host.receivedMs();
            return host.emit(host.addProperty(body, "now", host.format("{}", .{now})));
        },
        .@"out-of-bounds" => {
            const few = try host.allocator.alloc(u8, 3);
            few[message.body.len] = 1;
            return host.emit(few);
        },
        .log => {
            std.log.debug("to debug", .{});
            std.log.info("to the log: {s}", .{message.id});
            std.log.scoped(.part).warn("to warn", .{});
            std.log.err("to error", .{});
            return host.drop();
        },
    }
}

comptime {
    host.plugin(process);
}

pub const std_options: std.Options = .{ .logFn = host.log, .log_level = .debug };

//! Adds `random_property` to every message and leaves everything else unchanged.

const std = @import("std");
const host = @import("host.zig");

fn process(message: host.Message) !host.Outcome {
    const random = host.format("{x:0>16}", .{host.random()});
    return host.emit(host.addProperty(message.body, "random_property", host.json(random)));
}

comptime {
    host.plugin(process);
}

pub const std_options: std.Options = .{ .logFn = host.log, .log_level = .debug };

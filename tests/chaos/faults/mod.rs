//! What can happen. Each fault is a value with a name; a schedule combines them.

mod hosts;
mod keys;
mod network;
mod server;
mod traffic;

use std::sync::Arc;

use rand::rngs::StdRng;

use crate::setup::Needs;
use crate::world::World;

/// Something that happens to hosts, to Redis or between them.
pub struct Fault {
    pub name: &'static str,
    /// What happens, for `--list`.
    pub about: &'static str,
    pub needs: Needs,
    /// Lets it happen and returns when it is over.
    pub run: fn(&Arc<World>, &mut StdRng),
}

impl Fault {
    const fn new(name: &'static str, needs: Needs, run: fn(&Arc<World>, &mut StdRng), about: &'static str) -> Fault {
        Fault { name, about, needs, run }
    }
}

/// All there are.
pub const FAULTS: &[Fault] = &[
    Fault::new("kill", Needs::Nothing, hosts::kill, "kill -9 of a host; another is started soon"),
    Fault::new("pause", Needs::Nothing, hosts::pause, "SIGSTOP across the lease, the heartbeat and more"),
    Fault::new("flicker", Needs::Nothing, hosts::flicker, "many short pauses of one host"),
    Fault::new("stop", Needs::Nothing, hosts::stop, "SIGTERM, and another host"),
    Fault::new("join", Needs::Nothing, hosts::join, "another host"),
    Fault::new("twins", Needs::Nothing, hosts::twins, "two hosts started in the same instant"),
    Fault::new("full-pipes", Needs::Nothing, hosts::full_pipes, "a host whose stdout and stderr nobody reads"),
    Fault::new(
        "aged-pause",
        Needs::ShortWindow,
        hosts::aged_pause,
        "a standby paused beyond the dedup window; the active host dies meanwhile",
    ),
    Fault::new(
        "skewed-clock",
        Needs::Skew,
        hosts::skewed_clock,
        "the clock of a host jumps by an hour or two; others are an hour off from the start",
    ),
    Fault::new("swap", Needs::Nothing, hosts::swap, "new versions of the plugin, one of them broken"),
    Fault::new("stall", Needs::Nothing, network::stall, "nothing comes through to and from a host, or one way only"),
    Fault::new("delay", Needs::Nothing, network::delay, "everything comes late"),
    Fault::new("tiny", Needs::Nothing, network::tiny, "everything comes in tiny pieces"),
    Fault::new("cut", Needs::Nothing, network::cut, "connections end in the middle of a reply"),
    Fault::new("slow", Needs::Another, network::slow, "a host writes slowly, and dies with what it has"),
    Fault::new(
        "blip",
        Needs::Nothing,
        network::blip,
        "all connections of a host break and are back within the lease, again and again",
    ),
    Fault::new("reset", Needs::Nothing, network::reset, "all connections of a host break and are back at once"),
    Fault::new("client-kill-normal", Needs::Nothing, server::kill_normal, "CLIENT KILL TYPE normal"),
    Fault::new("client-kill-pubsub", Needs::Nothing, server::kill_pubsub, "CLIENT KILL TYPE pubsub"),
    Fault::new("client-pause", Needs::Nothing, server::client_pause, "CLIENT PAUSE of writes or of all"),
    Fault::new("script-flush", Needs::Nothing, server::script_flush, "SCRIPT FLUSH"),
    Fault::new("sleep", Needs::Nothing, server::sleep, "DEBUG SLEEP of 1.5, 4 or 8 s"),
    Fault::new("full-memory", Needs::Nothing, server::full_memory, "maxmemory is reached for a while"),
    Fault::new(
        "read-only",
        Needs::Nothing,
        server::read_only,
        "the server is made a replica of nothing, and a primary again",
    ),
    Fault::new("small-buffers", Needs::Nothing, server::small_buffers, "subscribers that lag a little are cut off"),
    Fault::new("restart", Needs::Aof, server::restart, "Redis with AOF is killed or stopped, and comes back soon"),
    Fault::new(
        "restart-empty",
        Needs::NoAof,
        server::restart_empty,
        "Redis without AOF is killed and comes back empty",
    ),
    Fault::new("away", Needs::ShortWindow, server::away, "Redis is away for longer than the dedup window"),
    Fault::new("promote", Needs::Replica, server::promote, "a replica is promoted; the old primary stays reachable"),
    Fault::new(
        "failover",
        Needs::Replica,
        server::failover,
        "a replica held back by 2 s is promoted; the old primary is gone",
    ),
    Fault::new("burst", Needs::Another, traffic::burst, "a burst of 1 KiB messages with a kill in the middle"),
    Fault::new("large", Needs::Nothing, traffic::large, "messages of 1 MiB, with a kill in the middle"),
    Fault::new("big-burst", Needs::Time, traffic::big_burst, "300,000 messages of 1 KiB with a kill in the middle"),
    Fault::new("destroy-group", Needs::Nothing, keys::destroy_group, "XGROUP DESTROY of the inbox"),
    Fault::new("delete-inbox", Needs::Nothing, keys::delete_inbox, "DEL of the inbox"),
    Fault::new("delete-lease", Needs::Nothing, keys::delete_lease, "DEL of the intake's lease"),
    Fault::new(
        "foreign-lease",
        Needs::Nothing,
        keys::foreign_lease,
        "a lease of somebody else, without an expiry or of the wrong type",
    ),
    Fault::new(
        "delete-registry",
        Needs::Nothing,
        keys::delete_registry,
        "DEL of consumer:ids and of what goes with it",
    ),
];

/// The fault with this name.
pub fn named(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

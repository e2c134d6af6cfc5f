//! Somebody else's hand in the keys.

use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;

use redis::{Cmd, RedisResult, cmd};

use crate::clock::wait;
use crate::ledger::number;
use crate::outcomes::Entries;
use crate::support::records::{GROUP, HEARTBEAT, HOSTS, IDS, INBOX, LEASE};
use crate::world::World;

/// What is in work in this moment may be processed again from the new group: the promise does not cover other hands in the
/// keys, and everything else is judged.
pub fn destroy_group(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("XGROUP DESTROY of the inbox");
        let waiting = after_a_look(world, cmd("XGROUP").arg("DESTROY").arg(INBOX).arg(GROUP));
        world.excuse_twice(waiting);
        wait(1_000);
    });
}

pub fn delete_inbox(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("DEL of the inbox");
        let waiting = after_a_look(world, cmd("DEL").arg(INBOX));
        world.excuse_missing(waiting);
        wait(1_000);
    });
}

/// Runs this command, and gives the messages that were in the inbox just before.
fn after_a_look(world: &World, command: &Cmd) -> Vec<u32> {
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("XRANGE").arg(INBOX).arg("-").arg("+").add_command(command.clone());
    let reply: RedisResult<(Entries, redis::Value)> =
        world.connect().and_then(|mut connection| pipeline.query(&mut connection));
    match reply {
        // Each message is a field with its id as the name.
        Ok((entries, _)) => {
            let names = entries.iter().flat_map(|(_, fields)| fields).map(|(name, _)| name.as_bytes());
            names.filter_map(number).collect()
        }
        Err(error) => {
            world.note(format!("not done: {error}"));
            Vec::new()
        }
    }
}

pub fn delete_lease(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("DEL of the lease");
        for _ in 0..random.random_range(1..4) {
            world.tell(&format!("DEL {LEASE}"));
            wait(random.random_range(10..1_000));
        }
    });
}

pub fn foreign_lease(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let kind = random.random_range(0..3);
        world.note(["a foreign lease", "a lease without an expiry", "a lease of the wrong type"][kind]);
        match kind {
            0 => world.tell(&format!("SET {LEASE} somebody PX 4000")),
            1 => world.tell(&format!("SET {LEASE} somebody")),
            _ => {
                world.tell(&format!("DEL {LEASE}"));
                world.tell(&format!("HSET {LEASE} a b"));
            }
        }
        wait(random.random_range(3_000..7_000));
        // Whether the hosts have mended it or not.
        if kind != 0 && world.active().is_none() {
            world.tell(&format!("DEL {LEASE}"));
        }
    });
}

pub fn delete_registry(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let keys = [vec![IDS], vec![HEARTBEAT], vec![HOSTS], vec![IDS, HEARTBEAT, HOSTS]];
        let keys = keys[random.random_range(0..keys.len())].join(" ");
        world.note(format!("DEL {keys}"));
        world.tell(&format!("DEL {keys}"));
        wait(500);
    });
}

//! Somebody else's hand in the keys.

use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::support::records::{HEARTBEAT, HOSTS, IDS, INBOX, LEASE};
use crate::world::World;

/// What is in the inbox was heard at most so long ago, unless something else is wrong.
const IN_INBOX_MS: u32 = 30_000;

/// From the deletion until it has been noticed and repaired.
const REPAIR_MS: u32 = 1_500;

pub fn destroy_group(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("XGROUP DESTROY of the inbox");
        world.tell(&format!("XGROUP DESTROY {INBOX} host"));
        wait(1_000);
    });
}

pub fn delete_inbox(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("DEL of the inbox");
        let now = world.clock.now();
        world.tell(&format!("DEL {INBOX}"));
        world.forgive((now.saturating_sub(IN_INBOX_MS), now + REPAIR_MS), "it was in the inbox that was deleted");
        wait(1_000);
    });
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

//! Faults of Redis.

use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::relay::Way;
use crate::setup::pick;
use crate::support::Signal;
use crate::world::{World, connect, replica_of};

/// What hosts keep of what they have heard, in time, with a second for the detection of the failover.
const KEPT_MS: u32 = 8_000;

pub fn kill_normal(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("CLIENT KILL of normal connections");
        for _ in 0..random.random_range(1..4) {
            world.tell("CLIENT KILL TYPE normal SKIPME yes");
            wait(random.random_range(50..1_000));
        }
    });
}

pub fn kill_pubsub(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("CLIENT KILL of subscriptions");
        for _ in 0..random.random_range(1..4) {
            world.tell("CLIENT KILL TYPE pubsub");
            wait(random.random_range(50..1_000));
        }
    });
}

pub fn client_pause(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let ms = *pick(random, &[500, 2_500, 4_000, 8_000, 12_000]);
        let what = *pick(random, &["ALL", "WRITE"]);
        world.note(format!("CLIENT PAUSE {ms} {what}"));
        world.tell(&format!("CLIENT PAUSE {ms} {what}"));
        wait(ms);
    });
}

pub fn script_flush(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("SCRIPT FLUSH");
        world.tell("SCRIPT FLUSH");
    });
}

pub fn sleep(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let seconds = *pick(random, &["1.5", "4", "8"]);
        world.note(format!("DEBUG SLEEP {seconds}"));
        world.tell(&format!("DEBUG SLEEP {seconds}"));
    });
}

pub fn full_memory(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let Some(used) = world.info("memory", "used_memory") else { return };
        let limit = if random.random_bool(0.5) { used.saturating_sub(100_000) } else { used + 200_000 };
        let ms = *pick(random, &[2_000, 6_000, 14_000]);
        world.note(format!("memory is full for {ms} ms: {limit} bytes, {used} are used"));
        world.tell(&format!("CONFIG SET maxmemory {limit}"));
        wait(ms);
        world.tell("CONFIG SET maxmemory 0");
        world.note("memory is free");
    });
}

pub fn read_only(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let ms = *pick(random, &[1_000, 5_000, 11_000]);
        world.note(format!("read-only for {ms} ms"));
        world.tell("REPLICAOF 127.0.0.1 1");
        wait(ms);
        world.tell("REPLICAOF NO ONE");
    });
}

pub fn small_buffers(world: &Arc<World>, _: &mut StdRng) {
    world.trouble_servers(|| {
        world.note("small output buffers");
        let set = |limits: &str| {
            let command = redis::cmd("CONFIG").arg("SET").arg("client-output-buffer-limit").arg(limits).to_owned();
            let _ = world.ask::<redis::Value>(&command);
        };
        set("pubsub 2000 1000 1 normal 200000 100000 2");
        wait(4_000);
        set("pubsub 33554432 8388608 60 normal 0 0 0");
    });
}

pub fn restart(world: &Arc<World>, random: &mut StdRng) {
    let ms = *pick(random, &[100, 1_000, 3_500, 8_000]);
    let is_kill = random.random_bool(0.5);
    world.trouble_servers(|| down(world, ms, is_kill));
}

pub fn restart_empty(world: &Arc<World>, random: &mut StdRng) {
    let ms = *pick(random, &[100, 2_000, 8_000]);
    world.trouble_servers(|| {
        down(world, ms, true);
        world.excuse_time((0, world.clock.now()), "Redis came back without its data");
    });
}

pub fn away(world: &Arc<World>, random: &mut StdRng) {
    let window = u32::try_from(world.setup.dedup_window.as_millis()).unwrap_or(0);
    let ms = window + random.random_range(1_000..8_000);
    world.trouble_servers(|| down(world, ms, false));
}

fn down(world: &Arc<World>, ms: u32, is_kill: bool) {
    world.note(format!("Redis is {} and away for {ms} ms", if is_kill { "killed" } else { "stopped" }));
    let mut servers = world.servers();
    if !is_kill {
        servers.primary.signal(Signal::Terminate);
        wait(300);
    }
    servers.primary.kill();
    wait(ms);
    servers.primary.restart();
    world.note("Redis is back");
}

/// The replica has everything when it is promoted. Publishers go to it at once, connections of hosts stay with the old
/// primary until the hosts make others; later the old primary becomes a replica.
pub fn promote(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let mut servers = world.servers();
        let Some(replica) = servers.replica.take() else { return };
        world.note("promotion of the replica; the old primary stays");
        world.pause_publishing(true);
        wait(300);
        let promoted = replica.server;
        order(world, promoted.port(), "REPLICAOF NO ONE");
        world.lead_to(promoted.port());
        world.pause_publishing(false);
        let old = std::mem::replace(&mut servers.primary, promoted);
        drop(servers);
        wait(*pick(random, &[0, 1_000, 5_000, 12_000]));
        world.note("the old primary becomes a replica");
        let replica = replica_of(world.clock, old, world.primary_port());
        world.servers().replica = Some(replica);
        wait(3_000);
    });
}

/// The replica lacks what happened in the last 2 s.
pub fn failover(world: &Arc<World>, random: &mut StdRng) {
    world.trouble_servers(|| {
        let mut servers = world.servers();
        let Some(replica) = servers.replica.take() else { return };
        let lag = random.random_range(500..2_500);
        world.note(format!("failover to a replica that lags by {lag} ms"));
        replica.relay.set(Way::StallDown);
        wait(lag);
        world.pause_publishing(true);
        servers.primary.kill();
        replica.relay.break_all();
        wait(random.random_range(100..3_000));
        let promoted = replica.server;
        order(world, promoted.port(), "REPLICAOF NO ONE");
        world.lead_to(promoted.port());
        world.pause_publishing(false);
        let mut old = std::mem::replace(&mut servers.primary, promoted);
        drop(servers);
        wait(KEPT_MS);
        old.restart();
        let replica = replica_of(world.clock, old, world.primary_port());
        world.servers().replica = Some(replica);
        wait(3_000);
    });
}

fn order(world: &Arc<World>, port: u16, words: &str) {
    let mut parts = words.split(' ');
    let mut command = redis::cmd(parts.next().unwrap_or_default());
    parts.for_each(|part| {
        command.arg(part);
    });
    let done: redis::RedisResult<redis::Value> =
        connect(port).and_then(|mut connection| command.query(&mut connection));
    if let Err(error) = done {
        world.note(format!("{words}: {error}"));
    }
}

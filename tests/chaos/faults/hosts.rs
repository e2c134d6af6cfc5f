//! Faults of the hosts' processes.

use std::fs;
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::member::Output;
use crate::setup::pick;
use crate::support::Signal;
use crate::world::{Victim, World};

/// Hosts at a time, at most.
const HOSTS_MAX: usize = 5;

pub fn kill(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    world.note(format!("kill {}", world.describe(&victim.0)));
    victim.0.kill();
    wait(random.random_range(0..3_000));
    world.replace();
}

pub fn pause(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    // Around a lease of 3 s and a heartbeat of 7 s; longer than a short dedup window.
    let ms = *pick(random, &[500, 2_000, 3_200, 5_000, 7_500, 9_000, 12_000]);
    world.note(format!("pause {} for {ms} ms", world.describe(&victim.0)));
    victim.0.pause(ms);
}

pub fn flicker(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    let times = random.random_range(3..10);
    world.note(format!("flicker of {}, {times} pauses", world.describe(&victim.0)));
    for _ in 0..times {
        victim.0.pause(random.random_range(50..3_500) / times * 2);
        wait(random.random_range(5..400));
    }
}

pub fn stop(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    world.note(format!("stop {}", world.describe(&victim.0)));
    if !victim.0.stop() {
        world.find(format!("{} did not stop within 20 s of SIGTERM", victim.0.name));
    }
    world.replace();
}

pub fn join(world: &Arc<World>, _: &mut StdRng) {
    if world.living().len() < HOSTS_MAX {
        world.note(format!("join of {}", world.start_host().name));
    }
}

pub fn twins(world: &Arc<World>, random: &mut StdRng) {
    if world.living().len() + 2 > HOSTS_MAX {
        return;
    }
    let twins = [world.start_host(), world.start_host()];
    world.note(format!("twins {} and {}", twins[0].name, twins[1].name));
    wait(random.random_range(0..6_000));
    // One of them leaves again, perhaps before it is there.
    let twin = pick(random, &twins).clone();
    if twin.is_alive() && twin.take() {
        let victim = Victim(twin);
        world.note(format!("kill {}", world.describe(&victim.0)));
        victim.0.kill();
    }
}

pub fn full_pipes(world: &Arc<World>, random: &mut StdRng) {
    if world.living().len() >= HOSTS_MAX {
        return;
    }
    let member = world.start_host_with(&Output::FullPipes);
    world.note(format!("join of {}, whose output nobody reads", member.name));
    wait(random.random_range(4_000..10_000));
    while !member.take() {
        wait(50);
    }
    let victim = Victim(member);
    if victim.0.is_alive() {
        world.note(format!("stop {}", world.describe(&victim.0)));
        if !victim.0.stop() {
            world.find(format!("{}, whose output nobody reads, did not stop within 20 s of SIGTERM", victim.0.name));
        }
    }
}

pub fn aged_pause(world: &Arc<World>, random: &mut StdRng) {
    let Some(active) = world.active() else { return };
    let Some(standby) = world.living().into_iter().find(|member| !Arc::ptr_eq(member, &active)) else { return };
    if !active.take() {
        return;
    }
    let active = Victim(active);
    if !standby.take() {
        return;
    }
    let standby = Victim(standby);
    let ms = u32::try_from(world.setup.dedup_window.as_millis()).unwrap_or(0) + random.random_range(500..3_000);
    world
        .note(format!("pause the standby {} for {ms} ms; kill the active {} meanwhile", standby.0.name, active.0.name));
    std::thread::scope(|scope| {
        scope.spawn(|| standby.0.pause(ms));
        wait(ms - 400);
        active.0.kill();
    });
    world.replace();
}

pub fn skewed_clock(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    let Some(skew) = &victim.0.skew else { return };
    let offset_seconds = skew.jump(random.random());
    world.note(format!("the clock of {} is off by {offset_seconds} s", world.describe(&victim.0)));
    // Across the lease, and with luck across a heartbeat.
    wait(random.random_range(0..5_000));
    if random.random_bool(0.3) {
        world.note(format!("kill {}", world.describe(&victim.0)));
        victim.0.kill();
        world.replace();
    }
}

pub fn swap(world: &Arc<World>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let mut version = world.another_plugin();
        let is_broken = random.random_bool(0.25);
        if is_broken {
            version.bytes.truncate(version.bytes.len() / 2);
        }
        world.note(if is_broken { "a broken version of the plugin" } else { "another version of the plugin" });
        let new = world.folder.join("new.wasm");
        version.write_to(&new);
        if let Err(error) = fs::rename(&new, world.plugin()) {
            world.note(format!("rename the new version: {error}"));
        }
        wait(random.random_range(300..3_000));
    }
    // A host that starts now must find a plugin that works.
    world.another_plugin().write_to(&world.folder.join("last.wasm"));
    if let Err(error) = fs::rename(world.folder.join("last.wasm"), world.plugin()) {
        world.note(format!("rename the last version: {error}"));
    }
    world.living().iter().filter(|member| !member.is_taken()).for_each(|member| member.signal(Signal::Hangup));
}

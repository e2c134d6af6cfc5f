//! Faults between a host and Redis.

use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::relay::Way;
use crate::setup::pick;
use crate::world::World;

pub fn stall(world: &Arc<World>, random: &mut StdRng) {
    let way = *pick(random, &[Way::Stall, Way::StallUp, Way::StallDown]);
    bend(world, random, way, 1_000, 14_000);
}

pub fn delay(world: &Arc<World>, random: &mut StdRng) {
    bend(world, random, Way::Delay(250), 2_000, 10_000);
}

pub fn tiny(world: &Arc<World>, random: &mut StdRng) {
    bend(world, random, Way::Tiny, 2_000, 8_000);
}

pub fn cut(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    world.note(format!("cut the replies to {}", world.describe(&victim.0)));
    victim.0.trouble(|relay| {
        for _ in 0..random.random_range(2..8) {
            relay.set(Way::Cut);
            wait(random.random_range(5..200));
            relay.set(Way::Pass);
            wait(random.random_range(100..800));
        }
    });
}

pub fn slow(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    let ms = random.random_range(3_000..10_000);
    world.note(format!("{} writes slowly for {ms} ms and is killed", world.describe(&victim.0)));
    victim.0.trouble(|relay| {
        relay.set(Way::SlowUp(60_000));
        wait(ms);
        victim.0.kill();
    });
    world.replace();
}

/// Two healthy standbys hear everything meanwhile, and so does the host itself before and after.
pub fn blip(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    let times = random.random_range(1..4);
    let ms = random.random_range(300..2_600);
    let is_stalled = random.random_bool(0.3);
    world.note(format!("blip of {}, {times} times {ms} ms", world.describe(&victim.0)));
    victim.0.trouble(|relay| {
        for _ in 0..times {
            if is_stalled {
                relay.set(Way::Stall);
            } else {
                relay.refuse(true);
                relay.break_all();
            }
            wait(ms);
            if is_stalled {
                relay.break_all();
                relay.set(Way::Pass);
            }
            relay.refuse(false);
            wait(random.random_range(200..3_000));
        }
    });
}

pub fn reset(world: &Arc<World>, random: &mut StdRng) {
    let Some(victim) = world.victim(random) else { return };
    world.note(format!("reset all connections of {}", world.describe(&victim.0)));
    victim.0.trouble(|relay| {
        for _ in 0..random.random_range(1..6) {
            relay.break_all();
            wait(random.random_range(50..1_000));
        }
    });
}

/// Changes what becomes of what is sent, for some time; half of the times the connections break then.
fn bend(world: &Arc<World>, random: &mut StdRng, way: Way, ms_min: u32, ms_max: u32) {
    let Some(victim) = world.victim(random) else { return };
    let ms = random.random_range(ms_min..ms_max);
    let breaks = random.random_bool(0.5);
    world.note(format!("{way:?} on the way of {} for {ms} ms", world.describe(&victim.0)));
    victim.0.trouble(|relay| {
        relay.set(way);
        wait(ms);
        if breaks {
            relay.break_all();
        }
    });
}

//! More traffic than there is, and larger.

use std::sync::Arc;
use std::thread;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::load;
use crate::world::World;

/// A message of this size has a length of 1 MiB at most.
const LARGE_BYTES: usize = (1 << 20) - 64;

pub fn burst(world: &Arc<World>, random: &mut StdRng) {
    let count = random.random_range(10_000..30_000);
    let after = random.random_range(0..600);
    world.while_bursting(|| with_a_kill(world, random, count, 1_024, None, after));
}

pub fn big_burst(world: &Arc<World>, random: &mut StdRng) {
    let after = random.random_range(500..3_000);
    world.while_bursting(|| with_a_kill(world, random, 300_000, 1_024, None, after));
}

pub fn large(world: &Arc<World>, random: &mut StdRng) {
    let after = random.random_range(500..3_000);
    let per_second = random.random_range(10..40);
    world.while_bursting(|| with_a_kill(world, random, per_second * 4, LARGE_BYTES, Some(per_second), after));
}

fn with_a_kill(world: &Arc<World>, random: &mut StdRng, count: u32, bytes: usize, pace: Option<u32>, after: u32) {
    world.note(format!("burst of {count} messages of {bytes} bytes"));
    let publisher = {
        let world = world.clone();
        thread::spawn(move || load::burst(&world, count, bytes, pace))
    };
    wait(after);
    if let Some(victim) = world.victim(random) {
        world.note(format!("kill {}", world.describe(&victim.0)));
        victim.0.kill();
    }
    let _ = publisher.join();
    world.replace();
}

//! Which faults happen when: drawn from a seed before anything happens, and carried out in threads of their own, so that
//! faults overlap.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::{FAULTS, Fault};
use crate::setup::Setup;
use crate::world::World;

/// Time between the beginnings of two faults, at most.
const PAUSE_MS_MAX: u32 = 4_000;

/// A fault at its time.
pub struct Planned {
    /// After the start of the schedule.
    pub at: u32,
    pub fault: &'static Fault,
    seed: u64,
}

/// Draws a schedule, of one fault if one is named.
pub fn draw(random: &mut StdRng, setup: &Setup, only: Option<&'static Fault>) -> Vec<Planned> {
    let fitting: Vec<&'static Fault> = match only {
        Some(fault) => vec![fault],
        None => FAULTS.iter().filter(|fault| setup.fits(fault.needs)).collect(),
    };
    let (mut at, mut planned) = (0, Vec::new());
    while at < setup.seconds * 1_000 {
        let fault = fitting[random.random_range(0..fitting.len())];
        planned.push(Planned { at, fault, seed: random.random() });
        at += random.random_range(200..PAUSE_MS_MAX);
    }
    planned
}

/// Lets all of it happen and waits until it is over.
pub fn carry_out(world: &Arc<World>, schedule: &[Planned]) {
    let start = world.clock.now();
    thread::scope(|scope| {
        for planned in schedule {
            world.clock.wait_until(start + planned.at);
            scope.spawn(|| {
                let mut random = StdRng::seed_from_u64(planned.seed);
                let run = AssertUnwindSafe(|| (planned.fault.run)(world, &mut random));
                if let Err(panic) = panic::catch_unwind(run) {
                    let text = panic.downcast_ref::<String>().map_or("no text", String::as_str);
                    world.find(format!("the fault {} itself failed: {text}", planned.fault.name));
                }
            });
        }
    });
}

//! One campaign: hosts, traffic, faults, a quiet end, the judgement.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::clock::wait;
use crate::faults::Fault;
use crate::judge::{Figures, judge, seconds};
use crate::load::{self, Publisher};
use crate::member::{Member, Use};
use crate::outcomes;
use crate::schedule::{self, Planned};
use crate::setup::Setup;
use crate::world::World;

/// Traffic before the first fault.
const WARM_UP_MS: u32 = 2_000;

/// The list of consumers is true so long after the last fault.
const REGISTERED_MS_MAX: u32 = 10_000;

/// Messages after the last fault, each of which must come through.
const PROBES: u32 = 300;

/// A host hears what is published at the latest so long after the last fault.
const HEARING_MS_MAX: u32 = 15_000;

/// The last gap has been counted and reported at the latest so long after the last fault.
const COUNTED_MS_MAX: u32 = 8_000;

/// A message has reached a host at the latest so long after it was published.
const PROBED_MS_MAX: u32 = 3_000;

/// What a host may have more at the end than after the warm-up.
const FILES_MORE_MAX: usize = 10;
const THREADS_MORE_MAX: usize = 4;
const MEMORY_MORE_MAX_KIB: u64 = 96 << 10;

/// Covered messages are kept for 10 s, and threads for blocking calls end some time after the last one.
const FLAT_MS_MAX: u32 = 20_000;

/// What is to be run.
#[derive(Clone)]
pub struct Order {
    pub seed: u64,
    pub program: PathBuf,
    /// Time in which faults begin.
    pub seconds: u32,
    pub only: Option<&'static Fault>,
    pub long: bool,
}

/// How it went.
pub struct Report {
    pub seed: u64,
    pub setup: String,
    pub figures: Figures,
    pub findings: Vec<String>,
    /// The whole account, for people.
    pub text: String,
}

impl Report {
    /// Of a campaign that could not be carried out; the panic's own text has been printed.
    pub fn of_a_panic(seed: u64) -> Report {
        let finding = String::from("the campaign itself failed");
        let text = format!("seed {seed}: {finding}");
        Report { seed, setup: String::new(), figures: Figures::new(), findings: vec![finding], text }
    }
}

/// Runs a campaign whose logs go to this folder.
pub fn run(order: &Order, folder: &Path) -> Report {
    let mut random = StdRng::seed_from_u64(order.seed);
    let mut setup = Setup::draw(order.seed, &mut random, order.program.clone(), order.seconds, order.long);
    if let Some(fault) = order.only {
        setup = setup.with(fault.needs);
    }
    let schedule = schedule::draw(&mut random, &setup, order.only);
    let world = World::new(setup, folder.to_owned());
    let figures = play(&world, &schedule, order.seed);
    let findings = world.findings();
    let text = account(&world, &schedule, order.seed, &figures, &findings);
    let _ = fs::write(folder.join("account.txt"), &text);
    Report { seed: order.seed, setup: world.setup.to_string(), figures, findings, text }
}

fn play(world: &Arc<World>, schedule: &[Planned], seed: u64) -> Figures {
    (0..world.setup.hosts).for_each(|_| drop(world.start_host()));
    if let Err(state) = world.ready() {
        world.find(format!("the hosts were not ready at the start: {state}"));
        return Figures::new();
    }
    let share = world.setup.messages_per_second / world.setup.publishers;
    let publishers: Vec<Publisher> =
        (0..world.setup.publishers).map(|number| Publisher::start(world, seed ^ u64::from(number), share)).collect();
    wait(WARM_UP_MS);
    let before: Vec<(Arc<Member>, Option<Use>)> =
        world.members().into_iter().map(|member| (member.clone(), member.usage())).collect();
    schedule::carry_out(world, schedule);
    world.note("the last fault is over");
    let over = world.clock.now();
    heal(world);
    publishers.into_iter().for_each(Publisher::finish);
    outcomes::settle(world);
    before.iter().for_each(|(member, before)| compare(world, member, before.as_ref()));
    judge_states(world);
    world.clock.wait_until(over + COUNTED_MS_MAX);
    stop_all(world);
    judge(world)
}

/// Waits until everybody is back, and requires that they are and that messages come through.
fn heal(world: &Arc<World>) {
    let over = world.clock.now();
    while world.living().len() < world.setup.hosts {
        world.start_host();
    }
    let mut state = world.registered();
    while state.is_err() && world.clock.now() < over + REGISTERED_MS_MAX {
        wait(50);
        state = world.registered();
    }
    if let Err(state) = state {
        world.find(format!("10 s after the last fault {state}"));
    }
    let mut deaf = world.living();
    while !deaf.is_empty() && world.clock.now() < over + HEARING_MS_MAX {
        wait(50);
        deaf.retain(|member| member.relay.last_heard().is_none_or(|at| at <= over));
    }
    let probed = world.clock.now();
    let probes: HashSet<u32> = load::burst(world, PROBES, 0, None).into_iter().collect();
    let has_heard = |member: &Arc<Member>| {
        let heard = member.relay.heard().into_iter().map(|heard| heard.message);
        heard.filter(|message| probes.contains(message)).collect::<HashSet<u32>>().len() == probes.len()
    };
    deaf = world.living();
    while !deaf.is_empty() && world.clock.now() < probed + PROBED_MS_MAX {
        wait(100);
        deaf.retain(|member| !has_heard(member));
    }
    let deaf: Vec<String> = deaf.iter().map(|member| member.name.clone()).collect();
    if !deaf.is_empty() {
        world.find(format!("{} did not hear {PROBES} messages after the last fault", deaf.join(", ")));
    }
}

/// Memory, open files and threads are what they were, once what a host does after a fault has ended.
fn compare(world: &World, member: &Member, before: Option<&Use>) {
    let Some(before) = before else { return };
    let is_flat = |now: &Use| {
        now.files <= before.files + FILES_MORE_MAX
            && now.threads <= before.threads + THREADS_MORE_MAX
            && now.memory_kib <= before.memory_kib + MEMORY_MORE_MAX_KIB
    };
    let until = world.clock.now() + FLAT_MS_MAX;
    while let Some(now) = member.usage() {
        if is_flat(&now) {
            return;
        }
        if world.clock.now() > until {
            world.find(format!("{} takes more than before: {now:?} instead of {before:?}", member.name));
            return;
        }
        wait(500);
    }
}

/// What hosts report of their intakes: one is active, and nothing is owed. Hosts that report none of it are not judged.
fn judge_states(world: &World) {
    let judge = || -> Result<(), String> {
        for member in world.living() {
            if let (Some(skew), Some(report)) = (&member.skew, member.report()) {
                skew.check(&report).map_err(|problem| format!("{} reports {problem}", member.name))?;
            }
        }
        let reports: Vec<_> =
            world.living().iter().filter_map(|member| Some((member.name.clone(), member.report()?))).collect();
        let states: Vec<(&str, &str)> = reports
            .iter()
            .filter_map(|(name, report)| Some((name.as_str(), report.get("intake")?.as_str()?)))
            .collect();
        let active = states.iter().filter(|(_, state)| *state == "active").count();
        // A host whose output nobody reads may be the active one.
        if states.len() == world.living().len()
            && (active != 1 || states.iter().any(|(_, state)| !["active", "standby"].contains(state)))
        {
            return Err(format!("the intakes are {states:?}"));
        }
        let lags: Vec<_> = reports
            .iter()
            .filter(|(_, report)| report.get("position_lag").and_then(serde_json::Value::as_u64).unwrap_or(0) > 0)
            .map(|(name, _)| name)
            .collect();
        if lags.is_empty() { Ok(()) } else { Err(format!("{lags:?} report a position lag though nothing waits")) }
    };
    let until = world.clock.now() + 5_000;
    let mut state = judge();
    while state.is_err() && world.clock.now() < until {
        wait(200);
        state = judge();
    }
    if let Err(state) = state {
        world.find(state);
    }
}

/// Stops all hosts at once.
fn stop_all(world: &Arc<World>) {
    let living = world.living();
    thread::scope(|scope| {
        for member in &living {
            scope.spawn(|| {
                if !member.stop() {
                    world.find(format!("{} did not stop within 20 s of SIGTERM at the end", member.name));
                }
            });
        }
    });
}

/// Everything that helps to understand a campaign.
fn account(world: &World, schedule: &[Planned], seed: u64, figures: &Figures, findings: &[String]) -> String {
    let mut text = format!("seed {seed}: {}\n", world.setup);
    let plan = schedule.iter().map(|planned| format!("{} {}", seconds(planned.at), planned.fault.name));
    let _ = writeln!(text, "schedule: {}", plan.collect::<Vec<_>>().join(", "));
    for (at, event) in world.events() {
        let _ = writeln!(text, "  {:>9} {event}", seconds(at));
    }
    let excused = world.excused();
    for ((from, to), why) in excused.times {
        let _ = writeln!(text, "may be missing: sent from {} to {}, because {why}", seconds(from), seconds(to));
    }
    let (missing, twice) = (excused.missing.len(), excused.twice.len());
    let _ =
        writeln!(text, "in the inbox: {missing} messages when it was deleted, {twice} when its group was destroyed");
    let figures = figures.iter().map(|(name, value)| format!("{name} {value}"));
    let _ = writeln!(text, "{}", figures.collect::<Vec<_>>().join(", "));
    for finding in findings {
        let _ = writeln!(text, "FOUND {finding}");
    }
    text
}

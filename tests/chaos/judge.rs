//! Whether the promise was kept.
//!
//! A message counts as **heard for sure** when all of this holds for at least one host:
//! - the host's relay has handed the whole message to the host's socket, on a connection that stayed open for 2 s more
//!   (of time in which the process was not paused);
//! - the host lives at the end of the campaign; or it ended by SIGTERM with the exit code 0, at least a second after the
//!   message; or it died after 10 s in which it ran, nothing was done to its connections and nothing to Redis.
//!
//! Each message that was heard for sure has exactly one outcome: a result or a dead letter. Messages that are missing are
//! no more than hosts have counted as shed or as left over at a stop. No message has two outcomes, whoever heard it; only
//! where a publisher's copy came later than half the dedup window a second one is tolerated. Messages of which a fault
//! itself destroyed the only record (an inbox that was deleted, a Redis without AOF that was killed) may be missing, and
//! may not be there twice.
//!
//! What nobody heard, though a host lived before, through and after it, shows in the hosts' gaps.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::clock::{NEVER, Span, outside};
use crate::ledger::Message;
use crate::member::{End, Life, Member};
use crate::outcomes::Outcomes;
use crate::world::World;

/// How long a connection must stay open after a message, so that the host has certainly read it.
const READ_MS: u32 = 2_000;

/// How long before SIGTERM.
const BEFORE_STOP_MS: u32 = 1_000;

/// How long a host must have lived undisturbed to have passed on what it heard.
const CALM_MS: u32 = 10_000;

/// Ids that are shown of many.
const SHOWN: usize = 5;

/// The part of a gap that must be reported, and what is the precision of each.
const GAP_SHARE: f64 = 0.7;
const GAP_PRECISION_MS: u32 = 500;

/// Who has heard what.
pub struct Hearing {
    /// By a host that surely passes it on.
    pub sure: Vec<bool>,
    /// By any host, dead or alive.
    pub any: Vec<bool>,
}

impl Hearing {
    fn of(world: &World, messages: usize) -> Hearing {
        let mut hearing = Hearing { sure: vec![false; messages], any: vec![false; messages] };
        for member in world.members() {
            let life = member.life();
            let closed = member.relay.closed();
            let until = judged_until(&life, &world.troubles());
            for heard in member.relay.heard() {
                let read = life
                    .stops
                    .iter()
                    .find(|(from, to)| (*from..*to).contains(&heard.at))
                    .map_or(heard.at, |stop| stop.1);
                let is_sure = read <= until && closed[heard.line as usize] >= read.saturating_add(READ_MS);
                hearing.any[heard.message as usize] = true;
                hearing.sure[heard.message as usize] |= is_sure;
            }
        }
        hearing
    }
}

/// The last time at which a message must have reached a host to be heard for sure.
fn judged_until(life: &Life, troubles: &[Span]) -> u32 {
    match life.end {
        None => NEVER - READ_MS,
        Some(End { at, asked: true, code: Some(0) }) => at.saturating_sub(BEFORE_STOP_MS),
        Some(End { at, .. }) => {
            let disturbed = [troubles, &life.stops, &life.troubles].concat();
            // The earlier a message came, the more calm time was left.
            let (mut early, mut late) = (0, at);
            while early < late {
                let middle = early + (late - early).div_ceil(2);
                if outside(&disturbed, middle, at) >= CALM_MS { early = middle } else { late = middle - 1 }
            }
            early
        }
    }
}

/// Figures of a campaign, by name.
pub type Figures = BTreeMap<&'static str, u64>;

/// Looks at everything; what is wrong goes to the world's findings.
pub fn judge(world: &World) -> Figures {
    let outcomes = match Outcomes::read(world) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            world.find(format!("cannot read the outcome: {error}"));
            return Figures::new();
        }
    };
    let messages = world.ledger.all();
    let hearing = Hearing::of(world, messages.len());
    let members = world.members();
    let forgiven = world.forgiven();
    let is_forgiven = |message: &Message| forgiven.iter().any(|((from, to), _)| (*from..=*to).contains(&message.sent));
    let numbers = |is_it: &dyn Fn(usize, &Message) -> bool| -> Vec<usize> {
        messages
            .iter()
            .enumerate()
            .filter(|(number, message)| is_it(*number, message))
            .map(|(number, _)| number)
            .collect()
    };

    let lost = numbers(&|number, message| hearing.sure[number] && outcomes.of(number) == 0 && !is_forgiven(message));
    let counted = counted(&members, "shed") + members.iter().map(|member| left_at_stop(member)).sum::<u64>();
    if lost.len() as u64 > counted {
        let text = show(world, &lost, &messages);
        world.find(format!(
            "LOST: {} messages that a living host heard; {counted} were counted as shed or left; {text}",
            lost.len()
        ));
    }
    let twice = numbers(&|number, message| outcomes.of(number) > 1 && !message.late_copy);
    if !twice.is_empty() {
        world.find(format!("TWICE: {} messages; {}", twice.len(), show(world, &twice, &messages)));
    }
    if let Some(first) = outcomes.strangers.first() {
        world.find(format!("{} outcomes of ids that nobody published, such as {first:?}", outcomes.strangers.len()));
    }
    let unheard = numbers(&|number, message| {
        message.answered != NEVER && !hearing.any[number] && outcomes.of(number) == 0 && !is_forgiven(message)
    });
    let unheard_ms = judge_gaps(world, &unheard, &messages, &members);
    members.iter().for_each(|member| judge_host(world, member));

    let count = |list: &[bool]| list.iter().filter(|is| **is).count() as u64;
    Figures::from([
        ("published", messages.len() as u64),
        ("heard", count(&hearing.any)),
        ("heard_for_sure", count(&hearing.sure)),
        ("results", outcomes.results.iter().map(|count| u64::from(*count)).sum()),
        ("dead_letters", outcomes.dead.iter().map(|count| u64::from(*count)).sum()),
        ("lost", lost.len() as u64),
        ("twice", twice.len() as u64),
        ("unheard", unheard.len() as u64),
        ("unheard_ms", unheard_ms.into()),
        ("gaps", self::counted(&members, "gaps")),
        ("gap_ms", self::counted(&members, "gap_ms")),
        ("shed", self::counted(&members, "shed")),
        ("taken_over", self::counted(&members, "taken_over")),
        ("hosts", members.len() as u64),
        ("faults", world.events().len() as u64),
    ])
}

/// The sum of a field of the last reports.
fn counted(members: &[impl AsRef<Member>], field: &str) -> u64 {
    members.iter().filter_map(|member| member.as_ref().report()?.get(field)?.as_u64()).sum()
}

/// Messages that a host said it had received and not appended when it stopped.
fn left_at_stop(member: &Member) -> u64 {
    let log = member.log();
    let lines = log.lines().filter(|line| line.contains("not appended"));
    let count = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let names = ["messages", "left", "count"];
        names.iter().find_map(|name| line.get(name).or_else(|| line.get("fields")?.get(name))?.as_u64())
    };
    lines.filter_map(count).sum()
}

/// Numbers and times of some messages.
fn show(world: &World, numbers: &[usize], messages: &[Message]) -> String {
    let heard_by = |number: usize| {
        let names = world.members().into_iter().filter_map(|member| {
            let heard = member.relay.heard();
            heard
                .iter()
                .find(|heard| heard.message as usize == number)
                .map(|heard| format!("{} at {}", member.name, seconds(heard.at)))
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let one = |number: &usize| {
        let message = messages[*number];
        format!(
            "c-{number} sent at {}, {} receivers, heard by {}",
            seconds(message.sent),
            message.receivers,
            heard_by(*number)
        )
    };
    let first = numbers.iter().take(SHOWN).map(one).collect::<Vec<_>>().join("; ");
    let spans = spans(numbers, messages);
    let times = spans.iter().take(8).map(|(from, to)| format!("{} to {}", seconds(*from), seconds(*to)));
    format!("sent from {}; first: {first}", times.collect::<Vec<_>>().join(", from "))
}

/// Milliseconds as seconds.
pub fn seconds(ms: u32) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// Times in which messages with neighbouring numbers were sent.
fn spans(numbers: &[usize], messages: &[Message]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut last = None;
    for number in numbers {
        let sent = messages[*number].sent;
        match spans.last_mut() {
            // Batches of two publishers alternate.
            Some(span) if last.is_some_and(|last: usize| number - last < 50) => span.1 = sent.max(span.1),
            _ => spans.push((sent, sent)),
        }
        last = Some(*number);
    }
    spans
}

/// What nobody heard must have been counted; gives the time that hosts must have counted.
fn judge_gaps(world: &World, unheard: &[usize], messages: &[Message], members: &[impl AsRef<Member>]) -> u32 {
    let lives: Vec<(u32, u32)> = members.iter().filter_map(|member| listening(member.as_ref())).collect();
    let mut gaps = spans(unheard, messages);
    gaps.retain(|(from, to)| lives.iter().any(|(first, last)| first < from && to < last));
    let total: u32 = gaps.iter().map(|(from, to)| to - from).sum();
    let (count, ms) = (counted(members, "gaps"), counted(members, "gap_ms"));
    let precision = GAP_PRECISION_MS * u32::try_from(gaps.len()).unwrap_or(u32::MAX / GAP_PRECISION_MS);
    let expected_ms = (f64::from(total) * GAP_SHARE) as u64;
    if !gaps.is_empty() && (count == 0 || ms + u64::from(precision) < expected_ms) {
        world.find(format!(
            "UNCOUNTED: {} messages were heard by nobody, in {} gaps of {total} ms together; hosts counted {count} gaps of \
             {ms} ms; {}",
            unheard.len(),
            gaps.len(),
            show(world, unheard, messages)
        ));
    }
    total
}

/// The times of the first and the last message that a host has heard.
fn listening(member: &Member) -> Option<Span> {
    let heard = member.relay.heard();
    Some((heard.first()?.at, heard.last()?.at))
}

/// The end and the log of a host.
fn judge_host(world: &World, member: &Member) {
    let (name, life) = (&member.name, member.life());
    if let Some(line) = member.log().lines().find(|line| line.contains("panicked at")) {
        world.find(format!("{name} panicked: {line}"));
    }
    let Some(End { at, asked, code }) = life.end else { return };
    let calm = outside(&world.troubles(), life.started.max(at.saturating_sub(CALM_MS)), at)
        == at - life.started.max(at.saturating_sub(CALM_MS));
    match code {
        Some(0) if !asked => world.find(format!("{name} ended by itself at {}", seconds(at))),
        Some(code) if code != 0 && calm => {
            let last = member.log().lines().last().unwrap_or_default().to_owned();
            world.find(format!("{name} ended at {} with the exit code {code}: {last}", seconds(at)));
        }
        _ => {}
    }
}

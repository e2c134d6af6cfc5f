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
//! itself destroyed the only record (in the inbox when that was deleted; sent before a Redis without AOF was killed) may be
//! missing, and may not be there twice. Messages in the inbox when its group was destroyed may be there twice, and may not
//! be missing.
//!
//! What nobody heard, though a host lived before, through and after it, shows in the hosts' gaps.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use crate::clock::{NEVER, Span, outside};
use crate::ledger::Message;
use crate::member::{End, Life, Member};
use crate::outcomes::{Outcomes, entries_about};
use crate::world::{Excused, World};

/// How long a connection must stay open after a message, so that the host has certainly read it.
const READ_MS: u32 = 2_000;

/// How long before SIGTERM.
const BEFORE_STOP_MS: u32 = 1_000;

/// How long a host must have lived undisturbed to have passed on what it heard.
const CALM_MS: u32 = 10_000;

/// Spans that are shown of many.
const SHOWN: usize = 6;

/// Batches of several publishers alternate: numbers that are not further apart belong together.
const NEIGHBOURS: usize = 100;

/// The part of a gap that must be reported, less the precision of each.
const GAP_PERCENT: u64 = 70;
const GAP_PRECISION_MS: u64 = 500;

/// A gap has been noticed and reported so long after its end.
const NOTICED_MS: u32 = 5_000;

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

/// Messages with neighbouring numbers.
struct Gap {
    first: usize,
    last: usize,
    sent: Span,
}

/// Figures of a campaign, by name.
pub type Figures = BTreeMap<&'static str, u64>;

/// All that a judgement is made of.
struct Case<'a> {
    world: &'a World,
    members: Vec<Arc<Member>>,
    messages: Vec<Message>,
    hearing: Hearing,
    outcomes: Outcomes,
    excused: Excused,
}

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
    let case = Case { world, members: world.members(), messages, hearing, outcomes, excused: world.excused() };
    let mut figures = case.figures();
    figures.extend([("lost", case.judge_lost()), ("twice", case.judge_twice())]);
    let (unheard, unheard_ms) = case.judge_gaps();
    figures.extend([("unheard", unheard), ("unheard_ms", unheard_ms)]);
    if let Some(first) = case.outcomes.strangers.first() {
        let count = case.outcomes.strangers.len();
        world.find(format!("{count} outcomes of ids that nobody published, such as {first:?}"));
    }
    case.members.iter().for_each(|member| judge_host(world, member));
    figures
}

impl Case<'_> {
    fn figures(&self) -> Figures {
        let count = |list: &[bool]| list.iter().filter(|is| **is).count() as u64;
        let sum = |counts: &[u8]| counts.iter().map(|count| u64::from(*count)).sum();
        Figures::from([
            ("published", self.messages.len() as u64),
            ("heard", count(&self.hearing.any)),
            ("heard_for_sure", count(&self.hearing.sure)),
            ("results", sum(&self.outcomes.results)),
            ("dead_letters", sum(&self.outcomes.dead)),
            ("gaps", self.counted("gaps")),
            ("gap_ms", self.counted("gap_ms")),
            ("shed", self.counted("shed")),
            ("left_at_stop", self.left_at_stop()),
            ("taken_over", self.counted("taken_over")),
            ("hosts", self.members.len() as u64),
            ("faults", self.world.events().len() as u64),
        ])
    }

    fn judge_lost(&self) -> u64 {
        let lost = self.numbers(|number, message| {
            self.hearing.sure[number] && self.outcomes.of(number) == 0 && !self.may_be_missing(number, message)
        });
        let (shed, left) = (self.counted("shed"), self.left_at_stop());
        if lost.len() as u64 > shed + left {
            self.world.find(format!(
                "LOST: {} messages that a living host heard; hosts counted {shed} as shed and {left} as left at a stop; {}",
                lost.len(),
                self.show(&lost)
            ));
        }
        lost.len() as u64
    }

    fn judge_twice(&self) -> u64 {
        let twice = self.numbers(|number, message| self.outcomes.of(number) > 1 && !self.may_be_twice(number, message));
        if !twice.is_empty() {
            self.world.find(format!("TWICE: {} messages; {}", twice.len(), self.show(&twice)));
        }
        twice.len() as u64
    }

    /// What nobody heard must have been counted; gives the number of messages and the time that hosts must have counted.
    fn judge_gaps(&self) -> (u64, u64) {
        let unheard = self.numbers(|number, message| {
            let is_heard = self.hearing.any[number] || self.outcomes.of(number) > 0;
            message.answered != NEVER && !is_heard && !self.may_be_missing(number, message)
        });
        let lives: Vec<Span> = self.members.iter().filter_map(|member| listening(member)).collect();
        let mut gaps = self.spans(&unheard);
        gaps.retain(|gap| lives.iter().any(|(first, last)| *first < gap.sent.0 && gap.sent.1 < *last));
        // While Redis stands still no mark comes, so that a gap is as long as the time in which it was sent.
        let total: u64 = gaps.iter().map(|gap| u64::from(gap.sent.1 - gap.sent.0)).sum();
        let (count, ms) = (self.counted("gaps"), self.counted("gap_ms"));
        let expected_ms = (total * GAP_PERCENT / 100).saturating_sub(GAP_PRECISION_MS * gaps.len() as u64);
        if !gaps.is_empty() && (count == 0 || ms < expected_ms) {
            self.world.find(format!(
                "UNCOUNTED: {} messages were heard by nobody, in {} gaps of {total} ms together; hosts counted {count} gaps of \
                 {ms} ms; {}",
                unheard.len(),
                gaps.len(),
                self.show(&unheard)
            ));
        }
        if !unheard.is_empty() {
            self.world.note(format!("nobody heard {} messages, {}", unheard.len(), self.show(&unheard)));
        }
        (unheard.len() as u64, total)
    }

    fn numbers(&self, is_it: impl Fn(usize, &Message) -> bool) -> Vec<usize> {
        (0..self.messages.len()).filter(|number| is_it(*number, &self.messages[*number])).collect()
    }

    fn may_be_missing(&self, number: usize, message: &Message) -> bool {
        self.excused.times.iter().any(|((from, to), _)| (*from..=*to).contains(&message.sent))
            || u32::try_from(number).is_ok_and(|number| self.excused.missing.contains(&number))
    }

    fn may_be_twice(&self, number: usize, message: &Message) -> bool {
        message.late_copy || u32::try_from(number).is_ok_and(|number| self.excused.twice.contains(&number))
    }

    /// The sum of a field of the hosts' last reports.
    fn counted(&self, field: &str) -> u64 {
        self.members.iter().filter_map(|member| member.report()?.get(field)?.as_u64()).sum()
    }

    /// Messages that hosts said they had received and not appended when they stopped.
    fn left_at_stop(&self) -> u64 {
        let count = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            ["messages", "left", "count"].iter().find_map(|name| line.get(name)?.as_u64())
        };
        let left = |member: &Arc<Member>| -> u64 {
            member.log().lines().filter(|line| line.contains("not appended")).filter_map(count).sum()
        };
        self.members.iter().map(left).sum()
    }

    /// Times in which messages with neighbouring numbers were sent.
    fn spans(&self, numbers: &[usize]) -> Vec<Gap> {
        let mut spans: Vec<Gap> = Vec::new();
        for number in numbers {
            let sent = self.messages[*number].sent;
            match spans.last_mut() {
                Some(span) if number - span.last < NEIGHBOURS => {
                    span.last = *number;
                    span.sent.1 = span.sent.1.max(sent);
                }
                _ => spans.push(Gap { first: *number, last: *number, sent: (sent, sent) }),
            }
        }
        spans
    }

    /// When these messages were sent, and everything about some of them.
    fn show(&self, numbers: &[usize]) -> String {
        let spans = self.spans(numbers);
        let mut text = format!("sent in {} spans:", spans.len());
        for Gap { first, sent, .. } in spans.iter().take(SHOWN) {
            let message = &self.messages[*first];
            let _ = write!(text, "\n    from {} to {}; c-{first}: ", seconds(sent.0), seconds(sent.1));
            let _ = match message.answered {
                NEVER => write!(text, "not answered"),
                at => write!(text, "answered at {} for {} subscriptions", seconds(at), message.receivers),
            };
            for member in &self.members {
                for heard in member.relay.heard().iter().filter(|heard| heard.message as usize == *first) {
                    let _ = write!(text, ", heard by {} at {}", member.name, seconds(heard.at));
                }
            }
            match self.outcomes.of(*first) {
                0 => text.push_str(", no outcome"),
                _ => {
                    let _ = write!(text, "; {}", entries_about(self.world, *first).join(", "));
                }
            }
        }
        text
    }
}

/// Milliseconds as seconds.
pub fn seconds(ms: u32) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// From the first message that a host has heard to the last one, or to its last report.
fn listening(member: &Member) -> Option<Span> {
    let heard = member.relay.heard();
    let end = member.life().end.map_or(NEVER, |end| end.at.saturating_sub(NOTICED_MS));
    Some((heard.first()?.at, heard.last()?.at.min(end)))
}

/// The end and the log of a host.
fn judge_host(world: &World, member: &Member) {
    let (name, life) = (&member.name, member.life());
    if let Some(line) = member.log().lines().find(|line| line.contains("panicked at")) {
        world.find(format!("{name} panicked: {line}"));
    }
    let Some(End { at, asked, code }) = life.end else { return };
    let before = life.started.max(at.saturating_sub(CALM_MS));
    let is_calm = outside(&world.troubles(), before, at) == at - before;
    match code {
        Some(0) if !asked => world.find(format!("{name} ended by itself at {}", seconds(at))),
        // A host that was started while the file was broken.
        Some(_) if member.log().contains("cannot compile the plugin") => {}
        Some(code) if code != 0 && is_calm => {
            let last = member.log().lines().last().unwrap_or_default().to_owned();
            world.find(format!("{name} ended at {} with the exit code {code}: {last}", seconds(at)));
        }
        _ => {}
    }
}

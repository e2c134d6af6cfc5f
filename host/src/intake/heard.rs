//! What was heard, with positions: messages that wait to be appended, those of the round that is under way, and for a while
//! those that are covered. It is bounded, it counts what it refuses, and it knows nothing of leases or connections.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::segment::{Gap, MESSAGE_OVERHEAD_BYTES, PIECE_BYTES_MAX, Segment, Written};
use crate::redis::store::covered::{Answer, Covered, Extent, Hole, Stretch};
use crate::redis::store::position::{Mark, Position};

/// A buffer of which more than this part is taken is filling up.
const FILLING_DIVISOR: usize = 4;

/// Room for covered messages, however many others wait.
const KEPT_BYTES_MIN: usize = 64 << 20;

/// Places of messages for which there was no room that are remembered, at most.
const SHED_MAX: usize = 256;

/// One thing after the other, as it was heard.
#[derive(Clone, Debug)]
enum Entry {
    Messages(Segment),
    /// No message lies between the two places; `next` is the first mark behind the first of them.
    Nothing {
        from: Position,
        next: Mark,
        to: Position,
        since: Instant,
    },
}

/// Which of the waiting messages are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that the list has passed over, although they were received before this moment: nobody else heard them.
    PassedOver(Instant),
}

/// How much is taken at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages, at most.
    pub messages_max: usize,
    /// Bytes; one message may be longer.
    pub bytes_max: usize,
    /// How long messages wait, after all is known of their positions, when only their claims can tell whether they were appended
    /// before: the list may tell it soon.
    pub patience: Duration,
    /// Age from which such messages are not appended any more.
    pub age_max: Duration,
}

/// What came of looking for messages for a round.
#[derive(Debug)]
pub struct Taken {
    /// The list as it will be once they are appended.
    pub then: Covered,
    /// Messages that were forgotten, because only their claims could tell whether they were appended before, and are too old.
    pub too_old: usize,
    /// Messages of which only their claims tell whether they were appended before.
    pub by_claims: usize,
}

/// Everything that was heard and is not forgotten.
#[derive(Debug)]
pub struct Heard {
    waiting: VecDeque<Entry>,
    /// What is being appended, and the list as it will be then.
    under_way: Vec<Entry>,
    covered_then: Covered,
    kept: Kept,
    newest_ms: u64,
    /// The history that is appended to.
    written: Option<Written>,
    /// Where the messages lie that were shed last.
    shed: VecDeque<(Position, Position)>,
    /// Of what waits and what is under way.
    messages: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Heard {
    /// Room for so many bytes of messages that wait. What they leave is for those that are kept.
    #[must_use]
    pub fn new(bytes_max: usize) -> Heard {
        Heard {
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            covered_then: Covered::default(),
            kept: Kept::default(),
            newest_ms: 0,
            written: None,
            shed: VecDeque::new(),
            messages: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds messages of a gap in front of which there were `first` others, and returns how many did not fit and are shed.
    pub fn push<'a>(
        &mut self,
        gap: &Arc<Gap>,
        first: i64,
        payloads: impl Iterator<Item = &'a [u8]> + Clone,
        received: Instant,
    ) -> usize {
        let (mut fitting, mut bytes) = (0, 0);
        for payload in payloads.clone() {
            let more = bytes + payload.len();
            let cost = more + (fitting + 1) * MESSAGE_OVERHEAD_BYTES;
            if self.bytes + cost > self.bytes_max || more > PIECE_BYTES_MAX {
                break;
            }
            (fitting, bytes) = (fitting + 1, more);
        }
        if fitting > 0 {
            let segment = Segment::new(gap.clone(), first, payloads.clone(), (fitting, bytes), received);
            self.messages += fitting;
            self.bytes += segment.cost();
            self.waiting.push_back(Entry::Messages(segment));
            self.make_room();
        }
        // What does not fit leaves a hole in the positions, which the list shows until somebody fills it.
        let shed = payloads.skip(fitting).count();
        let first = first + fitting as i64;
        if shed > 0
            && let Some((from, to)) = gap.stretch(self.written).interval(first..first + shed as i64)
        {
            self.note_shed(from, to);
        }
        shed
    }

    fn note_shed(&mut self, from: Position, to: Position) {
        match self.shed.back_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => self.shed.push_back((from, to)),
        }
        if self.shed.len() > SHED_MAX {
            self.shed.pop_front();
        }
    }

    /// Notes that no message lies between the last one and the next mark.
    pub fn push_nothing(&mut self, from: Position, next: Mark, now: Instant) {
        let to = Position::at(next);
        match self.waiting.back_mut() {
            Some(Entry::Nothing { to: end, .. }) if *end == from => *end = to,
            _ => self.waiting.push_back(Entry::Nothing { from, next, to, since: now }),
        }
    }

    /// Messages that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether no message waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether it is filling up.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.bytes > self.bytes_max / FILLING_DIVISOR
    }

    /// Since when the list could reach further, although there is no message to append.
    #[must_use]
    pub fn nothing_since(&self) -> Option<Instant> {
        match self.waiting.front() {
            Some(Entry::Nothing { since, .. }) => Some(*since),
            _ => None,
        }
    }

    /// Messages of the round that is under way.
    pub fn under_way(&self) -> impl Iterator<Item = &[u8]> {
        self.under_way
            .iter()
            .flat_map(|entry| match entry {
                Entry::Messages(segment) => Some(segment.payloads()),
                Entry::Nothing { .. } => None,
            })
            .flatten()
    }

    /// Numbers of these messages, in a row, with the time at which they were received.
    pub fn under_way_received(&self) -> impl Iterator<Item = (usize, Instant)> {
        self.under_way.iter().filter_map(|entry| match entry {
            Entry::Messages(segment) => Some((segment.len(), segment.received)),
            Entry::Nothing { .. } => None,
        })
    }

    /// Takes messages that the list does not cover for a round, oldest first, and says what came of it. The messages stay
    /// under way until [`Heard::appended`] or [`Heard::not_appended`].
    pub fn take(&mut self, covered: &Covered, which: Which, limits: Limits, now: Instant) -> Taken {
        let (mut then, mut too_old, mut by_claims) = (covered.clone(), 0, 0);
        let (mut messages, mut bytes) = (0, 0);
        let mut passed = Vec::new();
        while let Some(entry) = self.waiting.pop_front() {
            if !entry.is_meant(covered, which, self.written) {
                passed.push(entry);
                continue;
            }
            let mut segment = match entry {
                Entry::Nothing { from, next, to, .. } => {
                    then.count_from(from.mark, next, from.offset);
                    if !then.contains(from, to) {
                        then.add(from, to);
                        self.under_way.push(entry);
                    }
                    continue;
                }
                Entry::Messages(segment) => segment,
            };
            let extent = then.extent(segment.stretch(self.written), segment.indices());
            let Extent { messages: same, answer } = extent;
            let mut part = segment.split_off_front(usize::try_from(same).unwrap_or(0).clamp(1, segment.len()));
            if segment.len() > 0 {
                self.waiting.push_front(Entry::Messages(segment));
            }
            match answer {
                Answer::Covered => {
                    self.forget(part);
                    continue;
                }
                Answer::Unknown if now.saturating_duration_since(part.received) > limits.age_max => {
                    too_old += part.len();
                    self.forget(part);
                    continue;
                }
                Answer::Unknown if now.saturating_duration_since(part.placed_since()) < limits.patience => {
                    passed.push(Entry::Messages(part));
                    continue;
                }
                Answer::Unknown | Answer::Open => {}
            }
            let room = part
                .payloads()
                .scan(bytes, |sum, payload| {
                    let before = *sum;
                    *sum += payload.len();
                    Some(before)
                })
                .take(limits.messages_max - messages)
                .take_while(|before| *before <= limits.bytes_max)
                .count();
            if room < part.len() {
                let taken = part.split_off_front(room);
                self.waiting.push_front(Entry::Messages(part));
                part = taken;
            }
            let is_full = part.len() == 0 || messages + part.len() == limits.messages_max;
            if part.len() > 0 {
                messages += part.len();
                bytes += part.cost();
                let Stretch { before, after } = part.stretch(self.written);
                if let (Some(before), Some((after, messages))) = (before, after) {
                    then.count_from(before, after, messages);
                }
                if answer == Answer::Unknown {
                    by_claims += part.len();
                }
                if let Some((from, to)) = part.interval(self.written) {
                    then.add(from, to);
                }
                self.under_way.push(Entry::Messages(part));
            }
            if is_full {
                break;
            }
        }
        for entry in passed.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        self.covered_then = then.clone();
        Taken { then, too_old, by_claims }
    }

    /// The round was appended. Returns the list as it is now.
    pub fn appended(&mut self) -> Covered {
        for entry in std::mem::take(&mut self.under_way) {
            if let Entry::Messages(segment) = entry {
                self.forget(segment);
            }
        }
        std::mem::take(&mut self.covered_then)
    }

    /// The round was not appended, or nobody knows: its messages wait again.
    pub fn not_appended(&mut self) {
        for entry in std::mem::take(&mut self.under_way).into_iter().rev() {
            self.waiting.push_front(entry);
        }
    }

    /// Forgets what others have appended, by the list that they have written.
    pub fn learn(&mut self, covered: &Covered) {
        let Some(top) = covered.top() else { return };
        let mut rest = VecDeque::new();
        while let Some(entry) = self.waiting.pop_front() {
            match entry {
                Entry::Nothing { from, to, .. } if covered.contains(from, to) => {}
                Entry::Nothing { from, .. } if from >= top => {
                    rest.push_back(entry);
                    break;
                }
                Entry::Messages(mut segment) => {
                    let Extent { messages, answer } = covered.extent(segment.stretch(self.written), segment.indices());
                    let part = segment.split_off_front(usize::try_from(messages).unwrap_or(0).clamp(1, segment.len()));
                    let is_new = part.interval(self.written).is_some_and(|(from, _)| from >= top);
                    if segment.len() > 0 {
                        self.waiting.push_front(Entry::Messages(segment));
                    }
                    match answer {
                        Answer::Covered => self.forget(part),
                        Answer::Open | Answer::Unknown => rest.push_back(Entry::Messages(part)),
                    }
                    if is_new {
                        break;
                    }
                }
                Entry::Nothing { .. } => rest.push_back(entry),
            }
        }
        while let Some(entry) = rest.pop_back() {
            self.waiting.push_front(entry);
        }
    }

    /// Whether a message waits that the list has passed over, and since when the oldest of them does.
    #[must_use]
    pub fn passed_over_since(&self, covered: &Covered) -> Option<Instant> {
        self.waiting
            .iter()
            .filter_map(|entry| match entry {
                Entry::Messages(segment) if is_passed(segment, covered, self.written) => Some(segment.received),
                _ => None,
            })
            .min()
    }

    /// What is known of the messages in this hole of the list.
    #[must_use]
    pub fn judge(&self, lower: Position, upper: Position) -> Hole {
        let is_awaited = self.waiting.iter().any(|entry| match entry {
            Entry::Messages(segment) => {
                segment.interval(self.written).is_some_and(|(from, _)| lower <= from && from < upper)
            }
            Entry::Nothing { .. } => false,
        });
        let is_shed = || self.shed.iter().any(|(from, to)| *from <= lower && upper <= *to);
        match is_awaited {
            true => Hole::Awaited,
            false if is_shed() => Hole::Shed,
            false => Hole::Unheard,
        }
    }

    /// Appends go to this history. What was covered in another one may not be covered in it.
    pub fn written_to(&mut self, written: Written) {
        if self.written.replace(written).is_none() {
            return;
        }
        for segment in self.kept.take_all() {
            self.messages += segment.len();
            self.bytes += segment.cost();
            self.waiting.push_front(Entry::Messages(segment));
        }
    }

    /// Tells the time by the server's clock: what is covered from now on is kept from then.
    pub fn is_now(&mut self, newest_ms: u64) {
        self.newest_ms = self.newest_ms.max(newest_ms);
    }

    /// Forgets covered messages that have been kept for long enough: the history in which they are covered still went on at
    /// this time, by the server's clock.
    pub fn forget_old(&mut self, newest_ms: u64) {
        self.is_now(newest_ms);
        self.kept.forget_old(newest_ms);
    }

    /// Moves what need not be appended to what is kept.
    fn forget(&mut self, segment: Segment) {
        self.messages -= segment.len();
        self.bytes -= segment.cost();
        self.kept.push(self.newest_ms, segment);
        self.make_room();
    }

    /// Forgets the oldest of what is kept as long as all together is too much.
    fn make_room(&mut self) {
        self.kept.make_room(KEPT_BYTES_MIN.max(self.bytes_max.saturating_sub(self.bytes)));
    }
}

impl Entry {
    fn is_meant(&self, covered: &Covered, which: Which, written: Option<Written>) -> bool {
        match (self, which) {
            (Entry::Messages(segment), _) if segment.is_coming() => false,
            (_, Which::All) => true,
            (Entry::Nothing { .. }, Which::PassedOver(_)) => false,
            (Entry::Messages(segment), Which::PassedOver(before)) => {
                segment.received <= before && is_passed(segment, covered, written)
            }
        }
    }
}

/// Whether the list of this history goes on behind these messages, or will never come to them.
fn is_passed(segment: &Segment, covered: &Covered, written: Option<Written>) -> bool {
    match segment.interval(written) {
        Some((from, _)) => {
            written.is_none_or(|written| written.history != from.mark.history)
                || covered.top().is_some_and(|top| from < top)
        }
        None => !segment.is_coming(),
    }
}

//! Messages of one gap between two marks, in one piece of memory that their parts share, and the positions that follow from the
//! marks.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::redis::client::subscription::Beginning;
use crate::redis::store::covered::Stretch;
use crate::redis::store::position::{Mark, Position};

/// What a message costs beside its payload.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = size_of::<u32>();

/// Longest piece of memory for payloads; offsets in it are short.
pub(super) const PIECE_BYTES_MAX: usize = u32::MAX as usize;

/// Longest time from the beginning of a subscription until the first mark of a history, if the subscription began in it: Redis has
/// started, and nobody could publish a mark yet. Histories are named by the time at which they began.
const FIRST_MARK_MS_MAX: u64 = 10_000;

/// What is in front of a gap.
#[derive(Clone, Copy, Debug)]
enum Front {
    Mark(Mark),
    /// The subscription has not heard a mark yet.
    Beginning(Beginning),
}

/// The space between two neighbouring marks, as one subscription hears it.
#[derive(Debug)]
pub struct Gap {
    front: Front,
    /// The mark behind it, once heard, and the messages in the gap.
    after: OnceLock<(Mark, i64)>,
    /// Set when the subscription has ended, and no mark will come.
    is_cut: OnceLock<()>,
    /// Whether the server was, or may have been, a replica when it published the mark in front.
    may_be_replica: bool,
}

impl Gap {
    /// The gap behind a mark that a server has published which may be a replica.
    #[must_use]
    pub fn behind(mark: Mark, may_be_replica: bool) -> Gap {
        Gap { front: Front::Mark(mark), after: OnceLock::new(), is_cut: OnceLock::new(), may_be_replica }
    }

    /// The gap in front of the first mark of a subscription.
    #[must_use]
    pub fn first(beginning: Beginning) -> Gap {
        let (front, may_be_replica) = (Front::Beginning(beginning), beginning.is_at_replica);
        Gap { front, after: OnceLock::new(), is_cut: OnceLock::new(), may_be_replica }
    }

    /// The subscription has ended.
    pub fn cut(&self) {
        let _ = self.is_cut.set(());
    }

    /// Whether its messages have no position yet, and will have one.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.front, Front::Beginning(_)) && self.after.get().is_none() && self.is_cut.get().is_none()
    }

    /// Ends the gap with the next mark, after so many messages.
    pub fn close(&self, mark: Mark, messages: i64) {
        // A gap is closed once.
        let _ = self.after.set((mark, messages));
    }

    /// The marks from which positions in it can be counted, while appends go to the history `written`.
    ///
    /// A replica that is promoted goes on in the middle of a gap: what is published there afterwards has the same distance from
    /// the mark in front as other messages have that the old primary published at the same time. A primary that becomes a replica
    /// goes on in the middle of a gap of the new one. Nobody sees where. So positions cannot be counted in a gap that begins
    /// in one history and ends in another, nor in one that has no end and may do so: claims tell what was appended of it. A
    /// subscription that is older than the history and has missed its first mark began in another one.
    pub(super) fn stretch(&self, written: Option<u64>) -> Stretch {
        let after = self.after.get().copied();
        let (before, is_certain) = match (self.front, after) {
            (Front::Mark(before), Some((after, _))) => (Some(before), before.history == after.history),
            (Front::Mark(before), None) => (Some(before), !self.may_be_replica || written == Some(before.history)),
            (Front::Beginning(beginning), Some((after, _))) => {
                let wait_ms = if after.number == 1 { FIRST_MARK_MS_MAX } else { 0 };
                (None, beginning.at_ms.saturating_add(wait_ms) > after.history)
            }
            (Front::Beginning(_), None) => (None, true),
        };
        if is_certain { Stretch { before, after } } else { Stretch { before: None, after: None } }
    }
}

/// Payloads in one piece of memory.
#[derive(Debug)]
struct Piece {
    payloads: Box<[u8]>,
    ends: Box<[u32]>,
}

/// Messages of one gap, one behind the other.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    piece: Arc<Piece>,
    /// Which messages of the piece.
    range: Range<usize>,
    gap: Arc<Gap>,
    /// How many messages of the gap are in front of the first one.
    first: i64,
    pub(super) received: Instant,
}

impl Segment {
    /// The first so many messages of these, of one gap, in front of which there were `first` others. `bytes` is their length
    /// together.
    pub(super) fn new<'a>(
        gap: Arc<Gap>,
        first: i64,
        payloads: impl Iterator<Item = &'a [u8]>,
        (messages, bytes): (usize, usize),
        received: Instant,
    ) -> Segment {
        let (mut text, mut ends) = (Vec::with_capacity(bytes), Vec::with_capacity(messages));
        for payload in payloads.take(messages) {
            text.extend_from_slice(payload);
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        let range = 0..ends.len();
        let piece = Arc::new(Piece { payloads: text.into(), ends: ends.into() });
        Segment { piece, range, gap, first, received }
    }

    /// What its messages have in common: the marks from which they are counted.
    pub(super) fn stretch(&self, written: Option<u64>) -> Stretch {
        self.gap.stretch(written)
    }

    /// Whether its messages have no position yet, and will have one.
    pub(super) fn is_coming(&self) -> bool {
        self.gap.is_coming()
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    fn offset(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.piece.ends[index - 1] as usize }
    }

    pub(super) fn cost(&self) -> usize {
        self.offset(self.range.end) - self.offset(self.range.start) + self.len() * MESSAGE_OVERHEAD_BYTES
    }

    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.range.clone().map(|index| &self.piece.payloads[self.offset(index)..self.offset(index + 1)])
    }

    /// Which messages of the gap these are.
    pub(super) fn indices(&self) -> Range<i64> {
        self.first..self.first + self.len() as i64
    }

    /// Where the messages begin and end, when that can be counted.
    pub(super) fn interval(&self, written: Option<u64>) -> Option<(Position, Position)> {
        self.stretch(written).interval(self.indices())
    }

    /// Whether the other one begins in the same gap where this one ends.
    pub(super) fn goes_on_with(&self, other: &Segment) -> bool {
        Arc::ptr_eq(&self.gap, &other.gap) && self.indices().end == other.first
    }

    /// Segments that go on with each other, in one piece of memory. They count as received with the first one.
    pub(super) fn joined(segments: Vec<Segment>) -> Option<Segment> {
        if let [_] = segments[..] {
            return segments.into_iter().next();
        }
        let first = segments.first()?;
        let payloads = segments.iter().flat_map(Segment::payloads);
        let messages: usize = segments.iter().map(Segment::len).sum();
        let bytes = segments.iter().map(Segment::cost).sum::<usize>() - messages * MESSAGE_OVERHEAD_BYTES;
        Some(Segment::new(first.gap.clone(), first.first, payloads, (messages, bytes), first.received))
    }

    /// Takes the first messages off.
    pub(super) fn split_off_front(&mut self, messages: usize) -> Segment {
        let front = Segment { range: self.range.start..self.range.start + messages, ..self.clone() };
        self.range.start += messages;
        self.first += messages as i64;
        front
    }
}

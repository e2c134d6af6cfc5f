//! Messages of one gap between two marks, in one piece of memory that their parts share, and the positions that follow from the
//! marks.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::redis::client::subscription::{Beginning, ReplicationId};
use crate::redis::store::covered::Stretch;
use crate::redis::store::position::{Mark, Position};

/// What a message costs beside its payload.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = size_of::<u32>();

/// Longest piece of memory for payloads; offsets in it are short.
pub(super) const PIECE_BYTES_MAX: usize = u32::MAX as usize;

/// The history that is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub history: u64,
    /// The replication id of the data in which it goes on.
    pub data: ReplicationId,
}

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
    /// When the mark behind it was heard, or the subscription ended, and no mark will come.
    ended_at: OnceLock<Instant>,
    /// Whether the server was, or may have been, a replica when it published the mark in front.
    may_be_replica: bool,
}

impl Gap {
    /// The gap behind a mark that a server has published which may be a replica.
    #[must_use]
    pub fn behind(mark: Mark, may_be_replica: bool) -> Gap {
        Gap { front: Front::Mark(mark), after: OnceLock::new(), ended_at: OnceLock::new(), may_be_replica }
    }

    /// The gap in front of the first mark of a subscription.
    #[must_use]
    pub fn first(beginning: Beginning) -> Gap {
        let (front, may_be_replica) = (Front::Beginning(beginning), beginning.is_at_replica);
        Gap { front, after: OnceLock::new(), ended_at: OnceLock::new(), may_be_replica }
    }

    /// The next mark was heard, or the subscription has ended.
    pub fn end(&self, now: Instant) {
        let _ = self.ended_at.set(now);
    }

    /// Whether its messages have no position yet, and will have one.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.front, Front::Beginning(_)) && self.ended_at.get().is_none()
    }

    /// Sets the next mark, after so many messages.
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
    /// subscription that began at data with another replication id began in another history.
    pub(super) fn stretch(&self, written: Option<Written>) -> Stretch {
        let is_written = |history| written.is_some_and(|written| written.history == history);
        let after = self.after.get().copied();
        let (before, is_certain) = match (self.front, after) {
            (Front::Mark(before), Some((after, _))) => (Some(before), before.history == after.history),
            (Front::Mark(before), None) => (Some(before), !self.may_be_replica || is_written(before.history)),
            (Front::Beginning(beginning), Some((after, _))) => (
                None,
                written.is_some_and(|written| written.history == after.history && written.data == beginning.data),
            ),
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
    pub(super) fn stretch(&self, written: Option<Written>) -> Stretch {
        self.gap.stretch(written)
    }

    /// Whether its messages have no position yet, and will have one.
    pub(super) fn is_coming(&self) -> bool {
        self.gap.is_coming()
    }

    /// Since when everything is known of its positions that will ever be.
    pub(super) fn placed_since(&self) -> Instant {
        self.gap.ended_at.get().copied().unwrap_or(self.received)
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
    pub(super) fn interval(&self, written: Option<Written>) -> Option<(Position, Position)> {
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

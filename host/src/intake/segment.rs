//! Messages of one gap between two marks, in one piece of memory that their parts share, and the positions that follow from the
//! marks.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::redis::store::covered::Stretch;
use crate::redis::store::position::{Mark, Position};

/// What a message costs beside its payload.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = size_of::<u32>();

/// Longest piece of memory for payloads; offsets in it are short.
pub(super) const PIECE_BYTES_MAX: usize = u32::MAX as usize;

/// The space between two neighbouring marks, as one subscription hears it.
#[derive(Debug, Default)]
pub struct Gap {
    /// The mark in front of it; `None` before the first mark of a subscription.
    before: Option<Mark>,
    /// The mark behind it, once heard, and the messages in the gap.
    after: OnceLock<(Mark, i64)>,
    /// Set when the subscription has ended, and no mark will come.
    is_cut: OnceLock<()>,
}

impl Gap {
    /// The gap behind a mark.
    #[must_use]
    pub fn behind(mark: Mark) -> Gap {
        Gap { before: Some(mark), ..Gap::default() }
    }

    /// The subscription has ended.
    pub fn cut(&self) {
        let _ = self.is_cut.set(());
    }

    /// Whether its messages have no position yet, and will have one.
    pub(super) fn is_coming(&self) -> bool {
        self.before.is_none() && self.after.get().is_none() && self.is_cut.get().is_none()
    }

    /// Ends the gap with the next mark, after so many messages.
    pub fn close(&self, mark: Mark, messages: i64) {
        // A gap is closed once.
        let _ = self.after.set((mark, messages));
    }

    pub(super) fn stretch(&self) -> Stretch {
        Stretch { before: self.before, after: self.after.get().copied() }
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

    /// What its messages have in common: the marks around them.
    pub(super) fn stretch(&self) -> Stretch {
        self.gap.stretch()
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

    /// The positions of the messages, when a mark is known.
    pub(super) fn intervals(&self) -> impl Iterator<Item = (Position, Position)> {
        self.gap.stretch().intervals(self.indices())
    }

    /// Takes the first messages off.
    pub(super) fn split_off_front(&mut self, messages: usize) -> Segment {
        let front = Segment { range: self.range.start..self.range.start + messages, ..self.clone() };
        self.range.start += messages;
        self.first += messages as i64;
        front
    }
}

//! Messages that are covered, kept for a while: should Redis come back from an older state, or a replica that lags be promoted,
//! they are appended again.

use std::collections::VecDeque;

use super::segment::Segment;

/// How long, by the server's clock, as far as there is room beside the messages that wait.
const KEPT_MS_MAX: u64 = 10_000;

/// Longest part, in bytes, that is worth a copy to save what it costs beside its messages.
const SMALL_BYTES_MAX: usize = 16 << 10;

/// Longest piece, in bytes, that small parts become. It is forgotten as a whole.
const PACKED_BYTES_MAX: usize = 1 << 20;

/// Messages that are covered, oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// With the time of the newest mark that was known when they were covered.
    segments: VecDeque<(u64, Segment)>,
    /// How many segments at the front have been packed.
    packed: usize,
    /// Bytes of all.
    bytes: usize,
}

impl Kept {
    pub(super) fn push(&mut self, since_ms: u64, segment: Segment) {
        self.bytes += segment.cost();
        self.segments.push_back((since_ms, segment));
    }

    /// Forgets what has been kept for long enough, and packs the rest.
    pub(super) fn forget_old(&mut self, newest_ms: u64) {
        while let Some((since_ms, _)) = self.segments.front()
            && newest_ms.saturating_sub(*since_ms) > KEPT_MS_MAX
        {
            self.forget_oldest();
        }
        self.pack();
    }

    /// Forgets the oldest as long as all together is more than this.
    pub(super) fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, segment)) = self.segments.pop_front() else { return false };
        self.bytes -= segment.cost();
        self.packed = self.packed.saturating_sub(1);
        true
    }

    /// Everything, newest first; nothing is kept any more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Segment> + use<> {
        (self.packed, self.bytes) = (0, 0);
        std::mem::take(&mut self.segments).into_iter().rev().map(|(_, segment)| segment)
    }

    /// Joins small neighbours. In quiet traffic a few messages arrive at a time, and cost less memory than what holds them.
    fn pack(&mut self) {
        let (mut run, mut run_bytes) = (Vec::new(), 0);
        for (since_ms, segment) in self.segments.split_off(self.packed) {
            let cost = segment.cost();
            let is_joined = run.last().is_some_and(|(_, before): &(u64, Segment)| {
                let is_small = cost.max(before.cost()) <= SMALL_BYTES_MAX;
                is_small && run_bytes + cost <= PACKED_BYTES_MAX && before.goes_on_with(&segment)
            });
            if !is_joined {
                self.segments.extend(joined(std::mem::take(&mut run)));
                run_bytes = 0;
            }
            run.push((since_ms, segment));
            run_bytes += cost;
        }
        self.segments.extend(joined(run));
        self.packed = self.segments.len();
    }
}

/// Segments that go on with each other as one.
fn joined(run: Vec<(u64, Segment)>) -> Option<(u64, Segment)> {
    let since_ms = run.last()?.0;
    let segments: Vec<Segment> = run.into_iter().map(|(_, segment)| segment).collect();
    Some((since_ms, Segment::joined(segments)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::segment::Gap;
    use super::*;
    use crate::redis::store::position::Mark;

    fn gap(number: u64) -> Arc<Gap> {
        Arc::new(Gap::behind(Mark { history: 1, number, at_ms: 0 }, false))
    }

    fn keep(kept: &mut Kept, gap: &Arc<Gap>, first: i64, payloads: &[&str]) {
        let bytes = payloads.iter().map(|payload| payload.len()).sum();
        let payloads = payloads.iter().map(|payload| payload.as_bytes());
        let size = (payloads.len(), bytes);
        kept.push(0, Segment::new(gap.clone(), first, payloads, size, Instant::now()));
    }

    /// Numbers of the messages of each segment, and the messages.
    fn contents(kept: &Kept) -> Vec<(std::ops::Range<i64>, String)> {
        let text = |segment: &Segment| segment.payloads().map(|payload| String::from_utf8_lossy(payload)).collect();
        kept.segments.iter().map(|(_, segment)| (segment.indices(), text(segment))).collect()
    }

    #[test]
    fn small_neighbours_of_a_gap_become_one_piece_and_nothing_else_changes() {
        let (mut kept, one, two) = (Kept::default(), gap(1), gap(2));
        let large = "x".repeat(SMALL_BYTES_MAX);
        keep(&mut kept, &one, 0, &["a", "bc"]);
        keep(&mut kept, &one, 2, &["d"]);
        keep(&mut kept, &one, 4, &["f"]);
        keep(&mut kept, &two, 0, &["g"]);
        keep(&mut kept, &two, 1, &[&large]);
        keep(&mut kept, &two, 2, &["h"]);
        let bytes = kept.bytes;
        kept.forget_old(0);
        let expected = [(0..3, "abcd"), (4..5, "f"), (0..1, "g"), (1..2, &large), (2..3, "h")]
            .map(|(at, text)| (at, text.to_owned()));
        assert_eq!((contents(&kept), kept.bytes, kept.packed), (expected.to_vec(), bytes, 5));
        // What was packed stays as it is.
        keep(&mut kept, &two, 3, &["i"]);
        keep(&mut kept, &two, 4, &["j"]);
        kept.forget_old(KEPT_MS_MAX);
        assert_eq!(contents(&kept).last(), Some(&(3..5, "ij".to_owned())));
        kept.make_room(2 * SMALL_BYTES_MAX);
        assert_eq!(kept.packed, 6);
        kept.forget_old(KEPT_MS_MAX + 1);
        assert_eq!((kept.segments.len(), kept.bytes, kept.packed), (0, 0, 0));
    }

    #[test]
    fn a_piece_has_a_bound() {
        let (mut kept, gap) = (Kept::default(), gap(1));
        let text = "x".repeat(SMALL_BYTES_MAX / 2);
        (0..200).for_each(|first| keep(&mut kept, &gap, first, &[&text]));
        kept.forget_old(0);
        let lengths: Vec<usize> = kept.segments.iter().map(|(_, segment)| segment.cost()).collect();
        assert!(lengths.len() == 2 && lengths.iter().all(|length| *length <= PACKED_BYTES_MAX), "{lengths:?}");
    }
}

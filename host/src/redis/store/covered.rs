//! What has been appended to the inbox, as a list of intervals of positions. Every append writes the list in its own
//! transaction, so that what is in the inbox and how far it reaches is one fact, and a late or repeated append changes
//! nothing. TCP's selective acknowledgements work like that.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use super::position::{Mark, NoPosition, Position};

/// Intervals in the list, at most. When there are more, the oldest hole is given up: everything before it counts as covered.
const INTERVALS_MAX: usize = 32;

/// Positions from one place to another, and whether the hole in front of it has been counted as a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    from: Position,
    to: Position,
    is_hole_judged: bool,
}

/// The list: intervals in order, none of which touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered(Vec<Interval>);

/// Messages that one subscription heard between two neighbouring marks of one history, and what is known of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The mark in front of them; `None` when they were heard before the first mark of the subscription.
    pub before: Option<Mark>,
    /// The mark behind them, and how many messages there were in front of it since `before`, or since the subscription began;
    /// `None` when it has not come, or was not heard.
    pub after: Option<(Mark, i64)>,
}

impl Stretch {
    /// Where the messages with these indices begin and end, as far as a mark is known: counted from the mark in front of them, or
    /// from the mark behind them.
    #[must_use]
    pub fn interval(&self, indices: Range<i64>) -> Option<(Position, Position)> {
        let place = |mark: Mark, offset: i64| Position { mark, offset };
        match (self.before, self.after) {
            (Some(before), Some((after, messages))) if indices.end >= messages => {
                Some((place(before, indices.start), Position::at(after)))
            }
            (Some(before), _) => Some((place(before, indices.start), place(before, indices.end))),
            (None, Some((after, messages))) => {
                Some((place(after, indices.start - messages), place(after, indices.end - messages)))
            }
            (None, None) => None,
        }
    }
}

/// Where an end of an interval lies among the messages of a stretch.
enum End {
    /// In front of them.
    Before,
    /// In front of the message with this index.
    Index(i64),
    /// Behind them.
    Behind,
    /// Somewhere among them: the interval was counted from a mark that this subscription did not hear.
    Unknown,
}

/// What a host knows of the messages in a hole of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// They wait here, and will be appended.
    Awaited,
    /// All of them were heard, and there was no room for them.
    Shed,
    /// Nothing: nobody heard them, as far as this host knows.
    Unheard,
}

/// What the list says of some messages of a stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many of the first messages have one answer.
    pub messages: i64,
    /// The answer.
    pub answer: Answer,
}

/// Whether messages have been appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Covered,
    /// No.
    Open,
    /// Perhaps: only their claims can tell, for as long as they last.
    Unknown,
}

impl Covered {
    /// Whether the list has nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the newest interval.
    #[must_use]
    pub fn top(&self) -> Option<Position> {
        self.0.last().map(|interval| interval.to)
    }

    /// Whether everything between two places is covered.
    #[must_use]
    pub fn contains(&self, from: Position, to: Position) -> bool {
        self.0.iter().any(|interval| interval.from <= from && to <= interval.to)
    }

    /// Covers everything between two places.
    pub fn add(&mut self, from: Position, to: Position) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|interval| interval.to < from);
        let end = self.0.partition_point(|interval| interval.from <= to);
        let (lowest, highest) = match self.0.get(first..end) {
            Some([first, .., last]) => (from.min(first.from), to.max(last.to)),
            Some([only]) => (from.min(only.from), to.max(only.to)),
            _ => (from, to),
        };
        // In a hole that has been counted both parts have been.
        let is_hole_judged = self.0.get(first).is_some_and(|next| next.is_hole_judged);
        self.0.splice(first..end.max(first), [Interval { from: lowest, to: highest, is_hole_judged }]);
    }

    /// Puts places that were counted back from a mark in terms of the mark before it, now that it is known how many messages
    /// lie between the two: else nobody could see that they touch what was counted from there.
    pub fn count_from(&mut self, before: Mark, after: Mark, messages: i64) {
        let is_counted_back = |place: &Position| place.mark == after && place.offset < 0;
        if !self.0.iter().any(|interval| is_counted_back(&interval.from) || is_counted_back(&interval.to)) {
            return;
        }
        let forward = |place: Position| match is_counted_back(&place) {
            true => Position { mark: before, offset: messages + place.offset },
            false => place,
        };
        for interval in std::mem::take(&mut self.0) {
            let Interval { from, to, is_hole_judged } = interval;
            self.add(forward(from), forward(to));
            if let Some(last) = self.0.last_mut().filter(|last| last.from == forward(from)) {
                last.is_hole_judged = is_hole_judged;
            }
        }
    }

    /// Counts the holes within a history that are older than the mark at `until_ms`, by the server's clock, and in which nobody
    /// heard anything: how long each lasted, from mark to mark. Also those that are given up, because the list would become too
    /// long. Each is judged until it is counted or known to be no gap. Between two histories there is always a hole, and the
    /// first mark of the later one tells how long that lasted.
    pub fn count_gaps(&mut self, until_ms: u64, judge: impl Fn(Position, Position) -> Hole) -> Vec<Duration> {
        let mut gaps = Vec::new();
        let given_up = self.0.len().saturating_sub(INTERVALS_MAX);
        for index in 1..self.0.len() {
            let (lower, upper) = (self.0[index - 1].to, self.0[index].from);
            let is_given_up = index <= given_up;
            if self.0[index].is_hole_judged || !(is_given_up || upper.mark.at_ms <= until_ms) {
                continue;
            }
            let hole = judge(lower, upper);
            self.0[index].is_hole_judged = is_given_up || hole != Hole::Awaited;
            let is_gap = hole == Hole::Unheard || (is_given_up && hole == Hole::Awaited);
            if is_gap && lower.mark.history == upper.mark.history {
                gaps.push(Duration::from_millis(upper.mark.at_ms.saturating_sub(lower.mark.at_ms)));
            }
        }
        if given_up > 0 {
            self.0.drain(..given_up);
            self.0[0].from = Position::START;
        }
        gaps
    }

    /// Whether the messages of a stretch with these indices have been appended: the answer for as many of the first ones as
    /// have the same.
    #[must_use]
    pub fn extent(&self, stretch: Stretch, indices: Range<i64>) -> Extent {
        // The end of the messages that are known to be covered from the first one on; the first covered one behind that.
        let has_position = stretch.before.is_some() || stretch.after.is_some();
        let (mut covered_to, mut next, mut unknown) = (indices.start, indices.end, !has_position);
        for interval in &self.0 {
            let (lower, upper) = (end(interval.from, stretch), end(interval.to, stretch));
            let range = match (lower, upper) {
                (End::Behind, _) | (_, End::Before) => continue,
                (End::Unknown, _) | (_, End::Unknown) => {
                    unknown = true;
                    continue;
                }
                (lower, upper) => {
                    let start = if let End::Index(index) = lower { index } else { i64::MIN };
                    start..if let End::Index(index) = upper { index } else { i64::MAX }
                }
            };
            if range.contains(&covered_to) {
                covered_to = range.end;
            } else if range.start > covered_to {
                next = next.min(range.start);
            }
        }
        let covered_to = covered_to.min(indices.end);
        let (end, answer) = match (covered_to > indices.start, unknown) {
            (true, _) => (covered_to, Answer::Covered),
            (false, true) => (next, Answer::Unknown),
            (false, false) => (next, Answer::Open),
        };
        Extent { messages: end - indices.start, answer }
    }
}

/// Where a place lies among the messages of a stretch.
fn end(place: Position, stretch: Stretch) -> End {
    let Position { mark, offset } = place;
    let counted_back = |messages: i64| if messages + offset <= 0 { End::Before } else { End::Index(messages + offset) };
    match (stretch.before, stretch.after) {
        (_, Some((after, _))) if place >= Position::at(after) => End::Behind,
        (_, Some((after, messages))) if mark == after => counted_back(messages),
        (Some(before), _) if place <= Position::at(before) => End::Before,
        (Some(before), _) if mark == before => End::Index(offset),
        // In front of the next mark, which this subscription did not hear.
        (Some(before), None) if before.is_before(&mark) && offset < 0 => End::Unknown,
        (Some(_), _) => End::Behind,
        // Counted from the mark before, which this subscription did not hear.
        (None, Some((after, _))) if mark.is_before(&after) && offset > 0 => End::Unknown,
        (None, Some(_)) => End::Before,
        (None, None) => End::Unknown,
    }
}

/// `from~to,from~to`, with `!` in front of an interval when the hole before it has been counted.
impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Interval { from, to, is_hole_judged }) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let counted = if *is_hole_judged { "!" } else { "" };
            write!(f, "{comma}{counted}{from}~{to}")?;
        }
        Ok(())
    }
}

impl FromStr for Covered {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Covered, NoPosition> {
        let mut covered = Covered::default();
        for interval in text.split(',').filter(|interval| !interval.is_empty()) {
            let (is_hole_judged, places) = match interval.strip_prefix('!') {
                Some(places) => (true, places),
                None => (false, interval),
            };
            let (from, to) = places.split_once('~').ok_or(NoPosition)?;
            let (from, to): (Position, Position) = (from.parse()?, to.parse()?);
            if from >= to || covered.top().is_some_and(|top| from <= top) {
                return Err(NoPosition);
            }
            covered.0.push(Interval { from, to, is_hole_judged });
        }
        Ok(covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64) -> Mark {
        Mark { history: 1000, number, at_ms: 1000 + 250 * number }
    }

    fn place(number: u64, offset: i64) -> Position {
        Position { mark: mark(number), offset }
    }

    /// Number of a mark, and messages since.
    type Place = (u64, i64);

    fn covered(intervals: &[(Place, Place)]) -> Covered {
        let mut covered = Covered::default();
        for ((number, offset), (to_number, to_offset)) in intervals {
            covered.add(place(*number, *offset), place(*to_number, *to_offset));
        }
        covered
    }

    #[test]
    fn intervals_that_touch_become_one() {
        let list = covered(&[((1, 0), (1, 5)), ((3, 0), (4, 0)), ((1, 5), (2, 0))]);
        assert_eq!(list.to_string(), "1000.1.250.0~1000.2.500.0,1000.3.750.0~1000.4.1000.0");
        assert_eq!(covered(&[((1, 0), (1, 5)), ((3, 0), (4, 0)), ((1, 2), (3, 7))]), covered(&[((1, 0), (4, 0))]));
        assert_eq!(list.to_string().parse(), Ok(list));
    }

    #[test]
    fn a_hole_is_counted_once_from_mark_to_mark() {
        let mut list = covered(&[((1, 0), (2, 7)), ((6, -3), (8, 0))]);
        let unheard = |lower, upper| {
            assert_eq!((lower, upper), (place(2, 7), place(6, -3)));
            Hole::Unheard
        };
        assert_eq!(list.count_gaps(mark(5).at_ms, unheard), []);
        assert_eq!(list.count_gaps(mark(6).at_ms, |_, _| Hole::Awaited), []);
        assert_eq!(list.clone().count_gaps(mark(6).at_ms, |_, _| Hole::Shed), []);
        assert_eq!(list.count_gaps(mark(6).at_ms, unheard), [Duration::from_millis(1000)]);
        assert_eq!(list.count_gaps(mark(9).at_ms, unheard), []);
        assert!(list.to_string().contains(",!"), "{list}");
        assert_eq!(list.to_string().parse(), Ok(list.clone()));
        // Filled after all.
        list.add(place(2, 7), place(6, 0));
        assert_eq!(list.0.len(), 1);
    }

    #[test]
    fn a_list_that_is_too_long_gives_up_its_oldest_holes() {
        let mut list = Covered::default();
        for number in 0..INTERVALS_MAX as u64 + 2 {
            list.add(place(2 * number, 0), place(2 * number, 1));
        }
        assert_eq!(list.count_gaps(0, |_, _| Hole::Unheard).len(), 2);
        assert_eq!(list.0.len(), INTERVALS_MAX);
        assert!(list.contains(Position::START, place(4, 1)));
    }

    #[test]
    fn what_was_counted_back_is_counted_from_the_mark_before_once_both_are_known() {
        // Somebody has appended the last two of ten messages in front of mark 5.
        let mut list = covered(&[((2, 0), (4, 8)), ((5, -2), (6, 3))]);
        list.count_from(mark(4), mark(5), 10);
        assert_eq!(list, covered(&[((2, 0), (6, 3))]));
        let mut list = covered(&[((5, -2), (6, 3))]);
        list.count_from(mark(4), mark(5), 10);
        list.add(place(4, 9), place(5, 0));
        assert_eq!(list, covered(&[((4, 8), (6, 3))]));
    }

    #[test]
    fn messages_are_found_by_either_mark() {
        // Ten messages between two marks, both heard.
        let both = Stretch { before: Some(mark(4)), after: Some((mark(5), 10)) };
        let answers = |list: &Covered, stretch: Stretch, indices: Range<i64>| {
            let (mut at, mut answers) = (indices.start, Vec::new());
            while at < indices.end {
                let Extent { messages, answer } = list.extent(stretch, at..indices.end);
                assert!(messages > 0);
                at += messages;
                answers.push((at, answer));
            }
            answers
        };
        use Answer::{Covered as Yes, Open, Unknown};
        assert_eq!(answers(&covered(&[((4, 3), (4, 6))]), both, 0..10), [(3, Open), (6, Yes), (10, Open)]);
        assert_eq!(answers(&covered(&[((5, -4), (5, 2))]), both, 0..10), [(6, Open), (10, Yes)]);
        assert_eq!(answers(&covered(&[((5, -40), (5, -1))]), both, 0..10), [(9, Yes), (10, Open)]);
        assert_eq!(answers(&covered(&[((3, 1), (5, 0))]), both, 2..10), [(10, Yes)]);
        assert_eq!(answers(&covered(&[((3, 1), (4, 0)), ((5, 0), (6, 0))]), both, 0..10), [(10, Open)]);
        assert_eq!(answers(&covered(&[((3, 1), (4, 2)), ((5, -8), (6, 0))]), both, 0..10), [(10, Yes)]);

        // The subscription ended before the next mark, or began after the last one.
        let open = Stretch { before: Some(mark(4)), after: None };
        assert_eq!(answers(&covered(&[((3, 0), (4, 3))]), open, 0..10), [(3, Yes), (10, Open)]);
        assert_eq!(answers(&covered(&[((3, 0), (5, 0))]), open, 0..10), [(10, Yes)]);
        assert_eq!(answers(&covered(&[((5, -2), (6, 0))]), open, 0..10), [(10, Unknown)]);
        let late = Stretch { before: None, after: Some((mark(5), 10)) };
        assert_eq!(answers(&covered(&[((4, 0), (5, 0))]), late, 0..10), [(10, Yes)]);
        assert_eq!(answers(&covered(&[((5, -4), (5, 0))]), late, 0..10), [(6, Open), (10, Yes)]);
        assert_eq!(answers(&covered(&[((4, 2), (5, 0))]), late, 0..10), [(10, Unknown)]);
        assert_eq!(answers(&covered(&[((3, 0), (4, 0))]), late, 0..10), [(10, Open)]);
        assert_eq!(answers(&covered(&[((3, 0), (4, 1))]), late, 0..10), [(10, Unknown)]);
        let neither = Stretch { before: None, after: None };
        assert_eq!(answers(&covered(&[((3, 0), (4, 1))]), neither, 0..10), [(10, Unknown)]);
        assert_eq!(answers(&Covered::default(), neither, 0..10), [(10, Unknown)]);
    }

    #[test]
    fn a_text_that_is_no_list_is_refused() {
        for text in ["x", "1.1.1.1", "1.1.1.2~1.1.1.1", "1.1.1.1~1.1.1.2,1.1.1.2~1.1.1.3", "1.1.1.1~1.1.1.2.3"] {
            assert_eq!(text.parse::<Covered>(), Err(NoPosition), "{text}");
        }
        assert_eq!("".parse(), Ok(Covered::default()));
    }
}

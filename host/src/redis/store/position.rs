//! Positions: where a message stands among everything that was published. Redis delivers to all subscribers in one order,
//! so that a message is named by the last mark before it and the messages since, or by the next mark and the messages
//! until then. Every host that heard the message gives it the same position.

use std::fmt;
use std::str::FromStr;

/// A numbered message between the others, published on the group's own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// To which history of the data the number belongs: a restart or a failover begins another one. Later histories have
    /// larger numbers; the first value is the server's time in ms when the history was begun.
    pub history: u64,
    /// Its number in the history; the next mark has the next number.
    pub number: u64,
    /// When it was published, by the server's clock, in ms since 1970. It follows from the other two.
    pub at_ms: u64,
}

/// Most messages between a mark and a place that are believed, so that sums of a few offsets have room: anybody can publish on the
/// channel of the marks.
const OFFSET_MAX: u64 = 1 << 53;

impl Mark {
    /// Whether `next` is the mark that was published right after this one.
    #[must_use]
    pub fn is_before(&self, next: &Mark) -> bool {
        self.history == next.history && self.number.checked_add(1) == Some(next.number)
    }
}

/// A place between two messages. The order of places is the order of publishing, as far as the places show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// A mark.
    pub mark: Mark,
    /// Messages between the mark and the place; negative when the place is in front of the mark.
    pub offset: i64,
}

impl Position {
    /// In front of everything.
    pub const START: Position = Position { mark: Mark { history: 0, number: 0, at_ms: 0 }, offset: 0 };

    /// Right behind a mark.
    #[must_use]
    pub fn at(mark: Mark) -> Position {
        Position { mark, offset: 0 }
    }
}

/// `history.number.ms since the history began.offset`
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { mark: Mark { history, number, at_ms }, offset } = self;
        write!(f, "{history}.{number}.{}.{offset}", at_ms.cast_signed().wrapping_sub(history.cast_signed()))
    }
}

/// A text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Position, NoPosition> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(NoPosition);
        let history: u64 = next()?.parse().map_err(|_| NoPosition)?;
        let number = next()?.parse().map_err(|_| NoPosition)?;
        let since: i64 = next()?.parse().map_err(|_| NoPosition)?;
        let offset: i64 = next()?.parse().map_err(|_| NoPosition)?;
        let mark = Mark { history, number, at_ms: history.wrapping_add_signed(since) };
        if parts.next().is_some() || offset.unsigned_abs() > OFFSET_MAX {
            return Err(NoPosition);
        }
        Ok(Position { mark, offset })
    }
}

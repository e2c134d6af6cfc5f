//! Marks: numbered messages on the group's own channel, between the published ones. The script that publishes them also tells,
//! takes and keeps the lease of the active intake, and every mark carries lease and list, so that nobody else has to ask.

use std::sync::LazyLock;
use std::time::Duration;

use super::covered::Covered;
use super::keys::Keys;
use super::position::{Mark, NoPosition};
use crate::redis::client::connector::Connector;
use crate::redis::client::script::without_comments;

/// Its text, for `EVAL`: the connection that appends may come to a server that has lost its scripts.
pub(super) static MARK: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/mark.lua")));

/// Longest that a host may set its lease to; whatever lasts longer was not made by a host.
pub(super) const LEASE_TTL_MAX: Duration = Duration::from_secs(60);

/// The channel on which the marks of a group are published. It names the database, which does not separate channels.
#[must_use]
pub fn marks_channel(connector: &Connector, keys: &Keys) -> String {
    format!("{}/{}", keys.marks, connector.database())
}

/// What a host wishes of the lease when it publishes a mark. A lease that it holds is renewed, whatever it wishes but to let it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To have it, if it is free.
    Take,
    /// To know who has it.
    Look,
    /// To let it go.
    Release,
}

impl Wish {
    pub(super) fn word(self) -> &'static str {
        match self {
            Wish::Take => "take",
            Wish::Look => "look",
            Wish::Release => "release",
        }
    }
}

/// Who has the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// The host with this id.
    Host(String),
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The mark itself.
    pub mark: Mark,
    /// Who had the lease when it was published.
    pub holder: Holder,
    /// How long the lease lasted from then on, unless it is renewed.
    pub lease_left: Duration,
    /// What was covered.
    pub covered: Covered,
}

impl Announcement {
    /// Reads what was published on the channel of the marks. `None`: that is no mark.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Announcement> {
        let mut words = str::from_utf8(text).ok()?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let mark = Mark { history: number()?, number: number()?, at_ms: number()? };
        let lease_left = Duration::from_millis(number()?).min(LEASE_TTL_MAX);
        let holder = match words.next()? {
            "-" => Holder::Nobody,
            id => Holder::Host(id.to_owned()),
        };
        // A list that cannot be read covers nothing: what it covered is kept from being appended twice by claims.
        let covered = words.next()?.parse().unwrap_or_else(|NoPosition| Covered::default());
        Some(Announcement { mark, holder, lease_left, covered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_who_is_active_and_what_is_covered() {
        let read = |text: &str| Announcement::parse(text.as_bytes());
        let mark = Mark { history: 1_000, number: 7, at_ms: 2_500 };
        let announcement = read("1000 7 2500 2900 host-1 1000.1.0.0~1000.7.1500.3").unwrap();
        assert_eq!((announcement.mark, announcement.holder), (mark, Holder::Host("host-1".into())));
        assert_eq!(announcement.lease_left, Duration::from_millis(2_900));
        assert_eq!(announcement.covered.top().unwrap().offset, 3);
        let nobody = read("1000 7 2500 0 - ").unwrap();
        assert_eq!((nobody.holder, nobody.covered), (Holder::Nobody, Covered::default()));
        let forged = read(&format!("1000 7 2500 {} host-1 ", u64::MAX)).unwrap();
        assert_eq!(forged.lease_left, LEASE_TTL_MAX);
        for text in ["", "1 2 3", "x 1 1 1 - ", "1 1 1 1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

//! What was published, and what `PUBLISH` answered.

use std::sync::{Mutex, MutexGuard};

use crate::clock::NEVER;

/// What each message of the campaign begins with; its number follows.
pub const ID_START: &str = r#"{"message_id":"c-"#;

/// One id.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// When the first `PUBLISH` with it was handed to Redis.
    pub sent: u32,
    /// When that was answered; [`NEVER`] if it was not, or with an error.
    pub answered: u32,
    /// The answer: subscriptions that it went to.
    pub receivers: u16,
    /// A copy of it was published so late that it may count as another message.
    pub late_copy: bool,
}

/// All ids by number.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Message>>);

impl Ledger {
    /// Enters so many new messages, sent now; gives the number of the first one.
    pub fn enter(&self, count: usize, sent: u32) -> u32 {
        let mut messages = self.messages();
        let first = messages.len();
        messages.resize(first + count, Message { sent, answered: NEVER, receivers: 0, late_copy: false });
        u32::try_from(first).expect("fewer messages than that")
    }

    /// Enters the answers to these messages.
    pub fn answer(&self, answers: &[(u32, u16)], answered: u32, copy_ms_max: u32) {
        let mut messages = self.messages();
        for (number, receivers) in answers {
            let message = &mut messages[*number as usize];
            if message.answered == NEVER {
                (message.answered, message.receivers) = (answered, *receivers);
            } else {
                message.late_copy |= answered - message.sent > copy_ms_max;
            }
        }
    }

    /// A copy of this message may have been published at any time from now on.
    pub fn copy_may_be_late(&self, number: u32) {
        self.messages()[number as usize].late_copy = true;
    }

    pub fn len(&self) -> usize {
        self.messages().len()
    }

    /// Everything that was entered.
    pub fn all(&self) -> Vec<Message> {
        self.messages().clone()
    }

    fn messages(&self) -> MutexGuard<'_, Vec<Message>> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

/// The number in an id.
pub fn number(id: &[u8]) -> Option<u32> {
    std::str::from_utf8(id.strip_prefix(b"c-")?).ok()?.parse().ok()
}

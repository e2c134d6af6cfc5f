//! The one place that decides what becomes of an outcome. This file writes nothing to Redis.

use std::time::Duration;

use tracing::field::display;
use tracing::{info, warn};

use super::attempts::next_wait;
use crate::config::RetryConfig;
use crate::counters::{Counters, Outcomes};
use crate::dead_letter::{DeadLetter, Origin};
use crate::effects::Effect;
use crate::message::{Reason, Refusal};
use crate::plugin::{Failure, Outcome};
use crate::redis::store::entries::Entries;
use crate::redis::store::entry::{Delivery, History, Message, write_dead_letter};
use crate::redis::store::results::Results;
use crate::redis::store::retries::Retries;
use crate::redis::store::settle::Writes;
use crate::throttle::Throttle;
use crate::traces::context::TraceId;

/// Time after which a message that was left for later is back in the inbox.
const HOLD_TIME: Duration = Duration::from_millis(500);

/// All writes of a delivery. Reused for the next delivery.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Entries for the outputs.
    pub results: Results,
    /// Entries for the dead letters.
    pub dead_letters: Entries,
    /// Messages to try again.
    pub retries: Retries,
    /// Entries for the inbox: the messages of the delivery that were not processed.
    pub rest: Entries,
    /// What the messages have read of the plugin's state, and change.
    pub effects: Vec<Effect>,
    /// Why the dead letters were given up.
    pub reasons: Vec<Reason>,
    /// Outcomes other than results.
    others: Outcomes,
    /// Messages among the retries that lose no attempt: those that were not tried, and those whose failure is excused.
    held: usize,
    excused: usize,
    /// Finished messages: all messages of the delivery except retries and the rest.
    pub messages: usize,
    given_up: Throttle,
    put_off: Throttle,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its results are written.
    Written,
    /// It has none, on purpose.
    Dropped,
    /// It is tried again.
    PutOff,
    /// It is a dead letter.
    GivenUp(Reason),
}

/// Rules of a decision, and facts for the entries that are written.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// The consumer's id.
    pub consumer_id: &'a str,
    /// SHA-256 of the plugin version that produced the outcome.
    pub plugin_digest: &'a str,
    /// Generation of that version.
    pub plugin_generation: u64,
    /// Settings of retries.
    pub retry: &'a RetryConfig,
    /// The format of entries.
    pub format: u32,
    /// The trace of the message, for the log.
    pub trace_id: Option<TraceId>,
}

impl Settlement {
    /// Starts the next delivery.
    pub fn clear(&mut self) {
        self.results.clear();
        self.dead_letters.clear();
        self.retries.clear();
        self.rest.clear();
        self.effects.clear();
        self.reasons.clear();
        self.others = Outcomes::default();
        (self.messages, self.held, self.excused) = (0, 0, 0);
    }

    /// What is written.
    #[must_use]
    pub fn writes(&self) -> Writes<'_> {
        let Settlement { results, dead_letters, retries, rest, effects, .. } = self;
        Writes { results, dead_letters, retries, rest, effects }
    }

    /// The outcomes of the delivery.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        let Outcomes { dropped, rejected, retried, failed, .. } = self.others;
        let emitted = self.messages + self.retries.len() - (dropped + rejected + retried + failed + self.held);
        Outcomes { emitted, ..self.others }
    }

    /// Counts what was settled.
    pub fn count(&self, counters: &Counters) {
        counters.processed.add(self.messages);
        counters.results.add(self.results.len());
        counters.add_outcomes(self.outcomes());
        counters.dead_letters.add(self.dead_letters.len());
        counters.dead_letters_by_reason.add(&self.reasons);
        counters.retries.add(self.retries.len() - self.held - self.excused);
    }

    /// Decides what becomes of a message. The processor has already added the results.
    pub fn decide(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        outcome: Result<Outcome, Failure>,
        terms: Terms<'_>,
    ) -> Fate {
        match outcome {
            Ok(Outcome::Emit(_) | Outcome::EmitAll(_)) => {
                self.messages += 1;
                Fate::Written
            }
            Ok(Outcome::Drop) => {
                self.others.dropped += 1;
                self.messages += 1;
                Fate::Dropped
            }
            Ok(Outcome::Retry(delay_ms)) => {
                self.others.retried += 1;
                let asked = "the plugin asked for another attempt";
                self.try_again(delivery, message, delay_ms, Reason::PluginRetried, asked, terms)
            }
            Ok(Outcome::Reject(reason)) => {
                self.others.rejected += 1;
                let rejected = format!("the plugin rejected the message: {reason}");
                self.give_up(delivery, message, Reason::PluginRejected, &rejected, terms)
            }
            Err(failure) => {
                self.others.failed += 1;
                match reason(&failure) {
                    reason @ Reason::BadResult => self.give_up(delivery, message, reason, &failure.to_string(), terms),
                    reason => self.try_again(delivery, message, None, reason, &failure.to_string(), terms),
                }
            }
        }
    }

    /// Schedules another attempt if one is left, after the delay that the plugin asked for; else gives the message up.
    fn try_again(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        asked_ms: Option<u32>,
        reason: Reason,
        error: &str,
        terms: Terms<'_>,
    ) -> Fate {
        match next_wait(terms.retry, message.attempt(), asked_ms) {
            Some(wait) => self.put_off(delivery, message, wait, reason, error, terms),
            None => self.give_up(delivery, message, reason, error, terms),
        }
    }

    /// Gives a message up without another attempt, because several hosts died while processing it.
    pub fn record_host_killer(&mut self, delivery: &Delivery, message: &Message, terms: Terms<'_>) -> Fate {
        self.others.failed += 1;
        let deaths = delivery.crashes;
        let error = format!("{deaths} hosts died while processing the message");
        self.give_up(delivery, message, Reason::HostKiller, &error, terms)
    }

    /// Gives a message another attempt, because other messages have changed again and again what it has read of the state.
    pub fn yield_to_others(&mut self, delivery: &Delivery, message: &Message, terms: Terms<'_>) -> Fate {
        self.others.failed += 1;
        let error = "other messages changed what the plugin had read of its state, each time that it was tried";
        self.try_again(delivery, message, None, Reason::StateConflict, error, terms)
    }

    /// Leaves a message for later without a try.
    pub fn hold(&mut self, delivery: &Delivery, message: &Message, terms: Terms<'_>) -> Fate {
        self.held += 1;
        self.leave(delivery, message, HOLD_TIME, terms)
    }

    /// Lets a message wait that is not due yet, without a try. The time in it may be wrong: then it is given up.
    pub fn delay(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        wait: Result<Duration, Refusal>,
        terms: Terms<'_>,
    ) -> Fate {
        match wait {
            Ok(wait) => {
                self.held += 1;
                self.leave(delivery, message, wait, terms)
            }
            Err(Refusal { reason, sentence }) => {
                self.others.failed += 1;
                self.give_up(delivery, message, reason, &sentence, terms)
            }
        }
    }

    /// Leaves a message for later that has failed and loses no attempt.
    pub fn excuse(&mut self, delivery: &Delivery, message: &Message, terms: Terms<'_>) -> Fate {
        self.others.failed += 1;
        self.excused += 1;
        self.leave(delivery, message, HOLD_TIME, terms)
    }

    fn leave(&mut self, delivery: &Delivery, message: &Message, wait: Duration, terms: Terms<'_>) -> Fate {
        let (attempt, token) = (message.attempt(), delivery.token(message).to_string());
        let history = History { attempt, token, crashes: delivery.crashes };
        self.retries.push(terms.format, &message.id, &message.body, history, wait);
        Fate::PutOff
    }

    fn put_off(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        wait: Duration,
        reason: Reason,
        error: &str,
        terms: Terms<'_>,
    ) -> Fate {
        let attempt = message.attempt();
        if let Some(unlogged) = self.put_off.permit() {
            let (message_id, consumer_id, trace_id) = (&message.id, terms.consumer_id, terms.trace_id.map(display));
            info!(message_id, trace_id, consumer_id, %reason, attempt, unlogged, "{error}; trying again in {wait:?}");
        }
        let token = delivery.token(message).to_string();
        let history = History { attempt: attempt + 1, token, crashes: delivery.crashes };
        self.retries.push(terms.format, &message.id, &message.body, history, wait);
        Fate::PutOff
    }

    fn give_up(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        reason: Reason,
        error: &str,
        terms: Terms<'_>,
    ) -> Fate {
        self.messages += 1;
        self.reasons.push(reason);
        let attempts = message.attempt();
        if let Some(unlogged) = self.given_up.permit() {
            let (message_id, consumer_id, trace_id) = (&message.id, terms.consumer_id, terms.trace_id.map(display));
            warn!(message_id, trace_id, consumer_id, %reason, attempts, unlogged, "{error}; the message is kept as a dead letter");
        }
        let letter = DeadLetter {
            payload: message.body.as_bytes(),
            reason,
            error,
            host_id: terms.host_id,
            origin: Some(Origin {
                message_id: &message.id,
                token: delivery.token(message),
                attempts,
                consumer_id: terms.consumer_id,
                plugin_digest: terms.plugin_digest,
                plugin_generation: terms.plugin_generation,
            }),
        };
        write_dead_letter(&mut self.dead_letters, terms.format, &letter);
        Fate::GivenUp(reason)
    }
}

pub(super) fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::Failed(_) => Reason::PluginFailed,
        Failure::TimedOut(_) => Reason::PluginTimedOut,
        Failure::OutOfMemory { .. } => Reason::PluginMemory,
        Failure::ResultTooLong { .. } | Failure::TooManyResults(_) | Failure::NotText | Failure::BadResult(_) => {
            Reason::BadResult
        }
        Failure::Trapped(_) | Failure::Start(_) => Reason::PluginTrapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Settles one message at this attempt for each outcome.
    fn settle(attempt: u32, outcomes: Vec<Result<Outcome, Failure>>) -> Settlement {
        let retry = Config::default().retry;
        let terms = Terms {
            host_id: "h",
            consumer_id: "h/1",
            plugin_digest: "abc",
            plugin_generation: 7,
            retry: &retry,
            format: 1,
            trace_id: None,
        };
        let mut settlement = Settlement::default();
        for outcome in outcomes {
            let history = History { attempt, token: "5-0".into(), crashes: 0 };
            let message = Message { id: "m".into(), body: "{}".into(), history: Some(Box::new(history)) };
            let delivery = Delivery::new("9-0".into(), Vec::new());
            settlement.decide(&delivery, &message, outcome, terms);
        }
        settlement
    }

    fn of_dead_letters(settlement: &Settlement, name: &str) -> Vec<String> {
        let value = |fields: &Vec<String>| fields.iter().skip_while(|field| *field != name).nth(1).cloned();
        settlement.dead_letters.texts().iter().filter_map(value).collect()
    }

    /// One of each outcome after which another attempt may help.
    fn attempts() -> Vec<Result<Outcome, Failure>> {
        vec![
            Ok(Outcome::Retry(Some(5))),
            Ok(Outcome::Retry(None)),
            Err(Failure::Failed("no".into())),
            Err(Failure::Trapped("unreachable".into())),
            Err(Failure::TimedOut(Duration::from_secs(1))),
            Err(Failure::OutOfMemory { bytes_max: 1, words: String::new() }),
            Err(Failure::Start("trap".into())),
        ]
    }

    #[test]
    fn what_another_attempt_may_help_is_tried_again_while_one_is_left() {
        for attempt in [1, 4] {
            let settlement = settle(attempt, attempts());
            assert_eq!((settlement.retries.len(), settlement.dead_letters.len(), settlement.messages), (7, 0, 0));
            assert_eq!(settlement.outcomes(), Outcomes { retried: 2, failed: 5, ..Outcomes::default() });
        }
    }

    #[test]
    fn the_last_attempt_ends_in_a_dead_letter_with_its_reason() {
        let settlement = settle(5, attempts());
        assert_eq!((settlement.retries.len(), settlement.dead_letters.len(), settlement.messages), (0, 7, 7));
        let reasons = [
            "plugin-retried",
            "plugin-retried",
            "plugin-failed",
            "plugin-trapped",
            "plugin-timed-out",
            "plugin-memory",
            "plugin-trapped",
        ];
        assert_eq!(of_dead_letters(&settlement, "reason"), reasons);
        assert_eq!(of_dead_letters(&settlement, "attempts"), ["5"; 7]);
        assert_eq!(of_dead_letters(&settlement, "token"), ["5-0"; 7]);
        assert_eq!(of_dead_letters(&settlement, "plugin_generation"), ["7"; 7]);
        assert_eq!(of_dead_letters(&settlement, "first_seen"), ["1970-01-01T00:00:00.005Z"; 7]);
    }

    #[test]
    fn what_no_attempt_can_help_is_a_dead_letter_at_once() {
        let settlement = settle(
            1,
            vec![
                Ok(Outcome::Drop),
                Ok(Outcome::Reject("too old".into())),
                Err(Failure::BadResult("not an object".into())),
                Err(Failure::ResultTooLong { bytes_max: 1 }),
            ],
        );
        assert_eq!((settlement.results.len(), settlement.retries.len()), (0, 0));
        let outcomes = Outcomes { dropped: 1, rejected: 1, failed: 2, ..Outcomes::default() };
        assert_eq!(settlement.outcomes(), outcomes);
        assert_eq!(settlement.reasons, [Reason::PluginRejected, Reason::BadResult, Reason::BadResult]);
        assert_eq!(of_dead_letters(&settlement, "reason"), ["plugin-rejected", "bad-result", "bad-result"]);
    }
}

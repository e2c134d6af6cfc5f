//! What becomes of an outcome: the one place that decides. It writes nothing itself.

use std::time::Duration;

use tracing::{info, warn};

use super::attempts::next_wait;
use super::flatten::{Own, write_result};
use crate::config::{OutputConfig, RetryConfig};
use crate::dead_letter::{DeadLetter, Origin};
use crate::message::Reason;
use crate::monitor::throttle::Throttle;
use crate::plugin::{Failure, Outcome};
use crate::redis::deliveries::{Delivery, Message};
use crate::redis::entries::Entries;
use crate::redis::retries::{History, Retries};

/// Everything that a delivery will have written. Reused from delivery to delivery.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Entries for the output stream.
    pub results: Entries,
    /// Entries for the dead letters.
    pub dead_letters: Entries,
    /// Messages to try again.
    pub retries: Retries,
    /// Messages that the plugin dropped on purpose.
    pub dropped: usize,
    /// Messages done with: all that were recorded but the retries.
    pub messages: usize,
    given_up: Throttle,
    put_off: Throttle,
}

/// Who decides, by which rules, for the entries that are signed.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// The consumer's id.
    pub consumer_id: &'a str,
    /// SHA-256 of the version of the plugin that the outcome is from.
    pub plugin_digest: &'a str,
    /// Its generation.
    pub plugin_generation: u64,
    /// What is written to the output stream.
    pub output: &'a OutputConfig,
    /// How often and when a message is tried again.
    pub retry: &'a RetryConfig,
}

/// What is decided about a message that gave no result.
#[derive(Debug)]
pub enum Verdict {
    /// Another attempt, if one is left, after the delay that the plugin named.
    TryAgain(Option<u32>, Reason, String),
    /// No attempt would end otherwise.
    GiveUp(Reason, String),
}

impl Verdict {
    /// The failure of the plugin that led to it; `None` when the plugin decided so.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        let (Verdict::TryAgain(_, reason, sentence) | Verdict::GiveUp(reason, sentence)) = self;
        (!matches!(reason, Reason::PluginRetried | Reason::PluginRejected)).then_some(sentence)
    }
}

impl Settlement {
    /// Starts the next delivery.
    pub fn clear(&mut self) {
        self.results.clear();
        self.dead_letters.clear();
        self.retries.clear();
        self.dropped = 0;
        self.messages = 0;
    }

    /// Decides what becomes of a message. Its results, if it has any, are added; a verdict is carried out apart.
    ///
    /// # Errors
    /// The verdict on a message that gave no result.
    pub fn judge(
        &mut self,
        message: &Message,
        outcome: Result<Outcome, Failure>,
        terms: Terms<'_>,
    ) -> Result<(), Verdict> {
        match outcome {
            Ok(Outcome::Emit(result)) => self.emit(message, std::slice::from_ref(&result), terms)?,
            Ok(Outcome::EmitAll(results)) => self.emit(message, &results, terms)?,
            Ok(Outcome::Drop) => self.dropped += 1,
            Ok(Outcome::Retry(delay_ms)) => {
                let asked = "the plugin asked for another attempt".to_string();
                return Err(Verdict::TryAgain(delay_ms, Reason::PluginRetried, asked));
            }
            Ok(Outcome::Reject(reason)) => {
                let rejected = format!("the plugin rejected the message: {reason}");
                return Err(Verdict::GiveUp(Reason::PluginRejected, rejected));
            }
            Err(failure) => {
                return Err(match reason(&failure) {
                    Reason::BadResult => Verdict::GiveUp(Reason::BadResult, failure.to_string()),
                    reason => Verdict::TryAgain(None, reason, failure.to_string()),
                });
            }
        }
        self.messages += 1;
        Ok(())
    }

    /// Carries out the verdict on a message of this delivery.
    pub fn carry_out(&mut self, verdict: Verdict, delivery: &Delivery, message: &Message, terms: Terms<'_>) {
        match verdict {
            Verdict::GiveUp(reason, error) => self.give_up(delivery, message, reason, &error, terms),
            Verdict::TryAgain(asked, reason, error) => match next_wait(terms.retry, message.attempt(), asked) {
                Some(wait) => self.put_off(delivery, message, wait, reason, &error, terms),
                None => self.give_up(delivery, message, reason, &error, terms),
            },
        }
    }

    /// Gives up on a message because its hosts died, without another attempt.
    pub fn record_host_killer(&mut self, delivery: &Delivery, message: &Message, terms: Terms<'_>) {
        let deaths = delivery.crashes;
        let error = format!("{deaths} hosts died or stopped while they had the message in hand");
        self.give_up(delivery, message, Reason::HostKiller, &error, terms);
    }

    /// All results of a message or none of them.
    fn emit(&mut self, message: &Message, results: &[String], terms: Terms<'_>) -> Result<(), Verdict> {
        let before = self.results.len();
        for result in results {
            let own = Own {
                message_id: &message.id,
                consumer_id: terms.consumer_id,
                plugin_digest: terms.output.plugin_digest.then_some(terms.plugin_digest),
            };
            if let Err(error) = write_result(&mut self.results, own, result, terms.output.format) {
                self.results.truncate(before);
                return Err(Verdict::GiveUp(Reason::BadResult, error));
            }
        }
        Ok(())
    }

    fn put_off(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        wait: Duration,
        reason: Reason,
        error: &str,
        terms: Terms<'_>,
    ) {
        let attempt = message.attempt();
        if let Some(unlogged) = self.put_off.permit() {
            let (message_id, consumer_id) = (&message.id, terms.consumer_id);
            info!(message_id, consumer_id, %reason, attempt, unlogged, "{error}; trying again in {wait:?}");
        }
        let token = delivery.token(message).to_string();
        let history = History { attempt: attempt + 1, token, crashes: delivery.crashes };
        self.retries.push(&message.id, &message.body, history, wait);
    }

    fn give_up(&mut self, delivery: &Delivery, message: &Message, reason: Reason, error: &str, terms: Terms<'_>) {
        self.messages += 1;
        let attempts = message.attempt();
        if let Some(unlogged) = self.given_up.permit() {
            let (message_id, consumer_id) = (&message.id, terms.consumer_id);
            warn!(message_id, consumer_id, %reason, attempts, unlogged, "{error}; the message is kept as a dead letter");
        }
        DeadLetter {
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
        }
        .write_to(&mut self.dead_letters);
    }
}

fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::Failed(_) => Reason::PluginFailed,
        Failure::TimedOut(_) => Reason::PluginTimedOut,
        Failure::OutOfMemory(_) => Reason::PluginMemory,
        Failure::ResultTooLong { .. } | Failure::TooManyResults(_) | Failure::NotText => Reason::BadResult,
        Failure::Trapped(_) | Failure::Start(_) => Reason::PluginTrapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Settles one message at this attempt for each outcome.
    fn settle(attempt: u32, outcomes: Vec<Result<Outcome, Failure>>) -> Settlement {
        let Config { retry, output, .. } = Config::default();
        let terms = Terms {
            host_id: "h",
            consumer_id: "h/1",
            plugin_digest: "abc",
            plugin_generation: 7,
            output: &output,
            retry: &retry,
        };
        let mut settlement = Settlement::default();
        for outcome in outcomes {
            let history = History { attempt, token: "5-0".into(), crashes: 0 };
            let message = Message { id: "m".into(), body: "{}".into(), history: Some(Box::new(history)) };
            let delivery = Delivery::new("9-0".into(), Vec::new());
            if let Err(verdict) = settlement.judge(&message, outcome, terms) {
                settlement.carry_out(verdict, &delivery, &message, terms);
            }
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
            Err(Failure::OutOfMemory(1)),
            Err(Failure::Start("trap".into())),
        ]
    }

    #[test]
    fn several_results_are_written_all_or_not_at_all() {
        let good = || r#"{"a":1}"#.to_string();
        let settlement = settle(
            1,
            vec![
                Ok(Outcome::Emit(good())),
                Ok(Outcome::EmitAll(vec![good(), "nonsense".into()])),
                Ok(Outcome::EmitAll(vec![good(), good()])),
                Ok(Outcome::EmitAll(vec![])),
            ],
        );
        assert_eq!((settlement.results.len(), settlement.dead_letters.len(), settlement.messages), (3, 1, 4));
    }

    #[test]
    fn what_another_attempt_may_help_is_tried_again_while_one_is_left() {
        for attempt in [1, 4] {
            let settlement = settle(attempt, attempts());
            assert_eq!((settlement.retries.len(), settlement.dead_letters.len(), settlement.messages), (7, 0, 0));
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
    fn what_the_plugin_decides_is_no_failure_of_it() {
        let Config { retry, output, .. } = Config::default();
        let terms = Terms {
            host_id: "h",
            consumer_id: "h/1",
            plugin_digest: "abc",
            plugin_generation: 1,
            output: &output,
            retry: &retry,
        };
        let message = Message { id: "m".into(), body: "{}".into(), history: None };
        let failure = |outcome| match Settlement::default().judge(&message, outcome, terms) {
            Ok(()) => None,
            Err(verdict) => verdict.failure().map(str::to_owned),
        };
        let decided = [Outcome::Drop, Outcome::Retry(None), Outcome::Reject("no".into()), Outcome::Emit("{}".into())];
        assert!(decided.into_iter().all(|outcome| failure(Ok(outcome)).is_none()));
        assert!(attempts().into_iter().skip(2).all(|outcome| failure(outcome).is_some()));
        assert!(failure(Ok(Outcome::Emit("[]".into()))).is_some_and(|failure| failure.contains("not an object")));
    }

    #[test]
    fn what_no_attempt_can_help_is_a_dead_letter_at_once() {
        let settlement = settle(
            1,
            vec![
                Ok(Outcome::Drop),
                Ok(Outcome::Reject("too old".into())),
                Ok(Outcome::Emit("[]".into())),
                Err(Failure::ResultTooLong { bytes_max: 1 }),
            ],
        );
        assert_eq!((settlement.dropped, settlement.results.len(), settlement.retries.len()), (1, 0, 0));
        assert_eq!(of_dead_letters(&settlement, "reason"), ["plugin-rejected", "bad-result", "bad-result"]);
    }
}

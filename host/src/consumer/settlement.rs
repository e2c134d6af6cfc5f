//! What becomes of an outcome: the one place that decides. It writes nothing itself.

use tracing::warn;

use super::flatten::write_result;
use crate::config::OutputFormat;
use crate::dead_letter::DeadLetter;
use crate::message::Reason;
use crate::monitor::throttle::Throttle;
use crate::plugin::{Failure, Outcome};
use crate::redis::deliveries::Message;
use crate::redis::entries::Entries;

/// Everything that a delivery will have written. Reused from delivery to delivery.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Entries for the output stream.
    pub results: Entries,
    /// Entries for the dead letters.
    pub dead_letters: Entries,
    /// Messages that the plugin dropped on purpose.
    pub dropped: usize,
    /// Messages decided about.
    pub messages: usize,
    given_up: Throttle,
}

/// Who decides, for the entries that are signed.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// The consumer's id.
    pub consumer_id: &'a str,
    /// SHA-256 of the plugin in use.
    pub plugin_digest: &'a str,
}

impl Settlement {
    /// Starts the next delivery.
    pub fn clear(&mut self) {
        self.results.clear();
        self.dead_letters.clear();
        self.dropped = 0;
        self.messages = 0;
    }

    /// Decides what becomes of a message.
    pub fn record(
        &mut self,
        message: &Message,
        outcome: Result<Outcome, Failure>,
        signature: Signature<'_>,
        format: OutputFormat,
    ) {
        self.messages += 1;
        // This version makes one attempt, so whatever asks for another ends as a dead letter.
        let (reason, error) = match outcome {
            Ok(Outcome::Emit(result)) => match self.emit(message, std::slice::from_ref(&result), signature, format) {
                Ok(()) => return,
                Err(error) => (Reason::BadResult, error),
            },
            Ok(Outcome::EmitAll(results)) => match self.emit(message, &results, signature, format) {
                Ok(()) => return,
                Err(error) => (Reason::BadResult, error),
            },
            Ok(Outcome::Drop) => {
                self.dropped += 1;
                return;
            }
            Ok(Outcome::Retry(_)) => {
                (Reason::PluginRetried, "the plugin asked for another attempt and none is left".to_string())
            }
            Ok(Outcome::Reject(reason)) => {
                (Reason::PluginRejected, format!("the plugin rejected the message: {reason}"))
            }
            Err(failure) => (reason(&failure), failure.to_string()),
        };
        self.give_up(message, reason, &error, signature);
    }

    /// All results of a message or none of them.
    fn emit(
        &mut self,
        message: &Message,
        results: &[String],
        signature: Signature<'_>,
        format: OutputFormat,
    ) -> Result<(), String> {
        let before = self.results.len();
        for result in results {
            if let Err(error) = write_result(&mut self.results, &message.id, signature.consumer_id, result, format) {
                self.results.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, message: &Message, reason: Reason, error: &str, signature: Signature<'_>) {
        if let Some(unlogged) = self.given_up.permit() {
            let (message_id, consumer_id) = (&message.id, signature.consumer_id);
            warn!(message_id, consumer_id, %reason, unlogged, "{error}; the message is kept as a dead letter");
        }
        DeadLetter {
            message_id: Some(&message.id),
            payload: message.body.as_bytes(),
            reason,
            error,
            attempts: 1,
            host_id: signature.host_id,
            consumer_id: Some(signature.consumer_id),
            plugin_digest: Some(signature.plugin_digest),
        }
        .write_to(&mut self.dead_letters);
    }
}

fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::Failed(_) => Reason::PluginFailed,
        Failure::TimedOut(_) => Reason::PluginTimedOut,
        Failure::OutOfMemory(_) => Reason::PluginMemory,
        Failure::ResultTooLong { .. } | Failure::TooManyResults(_) => Reason::BadResult,
        Failure::Trapped(_) | Failure::Start(_) => Reason::PluginTrapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: Signature<'_> = Signature { host_id: "h", consumer_id: "h/1", plugin_digest: "abc" };

    fn settle(outcomes: Vec<Result<Outcome, Failure>>) -> Settlement {
        let mut settlement = Settlement::default();
        for outcome in outcomes {
            let message = Message { id: "m".into(), body: "{}".into() };
            settlement.record(&message, outcome, SIGNATURE, OutputFormat::Fields);
        }
        settlement
    }

    #[test]
    fn several_results_are_written_all_or_not_at_all() {
        let good = || r#"{"a":1}"#.to_string();
        let settlement = settle(vec![
            Ok(Outcome::Emit(good())),
            Ok(Outcome::EmitAll(vec![good(), "nonsense".into()])),
            Ok(Outcome::EmitAll(vec![good(), good()])),
            Ok(Outcome::EmitAll(vec![])),
        ]);
        assert_eq!((settlement.results.len(), settlement.dead_letters.len(), settlement.messages), (3, 1, 4));
    }

    #[test]
    fn every_outcome_is_a_result_a_drop_or_a_dead_letter_with_its_reason() {
        let settlement = settle(vec![
            Ok(Outcome::Drop),
            Ok(Outcome::Retry(Some(5))),
            Ok(Outcome::Reject("too old".into())),
            Err(Failure::Failed("no".into())),
        ]);
        assert_eq!((settlement.dropped, settlement.results.len()), (1, 0));
        let reasons: Vec<String> = settlement
            .dead_letters
            .texts()
            .iter()
            .map(|fields| fields.iter().skip_while(|field| *field != "reason").nth(1).cloned().unwrap_or_default())
            .collect();
        assert_eq!(reasons, ["plugin-retried", "plugin-rejected", "plugin-failed"]);
    }
}

//! The one call of a plugin: a message in, an outcome out. Whatever stands between a message and the plugin stands here: which
//! version is asked, probation, and in the benchmark the plugin's function as native code. It knows no Redis beyond the shape
//! of an output entry, and decides nothing about the message.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::OutputConfig;
use crate::plugin::{Failure, Instance, Outcome};
use crate::redis::store::entries::Entries;
use crate::redis::store::output::{Own, write_result};
use crate::version::{Orders, Version, Versions};

/// A message as a plugin is given it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its id.
    pub id: &'a str,
    /// The JSON text as it was published.
    pub body: &'a str,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// Which consumer signs them.
    pub consumer_id: &'a str,
    /// The form of an entry, and whether the plugin's digest is in it.
    pub output: &'a OutputConfig,
}

/// What a message came to.
#[derive(Debug)]
pub struct Processed {
    /// The outcome. Its results are written.
    pub outcome: Result<Outcome, Failure>,
    /// Whose outcome it is, if not that of the version in use.
    pub instead: Option<Arc<Version>>,
}

/// Asks an instance about a message and adds its results to `results`, all of them or none. A result that cannot be written is a
/// failure.
///
/// # Errors
/// Why there is no outcome.
pub async fn call(
    instance: &mut Instance,
    digest: &str,
    input: Input<'_>,
    signature: Signature<'_>,
    results: &mut Entries,
) -> Result<Outcome, Failure> {
    #[cfg(not(feature = "native-bench"))]
    let outcome = instance.process(input.id, input.body, input.attempt).await?;
    #[cfg(feature = "native-bench")]
    let outcome = {
        let _ = instance;
        crate::plugin::native::process(input.body)?
    };
    write(&outcome, digest, input, signature, results).map_err(Failure::BadResult)?;
    Ok(outcome)
}

fn write(
    outcome: &Outcome,
    digest: &str,
    input: Input<'_>,
    signature: Signature<'_>,
    results: &mut Entries,
) -> Result<(), String> {
    let emitted = match outcome {
        Outcome::Emit(result) => std::slice::from_ref(result),
        Outcome::EmitAll(results) => results,
        Outcome::Drop | Outcome::Retry(_) | Outcome::Reject(_) => return Ok(()),
    };
    let before = results.len();
    for result in emitted {
        let own = Own {
            message_id: input.id,
            consumer_id: signature.consumer_id,
            plugin_digest: signature.output.plugin_digest.then_some(digest),
        };
        if let Err(error) = write_result(results, own, result, signature.output.format) {
            results.truncate(before);
            return Err(error);
        }
    }
    Ok(())
}

/// Processes the messages of one consumer, with an instance of the version in use.
#[derive(Debug)]
pub struct Processor {
    versions: Arc<Versions>,
    orders: watch::Receiver<Orders>,
    /// The version that the instance is of.
    version: Arc<Version>,
    instance: Instance,
    consumer_id: Arc<str>,
    /// Messages that the instance was asked about and how many of them it failed, since they were last added up.
    tally: (u64, u64),
}

impl Processor {
    /// A processor with a fresh instance, for the consumer with this id.
    ///
    /// # Errors
    /// When the instance cannot be made.
    pub async fn start(versions: Arc<Versions>, consumer_id: Arc<str>) -> Result<Processor, Failure> {
        let mut orders = versions.subscribe();
        let version = orders.borrow_and_update().version.clone();
        let instance = version.plugin.instantiate(consumer_id.clone()).await?;
        Ok(Processor { versions, orders, version, instance, consumer_id, tally: (0, 0) })
    }

    /// How many consumers there are to be.
    #[must_use]
    pub fn consumers(&self) -> u32 {
        self.orders.borrow().consumers
    }

    /// Returns when something has changed. May be dropped at any moment.
    pub async fn changed(&mut self) {
        // The sender is in `versions`, which is held here.
        let _ = self.orders.changed().await;
        self.adopt();
    }

    /// Goes over to the version in use if something has changed. Asked before every message, so it has to cost next to nothing.
    pub fn follow(&mut self) {
        if self.orders.has_changed().unwrap_or(false) {
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        let version = self.orders.borrow_and_update().version.clone();
        if version.plugin.generation() != self.version.plugin.generation() {
            self.add_up();
            // The old instance goes before the new one comes, so a swap needs no memory for two of each consumer.
            self.instance = version.plugin.instance_to_be(self.consumer_id.clone());
        }
        self.version = version;
    }

    /// The version that the next message is given to.
    #[must_use]
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// Processes a message and adds its results to `results`.
    pub async fn process(&mut self, input: Input<'_>, signature: Signature<'_>, results: &mut Entries) -> Processed {
        self.follow();
        let outcome = call(&mut self.instance, self.version.plugin.digest(), input, signature, results).await;
        self.tally.0 += 1;
        if self.version.probation.is_some() {
            // A failure is judged by all messages so far.
            self.add_up();
        }
        if let Err(failure) = &outcome {
            self.tally.1 += 1;
            // Boxed because it is rare, and the future of a consumer is there ten thousand times.
            if let Some(processed) = Box::pin(self.ask_the_version_before(input, signature, results, failure)).await {
                return processed;
            }
        }
        Processed { outcome, instead: None }
    }

    /// What the version before makes of a message that a version on probation has failed; `None` when that one fails too, or
    /// when there is nothing to prove.
    async fn ask_the_version_before(
        &mut self,
        input: Input<'_>,
        signature: Signature<'_>,
        results: &mut Entries,
        failure: &Failure,
    ) -> Option<Processed> {
        let before = self.version.probation.as_ref()?.before();
        let mut instance = before.plugin.instance_to_be(self.consumer_id.clone());
        let outcome = call(&mut instance, before.plugin.digest(), input, signature, results).await.ok()?;
        self.versions.regressed(&self.version, input.id, &failure.to_string());
        Some(Processed { outcome: Ok(outcome), instead: Some(before.clone()) })
    }

    /// Adds what the instance did to the record of its version.
    pub fn add_up(&mut self) {
        let (messages, failures) = std::mem::take(&mut self.tally);
        if messages > 0 {
            self.version.record.add(messages, failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn several_results_are_written_all_or_not_at_all() {
        let output = Config::default().output;
        let (signature, mut results) = (Signature { consumer_id: "h/1", output: &output }, Entries::default());
        let mut written = |outcome| {
            let error =
                write(&outcome, "abc", Input { id: "m", body: "{}", attempt: 1 }, signature, &mut results).err();
            (results.len(), error.is_some())
        };
        let good = || r#"{"a":1}"#.to_string();
        assert_eq!(written(Outcome::Emit(good())), (1, false));
        assert_eq!(written(Outcome::EmitAll(vec![good(), "nonsense".into()])), (1, true));
        assert_eq!(written(Outcome::EmitAll(vec![good(), good()])), (3, false));
        assert_eq!(written(Outcome::EmitAll(vec![])), (3, false));
        assert_eq!(written(Outcome::Emit("[]".into())), (3, true));
        assert_eq!(written(Outcome::Drop), (3, false));
    }
}

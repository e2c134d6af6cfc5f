//! The one call of a plugin: a message in, an outcome out. Everything between a message and the plugin is here: the
//! choice of the version, probation, and in the benchmark the plugin's function as native code. This file knows nothing
//! of Redis except the form of an output entry, and does not decide what becomes of the message.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{OutputConfig, Outputs};
use crate::measured::{Measured, Stopwatch};
use crate::plugin::state::Session;
use crate::plugin::{Context, Failure, Instance, Outcome, Output};
use crate::redis::store::output::{Own, write_result};
use crate::redis::store::results::Results;
use crate::time::stamp_ms;
use crate::traces::context::TraceId;
use crate::version::breaker::Turn;
use crate::version::{Orders, Version, Versions};

/// Maximum number of characters of an unknown output's name in an error.
const NAME_CHARS_MAX: usize = 64;

/// A message as the plugin receives it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The message id.
    pub id: &'a str,
    /// The published JSON text.
    pub body: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Token of the message's claim, which begins with the time at which the message was taken in.
    pub token: &'a str,
    /// The trace of the message, for the plugin's log lines.
    pub trace_id: Option<TraceId>,
    /// The state that the plugin may use, if buckets are granted.
    pub session: Option<&'a Arc<Session>>,
}

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// Consumer id in every result.
    pub consumer_id: &'a str,
    /// Form of an entry, and whether an entry contains the plugin's digest.
    pub output: &'a OutputConfig,
    /// The named outputs.
    pub outputs: &'a Outputs,
}

/// Outcome of processing a message.
#[derive(Debug)]
pub struct Processed {
    /// The outcome. Its results are already written.
    pub outcome: Result<Outcome, Failure>,
    /// The version that produced the outcome, if it is not the version in use.
    pub instead: Option<Arc<Version>>,
    /// Whether the failure is not held against the message, because the plugin fails nearly everything.
    pub is_excused: bool,
}

/// Calls an instance with a message and adds all results to `results`, or none. A result that cannot be written is a
/// failure.
///
/// # Errors
/// The reason why there is no outcome.
pub async fn call(
    instance: &mut Instance,
    digest: &str,
    input: Input<'_>,
    signature: Signature<'_>,
    results: &mut Results,
) -> Result<Outcome, Failure> {
    let context = instance
        .asks_for_context()
        .then(|| Context { received_ms: stamp_ms(input.token).unwrap_or(0), consumer_id: signature.consumer_id });
    instance.set_trace(input.trace_id);
    let session = input.session.filter(|_| instance.has_state());
    instance.set_session(session);
    #[cfg(not(feature = "native-bench"))]
    let outcome = loop {
        let is_used = instance.is_used();
        if let Some(session) = session {
            session.begin();
        }
        match instance.process(input.id, input.body, input.attempt, context).await {
            // The messages before may have taken the memory. A fresh instance, which comes next, tells.
            Err(Failure::OutOfMemory { .. }) if is_used => {}
            outcome => break outcome?,
        }
    };
    #[cfg(feature = "native-bench")]
    let outcome = {
        let _ = context;
        crate::plugin::native::process(input.body)?
    };
    write(&outcome, digest, input, signature, results).map_err(Failure::BadResult)?;
    if let Some(session) = session {
        match outcome {
            Outcome::Emit(_) | Outcome::EmitAll(_) | Outcome::Drop => session.keep(),
            Outcome::Retry(_) | Outcome::Reject(_) => session.discard(),
        }
    }
    Ok(outcome)
}

fn write(
    outcome: &Outcome,
    digest: &str,
    input: Input<'_>,
    signature: Signature<'_>,
    results: &mut Results,
) -> Result<(), String> {
    let own = Own {
        message_id: input.id,
        consumer_id: signature.consumer_id,
        plugin_digest: signature.output.plugin_digest.then_some(digest),
    };
    let before = results.mark();
    let mut write = |number, result: &str| write_result(results.of(number), own, result, signature.output.format);
    let written = match outcome {
        Outcome::Emit(result) => write(None, result),
        Outcome::EmitAll(all) => all.iter().try_for_each(|Output { to, body }| match to {
            None => write(None, body),
            Some(name) => match signature.outputs.position(name) {
                None => Err(unknown_output(name, signature.outputs)),
                number => write(number, body),
            },
        }),
        Outcome::Drop | Outcome::Retry(_) | Outcome::Reject(_) => Ok(()),
    };
    if written.is_err() {
        results.back_to(&before);
    }
    written
}

/// A sentence about a result for an output that is not configured.
fn unknown_output(name: &str, outputs: &Outputs) -> String {
    let cut = name.char_indices().nth(NAME_CHARS_MAX).map_or(name, |(end, _)| &name[..end]);
    let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let known = match known[..] {
        [] => "no named output is configured".to_owned(),
        _ => format!("the configured outputs are {}", known.join(", ")),
    };
    format!(
        "the plugin's result is for the output {cut:?}, which is not configured; {known}; \
         a section [outputs.NAME] of the configuration file adds one, and a result without a name goes to the main output"
    )
}

/// Processes the messages of one consumer, with an instance of the version in use.
#[derive(Debug)]
pub struct Processor {
    versions: Arc<Versions>,
    orders: watch::Receiver<Orders>,
    /// Version of the instance.
    version: Arc<Version>,
    instance: Instance,
    consumer_id: Arc<str>,
    /// Messages and failures since the last `add_up`.
    tally: (u64, u64),
    /// The same for the breaker: of a message that fails, only the first attempt counts.
    first: (u64, u64),
    /// Whether the next message is a single one that is tried.
    is_try: bool,
    /// Measures the calls, if somebody may ask.
    stopwatch: Option<Stopwatch>,
    /// Memory of the instance after the last delivery. `None` until the version has had one here.
    memory_bytes: Option<usize>,
}

impl Processor {
    /// A processor with a fresh instance, for the consumer with this id.
    ///
    /// # Errors
    /// When the instance cannot be created.
    pub async fn start(versions: Arc<Versions>, consumer_id: Arc<str>) -> Result<Processor, Failure> {
        let mut orders = versions.subscribe();
        let version = orders.borrow_and_update().version.clone();
        let instance = version.plugin.instantiate(consumer_id.clone()).await?;
        Ok(Processor {
            versions,
            orders,
            version,
            instance,
            consumer_id,
            tally: (0, 0),
            first: (0, 0),
            is_try: false,
            stopwatch: None,
            memory_bytes: None,
        })
    }

    /// Measures the calls of the consumer with this number.
    #[must_use]
    pub fn measuring(self, measured: Option<&Arc<Measured>>, number: u32) -> Processor {
        let digest = self.version.plugin.digest();
        let stopwatch = measured.map(|measured| Stopwatch::new(measured.clone(), digest, number));
        Processor { stopwatch, ..self }
    }

    /// The wanted number of consumers.
    #[must_use]
    pub fn consumers(&self) -> u32 {
        self.orders.borrow().consumers
    }

    /// Waits for a change of version or number of consumers. The future may be dropped at any moment.
    pub async fn changed(&mut self) {
        // The channel cannot close, because this processor owns the sender through `versions`.
        let _ = self.orders.changed().await;
        self.adopt();
    }

    /// Switches to the version in use if that has changed. Called before every message, so the check has to be cheap.
    pub fn follow(&mut self) {
        if self.orders.has_changed().unwrap_or(false) {
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        let version = self.orders.borrow_and_update().version.clone();
        if version.plugin.generation() != self.version.plugin.generation() {
            self.add_up();
            // The new instance is created with its first message, after the old one is gone: a swap does not need
            // memory for two instances of each consumer.
            self.instance = version.plugin.instance_to_be(self.consumer_id.clone());
            self.memory_bytes = None;
            if let Some(stopwatch) = &mut self.stopwatch {
                stopwatch.follow(version.plugin.digest());
            }
        }
        self.version = version;
    }

    /// The version for the next message.
    #[must_use]
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// Processes a message and adds its results to `results`.
    pub async fn process(&mut self, input: Input<'_>, signature: Signature<'_>, results: &mut Results) -> Processed {
        self.follow();
        let outcome = {
            // Pinned here, so that this future has room for one call and not for two.
            let call = pin!(call(&mut self.instance, self.version.plugin.digest(), input, signature, results));
            match &mut self.stopwatch {
                Some(stopwatch) => stopwatch.time(call).await,
                None => call.await,
            }
        };
        self.tally.0 += 1;
        let is_try = std::mem::take(&mut self.is_try);
        if self.version.probation.is_some() {
            // A rollback is decided on all messages so far.
            self.add_up();
        }
        if let Err(failure) = &outcome {
            self.tally.1 += 1;
            // Boxed, because this call is rare and up to ten thousand consumers each hold this future.
            if let Some(processed) = Box::pin(self.ask_the_version_before(input, signature, results, failure)).await {
                return processed;
            }
        }
        let is_excused = self.learn(&outcome, input.attempt, is_try);
        Processed { outcome, instead: None, is_excused }
    }

    /// What to do with the next message: without a plugin that processes messages they wait. `may_try` says whether no message of
    /// the delivery was tried yet.
    pub fn turn(&mut self, may_try: &mut bool) -> Turn {
        let turn = self.versions.breaker().turn(*may_try);
        self.is_try = turn == Turn::Try;
        *may_try &= !self.is_try;
        turn
    }

    /// Adds an outcome to what decides whether the plugin gets messages. Returns whether a failure is excused.
    fn learn(&mut self, outcome: &Result<Outcome, Failure>, attempt: u32, is_try: bool) -> bool {
        if is_try {
            self.versions.tried(outcome.is_err());
            return outcome.is_err();
        }
        match outcome {
            Ok(_) => {
                self.first.0 += 1;
                false
            }
            Err(failure) => {
                let first = u64::from(attempt == 1);
                let (messages, failures) = std::mem::take(&mut self.first);
                let counts = (messages + first, failures + first);
                self.versions.count(&self.version, counts, Some(&failure.to_string()));
                self.versions.breaker().is_open()
            }
        }
    }

    /// Gives a message that a version on probation has failed to the previous version. `None` if the previous version
    /// fails as well, or if no version is on probation.
    async fn ask_the_version_before(
        &mut self,
        input: Input<'_>,
        signature: Signature<'_>,
        results: &mut Results,
        failure: &Failure,
    ) -> Option<Processed> {
        let before = self.version.probation.as_ref()?.before();
        let mut instance = before.plugin.instance_to_be(self.consumer_id.clone());
        let outcome = call(&mut instance, before.plugin.digest(), input, signature, results).await.ok()?;
        self.versions.regressed(&self.version, input.id, &failure.to_string());
        Some(Processed { outcome: Ok(outcome), instead: Some(before.clone()), is_excused: false })
    }

    /// Reports what this number of messages took, one after the other. The first messages with a version do not count, because the
    /// instance starts with them.
    pub fn observe(&mut self, messages: usize, took: Duration) {
        let own = took.saturating_sub(self.instance.take_time_of_others());
        let memory_bytes = self.instance.memory_bytes();
        // An instance without memory was given up, or is one for each message.
        let Some(before) = self.memory_bytes.replace(memory_bytes) else { return };
        let growth = if before > 0 { memory_bytes.saturating_sub(before) } else { 0 };
        self.version.record.costs.add(messages as u64, own, growth as u64);
        if self.version.probation.is_some() {
            self.versions.compare(&self.version);
        }
    }

    /// Adds messages and failures of the instance to the record of its version.
    pub fn add_up(&mut self) {
        let (messages, failures) = std::mem::take(&mut self.tally);
        if messages > 0 {
            self.version.record.add(messages, failures);
        }
        let first = std::mem::take(&mut self.first);
        if first.0 > 0 {
            self.versions.count(&self.version, first, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, NamedOutput};

    #[test]
    fn several_results_are_written_all_or_not_at_all() {
        let output = Config::default().output;
        let outputs = Outputs::default();
        let signature = Signature { consumer_id: "h/1", output: &output, outputs: &outputs };
        let mut results = Results::default();
        let mut written = |outcome| {
            let error = write(
                &outcome,
                "abc",
                Input { id: "m", body: "{}", attempt: 1, token: "5-a", trace_id: None, session: None },
                signature,
                &mut results,
            )
            .err();
            (results.len(), error.is_some())
        };
        let good = || r#"{"a":1}"#.to_string();
        let main = |body: &str| Output::main(body.to_owned());
        assert_eq!(written(Outcome::Emit(good())), (1, false));
        assert_eq!(written(Outcome::EmitAll(vec![main(&good()), main("nonsense")])), (1, true));
        assert_eq!(written(Outcome::EmitAll(vec![main(&good()), main(&good())])), (3, false));
        assert_eq!(written(Outcome::EmitAll(vec![])), (3, false));
        assert_eq!(written(Outcome::Emit("[]".into())), (3, true));
        assert_eq!(written(Outcome::Drop), (3, false));
    }

    #[test]
    fn a_result_goes_to_the_output_that_it_names_or_nothing_is_written() {
        let output = Config::default().output;
        let named = |name: &str| NamedOutput { name: name.to_owned(), key: format!("s:{name}"), length_max: 0 };
        let outputs: Outputs = ["fraud", "audit"].map(named).into_iter().collect();
        let signature = Signature { consumer_id: "h/1", output: &output, outputs: &outputs };
        let mut results = Results::default();
        let mut written = |to: &[Option<&str>]| {
            let all = to.iter().map(|to| Output { to: to.map(str::to_owned), body: "{}".to_owned() }).collect();
            let input = Input { id: "m", body: "{}", attempt: 1, token: "5-a", trace_id: None, session: None };
            let problem = write(&Outcome::EmitAll(all), "abc", input, signature, &mut results).err();
            let named: Vec<_> = results.named().map(|(number, entries)| (number, entries.len())).collect();
            (results.main.len(), named, problem)
        };
        assert_eq!(written(&[Some("fraud"), None, Some("audit"), Some("fraud")]), (1, vec![(0, 1), (1, 2)], None));
        let (main, named, problem) = written(&[None, Some("audit"), Some("frau")]);
        assert_eq!((main, named), (1, vec![(0, 1), (1, 2)]), "as before");
        let problem = problem.unwrap();
        assert!(
            problem.contains("\"frau\"") && problem.contains("the configured outputs are audit, fraud;"),
            "{problem}"
        );
        let long = unknown_output(&"x\n".repeat(1_000), &Outputs::default());
        assert!(long.len() < 400 && long.contains("no named output is configured"), "{long}");
    }
}

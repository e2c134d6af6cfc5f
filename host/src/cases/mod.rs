//! Cases: messages with expected outcomes. Cases are read from a file, tried on a plugin like in a running host, and
//! compared. This room knows no command line and no terminal, and uses no Redis.

pub(crate) mod case;
mod emitted;
pub(crate) mod json;
pub(crate) mod outcome;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, MessageConfig, OutputConfig, Outputs};
use crate::message;
use crate::plugin::state::{Memory, Session};
use crate::plugin::{Failure, Instance, Plugin};
use crate::processor::{Input, Signature, call};
use crate::redis::store::results::Results;
use crate::time::unix_ms;
use case::Case;
use outcome::{Came, End};

/// Consumer id for the plugin's log lines.
const CONSUMER_ID: &str = "test";

/// Number of failures after which no further case is tried. More failures would not fit a log line, and each case may
/// take the plugin's whole time limit.
const FAILURES_MAX: usize = 3;

/// The cases of a file. Every case has an expectation.
#[derive(Debug)]
pub struct Cases(Vec<Case>);

impl Cases {
    /// Reads cases from a file, one JSON object a line, as described by `host test --help`.
    ///
    /// # Errors
    /// A sentence for each bad line, or for a file that cannot be read.
    pub fn read(path: &Path) -> Result<Cases, Vec<String>> {
        let shown = path.display().to_string();
        let text = fs::read(path).map_err(|error| vec![format!("cannot read the cases in {shown}: {error}")])?;
        Ok(Cases(case::read(&text, &shown, false)?))
    }

    /// Tries the cases in order on a separate instance. Returns a sentence for each of the first few failures, or
    /// nothing if all cases pass.
    pub async fn failures(&self, plugin: &Plugin, config: &Config) -> Vec<String> {
        let mut bench = match Bench::start(plugin, config).await {
            Ok(bench) => bench,
            Err(failure) => return vec![failure.to_string()],
        };
        let mut failures = Vec::new();
        for case in &self.0 {
            if failures.len() == FAILURES_MAX {
                break;
            }
            let came = bench.process(&case.payload, case.attempt).await.came;
            let differences = case.expected.as_ref().map(|expected| expected.differences(&came)).unwrap_or_default();
            match &differences[..] {
                [] => {}
                [only] => failures.push(format!("{case}: {only}")),
                [first, others @ ..] => failures.push(format!("{case}: {first} (and {} more)", others.len())),
            }
        }
        failures
    }
}

/// The plugin under test: an instance like that of a consumer.
pub(crate) struct Bench {
    instance: Instance,
    digest: String,
    limits: MessageConfig,
    output: OutputConfig,
    outputs: Outputs,
    /// Collects results like a consumer; the results are not written to Redis.
    results: Results,
    /// The state that the messages share, in memory, and what a message does to it.
    state: Memory,
    session: Arc<Session>,
}

/// Outcome of a tried message.
pub(crate) struct Tried {
    pub(crate) came: Came,
    /// Time inside the plugin; `None` if the plugin was not called.
    pub(crate) time: Option<Duration>,
    /// Memory of the instance afterwards; 0 if the instance is gone.
    pub(crate) memory_bytes: usize,
}

impl Bench {
    pub(crate) async fn start(plugin: &Plugin, config: &Config) -> Result<Bench, Failure> {
        let instance = plugin.instantiate(CONSUMER_ID.into()).await?;
        let state = Memory::default();
        Ok(Bench {
            instance,
            digest: plugin.digest().to_owned(),
            limits: config.message.clone(),
            output: config.output.clone(),
            outputs: config.outputs.clone(),
            results: Results::default(),
            session: Arc::new(Session::new(Box::new(state.clone()), Arc::new(config.allow.keyvalue.clone()))),
            state,
        })
    }

    /// Processes a payload like the intake and a consumer.
    pub(crate) async fn process(&mut self, payload: &str, attempt: u32) -> Tried {
        let id = match message::read_id(payload.as_bytes(), &self.limits) {
            Ok(id) => id,
            Err(refusal) => {
                let reason = format!("{}: {}", refusal.reason, refusal.sentence);
                let memory_bytes = self.instance.memory_bytes();
                return Tried { came: Came::End(End::NoMessage, reason), time: None, memory_bytes };
            }
        };
        let start = Instant::now();
        self.results.clear();
        let token = unix_ms(SystemTime::now()).to_string();
        let input =
            Input { id: &id, body: payload, attempt, token: &token, trace_id: None, session: Some(&self.session) };
        let signature = Signature { consumer_id: CONSUMER_ID, output: &self.output, outputs: &self.outputs };
        let outcome = call(&mut self.instance, &self.digest, input, signature, &mut self.results).await;
        let time = Some(start.elapsed());
        // Nobody else has the state, so nothing that was read can have changed.
        self.state.commit(self.session.effects());
        self.session.clear();
        let came = Came::of(outcome);
        Tried { came, time, memory_bytes: self.instance.memory_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Engine;

    /// What fails of these cases on the puppet.
    async fn failures(cases: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cases.jsonl");
        fs::write(&file, cases).unwrap();
        let puppet = crate::plugin::tests::guest("puppet");
        let config = Config::default();
        let plugin = Engine::new(&config.plugin_limits, 1).unwrap().load(&puppet, &config.plugin_config).await.unwrap();
        Cases::read(&file).unwrap().failures(&plugin, &config).await
    }

    #[tokio::test]
    async fn nothing_is_told_about_cases_that_pass() {
        let passing = r#"{"message": {"message_id": "1"}, "emit": {}}
{"message": {"message_id": "2", "do": "trap"}, "trap": true}
{"message": {"message_id": "3", "do": "raw", "result": "nonsense"}, "bad-result": true}
{"raw": "nonsense", "no-message": "not-json"}"#;
        assert_eq!(failures(passing).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_first_failures_are_told_in_a_line_each() {
        let failing = r#"{"message": {"message_id": "1", "a": 1.0}, "emit": {"a": 1}}
{"message": {"message_id": "2"}, "emit": {}}

{"name": "wide\u001b", "message": {"message_id": "3", "b": 1, "c": 2}, "emit": {}}
{"name": "trap", "message": {"message_id": "4", "do": "drop"}, "trap": "unreachable"}
{"message": {"message_id": "5", "do": "sleep"}, "drop": true}"#;
        assert_eq!(
            failures(failing).await,
            [
                "line 1: a expected 1, got 1.0",
                r#"line 4 "wide\u001b": b expected nothing, got 1 (and 1 more)"#,
                r#"line 5 "trap": outcome expected trap: "unreachable", got drop: true"#,
            ]
        );
    }

    #[test]
    fn a_file_without_expectations_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cases.jsonl");
        assert!(Cases::read(&file).unwrap_err()[0].starts_with("cannot read the cases in /"));
        fs::write(&file, "{\"message\": {}}\n{}\n").unwrap();
        let problems = Cases::read(&file).unwrap_err();
        assert!(problems.len() == 2 && problems[0].contains("cases.jsonl:1: nothing is expected"), "{problems:?}");
    }
}

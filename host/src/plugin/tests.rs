//! The module with real guests, which the tests build from source.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Context, Engine, Failure, Grant, Import, Instance, LoadError, Outcome, Output, Plugin};
use crate::config::{Config, PluginConfig, PluginLimits};

mod limits;

#[path = "../../../tests/support/guests.rs"]
#[expect(dead_code, reason = "shared with the black-box tests, which use all of it")]
mod guests;

/// The repository's root, for the module above.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The component of this name, built from source.
pub(crate) fn guest(name: &str) -> PathBuf {
    match name {
        "enrich" => guests::enrich(),
        _ => guests::puppet().with_file_name(name).with_extension("wasm"),
    }
}

fn limits() -> PluginLimits {
    Config::default().plugin_limits
}

async fn load(name: &str, limits: &PluginLimits) -> Result<Plugin, LoadError> {
    Engine::new(limits, 4).unwrap().load(&guest(name), &PluginConfig::default()).await
}

/// A configuration with these keys and values.
fn configuration(pairs: &[(&str, &str)]) -> PluginConfig {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn instance(name: &str, limits: &PluginLimits) -> Instance {
    load(name, limits).await.unwrap().instantiate("host-1:0".into()).await.unwrap()
}

async fn order(instance: &mut Instance, order: Value) -> Result<Outcome, Failure> {
    instance.process("1", &order.to_string(), 1, None).await
}

/// Calls that this instance has served since it was made.
async fn calls(instance: &mut Instance) -> u64 {
    let Ok(Outcome::Emit(result)) = order(instance, json!({"do": "state"})).await else { panic!("no result") };
    serde_json::from_str::<Value>(&result).unwrap()["calls"].as_u64().unwrap()
}

async fn load_error(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plugin.wasm");
    std::fs::write(&path, bytes).unwrap();
    Engine::new(&limits(), 1).unwrap().load(&path, &PluginConfig::default()).await.unwrap_err().to_string()
}

/// The bytes with every occurrence of `old` replaced by text of the same length.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for start in 0..=bytes.len() - old.len() {
        if bytes[start..].starts_with(old) {
            bytes[start..start + new.len()].copy_from_slice(new);
        }
    }
    bytes
}

#[tokio::test]
async fn enrich_adds_a_property_and_changes_nothing_else() {
    let mut instance = instance("enrich", &limits()).await;
    let body = r#"{"z":1.0,"message_id":"1","big":123456789012345678901234567890,"e":1E+5,"nested":{"b" : [1, 2], "a":null},"u":"\u00e9"}"#;
    let Ok(Outcome::Emit(result)) = instance.process("1", body, 1, None).await else { panic!("no result") };
    let added = result.strip_prefix(&body[..body.len() - 1]).expect("everything as it was, in order");
    let value = added.strip_prefix(r#","random_property":""#).and_then(|rest| rest.strip_suffix("\"}")).unwrap();
    assert!(value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");

    let Ok(Outcome::Emit(other)) = instance.process("1", body, 1, None).await else { panic!("no result") };
    assert_ne!(result, other, "random");

    let body = r#"{"random_property":{"old":true},"message_id":"2"}"#;
    let Ok(Outcome::Emit(result)) = instance.process("2", body, 1, None).await else { panic!("no result") };
    assert!(result.starts_with(r#"{"random_property":""#) && result.ends_with(r#"","message_id":"2"}"#), "{result}");
}

#[tokio::test]
async fn every_outcome_arrives() {
    let mut puppet = instance("puppet", &limits()).await;
    let body = r#"{"message_id": "1",  "n": 1.0}"#;
    assert_eq!(puppet.process("1", body, 1, None).await, Ok(Outcome::Emit(body.into())));
    let raw = json!({"do": "raw", "result": "no { json"});
    assert_eq!(order(&mut puppet, raw).await, Ok(Outcome::Emit("no { json".into())));
    let many = json!({"do": "emit-all", "results": ["{}", "[]"]});
    assert_eq!(
        order(&mut puppet, many).await,
        Ok(Outcome::EmitAll(vec![Output::main("{}".into()), Output::main("[]".into())]))
    );
    assert_eq!(order(&mut puppet, json!({"do": "drop"})).await, Ok(Outcome::Drop));
    assert_eq!(order(&mut puppet, json!({"do": "retry"})).await, Ok(Outcome::Retry(None)));
    let later = json!({"do": "retry", "delay_ms": 250});
    assert_eq!(order(&mut puppet, later).await, Ok(Outcome::Retry(Some(250))));
    let reject = json!({"do": "reject", "reason": "bad"});
    assert_eq!(order(&mut puppet, reject).await, Ok(Outcome::Reject("bad".into())));
    let third = puppet.process("1", r#"{"do":"attempt"}"#, 3, None).await;
    assert_eq!(third, Ok(Outcome::Emit(r#"{"attempt":3}"#.into())));
    let wait = json!({"do": "wait", "ms": 5});
    assert_eq!(order(&mut puppet, wait.clone()).await, Ok(Outcome::Emit(wait.to_string())));
}

#[tokio::test]
async fn a_component_of_an_older_contract_keeps_its_outcomes() {
    let engine = Engine::new(&limits(), 1).unwrap();
    let old = engine.inspect(&guest("contract_0_1_0"), &configuration(&[("greeting", "hello")])).await.unwrap();
    assert_eq!(old.contract.as_deref(), Some("host:plugin/processor@0.1.0"));
    let mut old = old.plugin.unwrap().instantiate("host-1:0".into()).await.unwrap();
    let main = |body: &str| Output::main(body.to_owned());
    for (word, outcome) in [
        ("echo", Ok(Outcome::Emit(r#"{"do":"echo"}"#.into()))),
        ("emit-all", Ok(Outcome::EmitAll(vec![main(r#"{"n":1}"#), main(r#"{"n":2}"#)]))),
        ("drop", Ok(Outcome::Drop)),
        ("retry", Ok(Outcome::Retry(Some(1)))),
        ("reject", Ok(Outcome::Reject("1 is not wanted".into()))),
        ("fail", Err(Failure::Failed("1 cannot be done".into()))),
        ("config", Ok(Outcome::Emit(r#"{"greeting":"hello"}"#.into()))),
    ] {
        assert_eq!(order(&mut old, json!({"do": word})).await, outcome, "{word}");
    }
}

#[tokio::test]
async fn results_name_their_outputs() {
    let mut puppet = instance("puppet", &limits()).await;
    let results = json!(["{}", {"to": "fraud", "body": "[]"}]);
    let expected = vec![Output::main("{}".into()), Output { to: Some("fraud".into()), body: "[]".into() }];
    let outcome = order(&mut puppet, json!({"do": "emit-all", "results": results})).await;
    assert_eq!(outcome, Ok(Outcome::EmitAll(expected)));
}

#[tokio::test]
async fn a_plugin_asks_for_the_context_of_its_call() {
    let plugin = load("puppet", &limits()).await.unwrap().with_generation(7);
    let mut puppet = plugin.instantiate("host-1/1".into()).await.unwrap();
    assert!(puppet.asks_for_context());
    let body = r#"{"do":"context"}"#;
    let context = Context { received_ms: 1_700_000_000_123, consumer_id: "host-2/1" };
    let mut told = async |context| {
        let Ok(Outcome::Emit(text)) = puppet.process("1", body, 1, context).await else { panic!("no result") };
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let expected = json!({
        "channel": "messages:published", "received_ms": 1_700_000_000_123_u64, "consumer": "host-2/1", "generation": 7,
    });
    assert_eq!(told(Some(context)).await, expected);
    let before = crate::time::unix_ms(std::time::SystemTime::now());
    let mut fresh = plugin.instantiate("host-1/1".into()).await.unwrap();
    let Ok(Outcome::Emit(text)) = fresh.process("1", body, 1, None).await else { panic!("no result") };
    let values: Value = serde_json::from_str(&text).unwrap();
    assert!(values["received_ms"].as_u64().unwrap() >= before && values["consumer"] == "host-1/1", "{values}");
    assert!(!instance("enrich", &limits()).await.asks_for_context(), "it does not import the interface");
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_a_bad_result_and_no_trap() {
    let mut puppet = instance("puppet", &limits()).await;
    for place in ["emit", "emit-all", "reject", "fail"] {
        let failure = order(&mut puppet, json!({"do": "not-utf-8", "place": place})).await.unwrap_err();
        assert_eq!(failure, Failure::NotText, "{place}");
    }
    // Handed to the host in the middle of the call it is a mistake of another kind.
    let failure = order(&mut puppet, json!({"do": "not-utf-8", "place": "log"})).await.unwrap_err();
    assert!(matches!(failure, Failure::Trapped(_)), "{failure}");
}

#[tokio::test]
async fn a_returned_failure_keeps_the_instance() {
    let mut puppet = instance("puppet", &limits()).await;
    assert_eq!(calls(&mut puppet).await, 1);
    let failure = order(&mut puppet, json!({"do": "fail", "reason": "no\nway"})).await.unwrap_err();
    assert_eq!(failure, Failure::Failed("no\\nway".into()));
    assert_eq!(calls(&mut puppet).await, 3);
}

#[tokio::test]
async fn a_trap_is_followed_by_a_fresh_instance() {
    let mut puppet = instance("puppet", &limits()).await;
    assert_eq!(calls(&mut puppet).await, 1);
    let trap = order(&mut puppet, json!({"do": "trap"})).await.unwrap_err().to_string();
    assert!(trap.starts_with("the plugin trapped:") && trap.contains("unreachable"), "{trap}");
    assert_eq!(calls(&mut puppet).await, 1);
}

#[tokio::test]
async fn a_panic_is_named() {
    let mut puppet = instance("puppet", &limits()).await;
    order(&mut puppet, json!({"do": "print", "text": "of an earlier call"})).await.unwrap();
    let panic = order(&mut puppet, json!({"do": "panic", "reason": "the reason"})).await.unwrap_err().to_string();
    assert!(panic.contains("unreachable") && panic.contains("the reason"), "{panic}");
    assert!(!panic.contains("earlier") && !panic.contains("RUST_BACKTRACE"), "{panic}");
}

#[tokio::test]
async fn a_call_that_is_dropped_costs_the_instance() {
    let mut puppet = instance("puppet", &limits()).await;
    assert_eq!(calls(&mut puppet).await, 1);
    let left = tokio::time::timeout(Duration::from_millis(20), order(&mut puppet, json!({"do": "sleep"}))).await;
    assert!(left.is_err());
    assert_eq!(calls(&mut puppet).await, 1);
}

/// Lines that a subscriber has written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_plugin_logs_under_its_consumers_id() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // For all threads: events that another test's thread comes by first would stay off with a scoped one.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::callsite::rebuild_interest_cache();
    let plugin = load("puppet", &limits()).await.unwrap();
    let mut puppet = plugin.instantiate("logger:0".into()).await.unwrap();
    let line = json!({"do": "log", "level": "warn", "context": "billing", "text": "first\nsecond"});
    order(&mut puppet, line).await.unwrap();
    order(&mut puppet, json!({"do": "log", "level": "critical", "text": "x".repeat(10_000)})).await.unwrap();
    order(&mut puppet, json!({"do": "print", "text": "printed"})).await.unwrap();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(r#"consumer="logger:0""#)).collect();
    let [warning, critical, stdout, stderr] = lines[..] else { panic!("{lines:?}") };
    for part in ["WARN", r"first\nsecond", "plugin: ", r#"context="billing""#] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert!(critical.contains("ERROR") && critical.contains("xx … (10000 bytes)"), "{critical}");
    assert!(critical.len() < 9_000, "{}", critical.len());
    assert!(
        stdout.contains("INFO") && stdout.contains(r#"context="stdout""#) && stdout.contains("printed"),
        "{stdout}"
    );
    assert!(stderr.contains(r#"context="stderr""#) && stderr.contains("printed"), "{stderr}");
}

#[tokio::test]
async fn a_plugin_reads_its_own_configuration() {
    let configuration = configuration(&[("url", "http://é/?a=b\n"), ("empty", "")]);
    let plugin = Engine::new(&limits(), 1).unwrap().load(&guest("puppet"), &configuration).await.unwrap();
    let mut puppet = plugin.instantiate("host-1:0".into()).await.unwrap();
    for (question, result) in [
        (json!({"do": "config", "key": "url"}), json!({"value": "http://é/?a=b\n"})),
        (json!({"do": "config", "key": "empty"}), json!({"value": ""})),
        (json!({"do": "config", "key": "URL"}), json!({"value": null})),
        (json!({"do": "config"}), json!({"values": {"empty": "", "url": "http://é/?a=b\n"}})),
    ] {
        assert_eq!(order(&mut puppet, question).await, Ok(Outcome::Emit(result.to_string())));
    }
    assert!(!format!("{plugin:?}{puppet:?}").contains("http"));
}

#[tokio::test]
async fn a_digest_is_that_of_the_file() {
    use sha2::Digest;
    let plugin = load("puppet", &limits()).await.unwrap();
    let digest = sha2::Sha256::digest(std::fs::read(guest("puppet")).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(plugin.digest(), digest);
    assert_eq!(plugin.short_digest(), &digest[..12]);
}

#[tokio::test]
async fn load_errors_say_what_to_do() {
    let missing = Engine::new(&limits(), 1).unwrap().load(Path::new("no-such.wasm"), &PluginConfig::default()).await;
    let missing = missing.unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the plugin no-such.wasm: No such file"), "{missing}");

    let text = load_error(b"{}").await;
    assert!(text.contains("it is not WebAssembly"), "{text}");

    let module = load_error(b"\0asm\x01\0\0\0").await;
    assert!(module.contains("is a core module") && module.contains("wasm32-wasip2"), "{module}");

    let damaged = load_error(b"\0asm\x0d\0\x01\0damaged").await;
    assert!(damaged.starts_with("cannot compile the plugin"), "{damaged}");

    let wrong = load("wrong-world", &limits()).await.unwrap_err().to_string();
    assert!(wrong.contains("does not export host:plugin/processor@1.0.0, but wasi:cli/run@0.2."), "{wrong}");

    let future = std::fs::read(guest("enrich")).unwrap();
    let future = load_error(&replaced(&future, b"host:plugin/processor@1.0.0", b"host:plugin/processor@2.0.0")).await;
    for part in ["it exports host:plugin/processor@2.0.0", "versions 1.x and 0.1.x", "wit/"] {
        assert!(future.contains(part), "{part}: {future}");
    }

    let unknown = load("unknown_import", &limits()).await.unwrap_err().to_string();
    assert!(unknown.contains("it imports example:thing/api, which this host does not provide"), "{unknown}");
}

#[tokio::test]
async fn an_inspection_tells_what_a_plugin_is() {
    let engine = Engine::new(&limits(), 1).unwrap();
    let path = guest("puppet");
    let puppet = engine.inspect(&path, &PluginConfig::default()).await.unwrap();
    assert!(puppet.problems.is_empty(), "{:?}", puppet.problems);
    assert_eq!(puppet.bytes as u64, std::fs::metadata(&path).unwrap().len());
    assert_eq!(puppet.contract.as_deref(), Some("host:plugin/processor@1.0.0"));
    assert_eq!(puppet.exports, ["host:plugin/processor@1.0.0"]);
    let has = |role: &str, name: &str| puppet.producers.iter().any(|made| made.role == role && made.name == name);
    assert!(has("language", "Rust") && has("processed-by", "rustc"), "{:?}", puppet.producers);
    let grant = |beginning: &str| {
        puppet.imports.iter().find(|import| import.name.starts_with(beginning)).map(|import| import.grant.clone())
    };
    assert_eq!(grant("wasi:logging/logging"), Some(Grant::Granted));
    assert_eq!(grant("wasi:config/store"), Some(Grant::Granted));
    assert!(matches!(grant("wasi:cli/environment"), Some(Grant::Empty(_))), "{:?}", puppet.imports);
    assert!(puppet.start_time.is_some() && puppet.memory_bytes.unwrap() >= 64 << 10);
    assert_eq!(puppet.plugin.unwrap().digest(), puppet.digest);
}

#[tokio::test]
async fn an_inspection_tells_what_is_missing() {
    let engine = Engine::new(&limits(), 1).unwrap();
    let command = engine.inspect(&guest("wrong-world"), &PluginConfig::default()).await.unwrap();
    assert_eq!(command.contract, None);
    assert!(matches!(command.problems[..], [LoadError::WrongWorld { .. }]), "{:?}", command.problems);
    assert!(command.plugin.is_none() && command.start_time.is_none());

    let unknown = engine.inspect(&guest("unknown_import"), &PluginConfig::default()).await.unwrap();
    assert!(matches!(unknown.problems[..], [LoadError::UnknownImports { .. }]), "{:?}", unknown.problems);
    let wanted = |import: &&Import| matches!(import.grant, Grant::Missing { .. });
    let wanted: Vec<&Import> = unknown.imports.iter().filter(wanted).collect();
    assert!(matches!(wanted[..], [import] if import.name.starts_with("example:thing/api")), "{wanted:?}");
}

#[tokio::test]
async fn http_is_linked_and_denied() {
    let engine = Engine::new(&limits(), 1).unwrap();
    let caller = engine.inspect(&guest("http"), &PluginConfig::default()).await.unwrap();
    let denied = caller.imports.iter().find(|import| import.name.starts_with("wasi:http/")).unwrap();
    assert_eq!(denied.grant, Grant::Empty("a call is a trap"));
    let mut instance = caller.plugin.unwrap().instantiate("host-1:0".into()).await.unwrap();
    assert_eq!(order(&mut instance, json!({})).await, Ok(Outcome::Emit("{}".into())));
    let failure = order(&mut instance, json!({"do": "request"})).await.unwrap_err().to_string();
    assert!(failure.contains("the plugin called wasi:http/types@0.2.") && failure.contains("not granted"), "{failure}");
}

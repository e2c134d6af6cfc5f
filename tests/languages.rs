//! The examples beside `enrich` in Rust, and their builds. The tools come from the lock files of the examples, as
//! for a user. `conformance` has what every language promises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::host::{Ended, Launch};
use crate::support::languages::run;
use crate::support::{Host, Publisher, Redis, repository};

const EXAMPLES: [&str; 10] = [
    "count",
    "enrich-typescript",
    "enrich-python",
    "enrich-go",
    "enrich-c",
    "enrich-zig",
    "redact",
    "route",
    "validate",
    "filter",
];

/// The component of an example, as `just plugins` builds it.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(repository().join(".ci/plugins"));
        let (success, stderr) = run(build.args(EXAMPLES).env("HOST_BINARY", env!("CARGO_BIN_EXE_host")));
        assert!(success, "{stderr}");
    });
    repository().join("plugins/dist").join(name).with_extension("wasm")
}

pub fn host_test(plugin: &Path, more: &[&str]) -> Ended {
    let plugin = plugin.to_str().expect("a path of text");
    Launch::subcommand("test").words(&[plugin]).words(more).env("HOST_PLUGIN_CONFIG", "currency=EUR").run()
}

#[test]
fn every_example_passes_its_cases() {
    for name in EXAMPLES {
        let folder = repository().join("plugins").join(name);
        let [cases, config] =
            ["cases.jsonl", "host.toml"].map(|file| folder.join(file).to_str().expect("a path of text").to_owned());
        let mut words = vec![&*cases];
        if Path::new(&config).exists() {
            words.extend(["--config", &*config]);
        }
        let ended = host_test(&example(name), &words);
        assert_eq!(ended.code, Some(0), "{name}: {}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn every_example_gets_instances_in_slots_and_is_compiled_once() {
    for name in EXAMPLES {
        let plugin = example(name);
        let mut words = vec![plugin.to_str().expect("a path of text")];
        if name == "filter" {
            // It does not start without a rule.
            words.extend(["--plugin-config", "rule=total > 100"]);
        }
        let ended = Launch::subcommand("check").words(&words).run();
        assert_eq!(ended.code, Some(0), "{name}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("instances  in slots that a host reserves at its start"), "{}", ended.stdout);
    }
}

#[test]
fn a_host_does_not_keep_the_memory_that_the_compiler_took() {
    let redis = Redis::start();
    let cache = redis.folder().join("cache");
    let launch = || Host::on(&redis).arg("--plugin", example("enrich-typescript")).env("XDG_CACHE_HOME", &cache);
    let after_a_start = || {
        let host = launch().ready(&redis, 2);
        let (bytes, log) = (host.resident_bytes(), host.log());
        assert_eq!(host.stop().code, Some(0));
        (bytes, log.contains("compiling the plugin, because the cache"))
    };
    let (cold, compiled) = after_a_start();
    assert!(compiled, "the first start compiles");
    let (warm, compiled) = after_a_start();
    assert!(!compiled, "the second start does not");
    // A compilation in the same process leaves 60 MB.
    assert!(cold < warm + (20 << 20), "{cold} bytes after compiling, {warm} without");
}

#[test]
fn redact_redacts_the_configured_kinds() {
    let plugin = example("redact");
    let payload = json!({"message_id": "1", "to": "a@example.org", "card": "4111 1111 1111 1111"}).to_string();
    for (kinds, expected) in [
        ("email", json!({"to": "[email]", "card": "4111 1111 1111 1111"})),
        ("card", json!({"to": "a@example.org", "card": "[card]"})),
        ("email, card", json!({"to": "[email]", "card": "[card]"})),
    ] {
        let ended = host_test(&plugin, &["--message", &payload, "--plugin-config", &format!("kinds={kinds}")]);
        let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
        assert_eq!(outcome["emit"], expected, "{kinds}");
    }
    let ended = host_test(&plugin, &["--message", &payload, "--plugin-config", "kinds=email,name"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("ValueError: unknown kind in the configuration `kinds`: name"), "{}", ended.stdout);
}

#[test]
fn validate_takes_a_schema_from_its_configuration() {
    let plugin = example("validate");
    let schema = r#"schema={"required": ["total"], "properties": {"total": {"type": "number", "maximum": 10}}}"#;
    for (payload, expected) in [
        (json!({"message_id": "1", "total": 10}), json!({"emit": {"total": 10}})),
        (json!({"message_id": "1", "total": 11}), json!({"reject": "/total must be <= 10"})),
        (json!({"message_id": "1"}), json!({"reject": "the message must have required property 'total'"})),
    ] {
        let ended = host_test(&plugin, &["--message", &payload.to_string(), "--plugin-config", schema]);
        let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
        assert_eq!(outcome, expected, "{payload}");
    }
}

#[test]
fn every_enrich_adds_a_random_property_in_a_host_and_leaves_the_rest_as_it_was() {
    let redis = Redis::start();
    for name in EXAMPLES.into_iter().filter(|name| name.starts_with("enrich")) {
        let host = Host::on(&redis).arg("--plugin", example(name)).ready(&redis, 2);
        let payload =
            |id: &str| format!(r#"{{"message_id": "{id}", "z": 12.50, "b": [1E400], "10": 9007199254740993}}"#);
        let ids = [1, 2].map(|number| format!("{name}-{number}"));
        Publisher::new(&redis).publish_all(ids.iter().map(|id| payload(id)));
        let [first, second] = ids.map(|id| redis.result_of(&id));
        assert_eq!(first.names(), ["message_id", "consumer_id", "z", "b", "10", "random_property"]);
        assert_eq!((first.text("z"), first.text("b"), first.text("10")), ("12.50", "[1E400]", "9007199254740993"));
        assert_ne!(first.text("random_property"), second.text("random_property"), "{name}");
        assert_eq!(host.stop().code, Some(0));
    }
}

#[test]
fn route_writes_the_lines_of_an_order_and_sends_a_large_order_to_another_output_as_well() {
    let redis = Redis::start();
    let configuration = repository().join("plugins/route/host.toml");
    let launch = Host::on(&redis).arg("--plugin", example("route")).arg("--config", configuration);
    let host = launch.ready(&redis, 2);
    let order = |id: &str, total: &str| {
        let lines = r#"[{"sku": "tea", "price": 12.50}, {"sku": "mug", "price": 1E1}]"#;
        format!(r#"{{"message_id": "{id}", "order": "{id}", "customer": "Ada", "total": {total}, "lines": {lines}}}"#)
    };
    Publisher::new(&redis).publish_all([order("small", "9999.99"), order("large", "10000.00")]);
    redis.wait_for_settled(4);
    for id in ["small", "large"] {
        let lines = redis.results_of(id);
        let prices: Vec<&str> = lines.iter().map(|line| line.text("price")).collect();
        assert_eq!(prices, ["12.50", "1E1"], "{id}");
        assert_eq!(lines[1].names(), ["message_id", "consumer_id", "order", "line", "sku", "price"]);
    }
    let fraud = redis.stream("messages:fraud");
    assert_eq!(fraud.len(), 1, "{fraud:?}");
    assert_eq!((fraud[0].text("message_id"), fraud[0].text("total")), ("large", "10000.00"));
    assert_eq!(host.stop().code, Some(0));
}

/// The words of the contract that a program uses, as TypeScript spells them.
#[test]
fn the_types_of_typescript_name_everything_in_the_contract() {
    let types = fs::read_to_string(repository().join("plugins/enrich-typescript/src/host/wit.d.ts")).expect("read it");
    let contract = fs::read_to_string(repository().join("wit/plugin.wit")).expect("read the contract");
    let mut names = 0;
    let mut expect = |name: &str| {
        names += 1;
        assert!(types.contains(name), "wit.d.ts has no {name}");
    };
    let camel = |name: &str| {
        let mut parts = name.split('-');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + &part[..1].to_uppercase() + &part[1..])
    };
    let in_variant = |line: &str| line.starts_with("        ");
    for line in contract.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let text = line.trim().trim_end_matches([',', ';', '{']).trim();
        if let Some((name, _)) = text.split_once(": func(") {
            expect(&format!("{}(", camel(name)));
        } else if let Some(import) = text.strip_prefix("import ").filter(|import| import.contains(':')) {
            expect(&format!("declare module \"{import}\""));
        } else if in_variant(line) && text.contains(": ") {
            expect(&format!("{}: ", camel(text.split(": ").next().unwrap_or_default())));
        } else if in_variant(line) && !text.is_empty() && text != "}" {
            expect(&format!("tag: \"{}\"", text.split('(').next().unwrap_or_default()));
        }
    }
    assert!(names >= 18, "the contract has more names than {names}");
}

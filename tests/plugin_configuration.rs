//! The plugin's own configuration: its sources, and who can read it.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::support::host::Launch;
use crate::support::{Host, Publisher, Redis, enrich, message};

/// A host whose plugin is configured in all three ways.
fn configured(redis: &Redis) -> Launch {
    let file = redis.folder().join("host.toml");
    let in_file = "[plugin_config]\nall = 'secret of the file'\n\"two.of\" = 'secret of the file'\nfile = 1.50\n";
    fs::write(&file, in_file).expect("write the file");
    let launch = Host::on(redis).arg("--config", file);
    let launch = launch.env("HOST_PLUGIN_CONFIG", "all=secret of the variable\n\ntwo.of=secret=of the variable\n");
    launch.switch("--plugin-config=all=secret of a flag").switch("--plugin-config=empty=")
}

#[test]
fn a_plugin_reads_flags_over_the_environment_over_the_file() {
    let redis = Redis::start();
    let _host = configured(&redis).ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    for (key, value) in [
        ("all", "secret of a flag"),
        ("two.of", "secret=of the variable"),
        ("file", "1.50"),
        ("empty", ""),
        // No source sets this key.
        ("unknown", "null"),
        ("All", "null"),
    ] {
        let id = format!("reads-{key}");
        publisher.publish(message(&id, json!({"do": "config", "key": key})));
        assert_eq!(redis.result_of(&id).text("value"), value, "{key}");
    }
    publisher.publish(message("everything", json!({"do": "config"})));
    let all = r#"{"all":"secret of a flag","empty":"","file":"1.50","two.of":"secret=of the variable"}"#;
    assert_eq!(redis.result_of("everything").text("values"), all);
}

#[test]
fn nothing_is_configured_by_default() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    Publisher::new(&redis).publish(message("everything", json!({"do": "config"})));
    assert_eq!(redis.result_of("everything").text("values"), "{}");
}

#[test]
fn no_value_is_logged_at_any_level() {
    let redis = Redis::start();
    for format in ["text", "json"] {
        let launch = configured(&redis).arg("--log-level", "trace").arg("--log-format", format);
        let host = launch.arg("--report-interval", "100ms").ready(&redis, 2);
        let mut publisher = Publisher::new(&redis);
        let (reads, fails) = (format!("reads-{format}"), format!("traps-{format}"));
        publisher.publish(message(&reads, json!({"do": "config", "key": "all"})));
        redis.result_of(&reads);
        // What went wrong is told in full.
        publisher.publish(message(&fails, json!({"do": "fail"})));
        host.wait_for_log(&fails);
        let ended = host.stop();
        assert!(ended.stderr.contains("TRACE"), "there are lines of the lowest level");
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
        assert!(!ended.stdout.contains("secret"), "{}", ended.stdout);
    }
}

#[test]
fn a_plugin_that_reads_no_configuration_runs_with_one() {
    let redis = Redis::start();
    let _host = configured(&redis).arg("--plugin", enrich()).ready(&redis, 1);
    Publisher::new(&redis).publish(message("enriched", json!({})));
    assert_eq!(redis.result_of("enriched").text("random_property").len(), 16);
}

/// A folder with this text as `host.toml`, and a command of `host` with these words and that file, valid while the
/// folder exists.
fn with_file(text: &str, words: &[&str]) -> (TempDir, Launch) {
    let folder = tempfile::tempdir().expect("make a folder");
    let file = folder.path().join("host.toml");
    fs::write(&file, text).expect("write the file");
    (folder, Launch::bare().words(words).arg("--config", file))
}

/// Standard output of `host config` that must succeed.
fn printed(launch: Launch) -> String {
    let ended = launch.run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

/// Standard error of a call that must be refused.
fn refusal(launch: Launch) -> String {
    let ended = launch.run();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn it_is_printed_without_its_values() {
    let text = "[plugin_config]\nfirst = 'hush'\n\n\"a.b\" = 'hush'\nlast = 'hush'\n";
    let (_folder, call) = with_file(text, &["config", "--sources", "--plugin-config=first=hush=1"]);
    let config = printed(call.env("HOST_PLUGIN_CONFIG", "first=hush\nlast=hush\r\n"));
    let (_, section) = config.split_once("\n[plugin_config]\n").expect("the section is there");
    let (_, keys) = section.split_once("readable for your user only.\n").expect("it is said that values are masked");
    let expected = [
        "host.toml:4:9\n\"a.b\" = \"***\"\n# from: ",
        "--plugin-config\nfirst = \"***\"\n# from: ",
        "HOST_PLUGIN_CONFIG\nlast = \"***\"\n",
    ];
    assert!(keys.ends_with(&expected.concat()) && !config.contains("hush"), "{config}");

    let config = printed(Launch::bare().words(&["config"]));
    assert!(config.ends_with("\n#key = \"value\"\n"), "{config}");
}

#[test]
fn a_masked_value_never_reaches_a_plugin() {
    let masked = printed(Launch::bare().words(&["config", "--plugin-config=a.b=hush", "--plugin-config=c=hush"]));
    let line = masked.lines().position(|line| line == "\"a.b\" = \"***\"").expect("it is masked") + 1;
    for words in [&["--plugin", "p.wasm"][..], &["test", "p.wasm", "--message", "{}"], &["check", "p.wasm"]] {
        let (_folder, call) = with_file(&masked, words);
        let refusal = refusal(call);
        let problem = format!("host.toml:{line}:9: the value of plugin_config.a.b is masked (***)");
        for part in [problem.as_str(), "plugin_config.c is masked", "HOST_PLUGIN_CONFIG or --plugin-config"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }
    let (_folder, call) = with_file(&masked, &["check", "p.wasm"]);
    let ended = call.env("HOST_PLUGIN_CONFIG", "a.b=1\nc=2").run();
    assert_eq!(ended.code, Some(4), "only the plugin is missing: {}", ended.stderr);
}

#[test]
fn what_is_wrong_is_named_by_its_place_and_not_repeated() {
    for (text, problem) in [
        ("[plugin_config]\n list = ['hush']", "host.toml:2:9: plugin_config.list is of type array; it must be text"),
        ("[plugin_config.a]\nb = 'hush'", "host.toml:1:1: plugin_config.a is of type table; it must be text"),
        ("[plugin_config]\n\"\" = 'hush'", "host.toml:2:1: a key of plugin_config is empty"),
        ("plugin_config = 'hush'", "host.toml:1:1: `plugin_config` is a section"),
        ("[plugin_config]\na = 'hush", "host.toml:2:"),
        ("[plugin_config]\na = 'hush'\na = 'hush'", "host.toml:3:1: this is not TOML: duplicate key"),
    ] {
        let (_folder, call) = with_file(text, &["config"]);
        let refusal = refusal(call);
        assert!(refusal.contains(problem) && !refusal.contains("hush"), "{text}: {refusal}");
    }
    for (flag, problem) in [
        ("--plugin-config=hush", "--plugin-config, number 2: there is no `=` in it; write KEY=VALUE"),
        ("--plugin-config==hush", "--plugin-config, number 2: there is no key before the `=`"),
        ("--plugin-config=key = hush", "--plugin-config, number 2: the key `key` has a space beside it"),
        ("--plugin-confg=key=hush", "--plugin-confg"),
        ("--consumers=10001", "--consumers"),
    ] {
        let refusal = refusal(Launch::bare().words(&["config", "--plugin-config=a=hush", flag]));
        assert!(refusal.contains(problem) && !refusal.contains("hush"), "{flag}: {refusal}");
    }
    let refusal = refusal(Launch::bare().words(&["config"]).env("HOST_PLUGIN_CONFIG", "a=1\n\nhush"));
    let problem = "HOST_PLUGIN_CONFIG, number 2: there is no `=`";
    assert!(refusal.contains(problem) && !refusal.contains("hush"), "{refusal}");
}

#[test]
fn its_size_has_a_bound() {
    let keys = |count: usize| (0..count).map(|key| format!("key-{key} = ''\n")).collect::<String>();
    for (entries, problem) in [
        (keys(1000), None),
        (keys(1001), Some("plugin_config has 1001 keys; it may have at most 1000")),
        (format!("key = '{}'", "x".repeat(65_533)), None),
        (format!("key = '{}'", "x".repeat(65_534)), Some("plugin_config are 65537 bytes long; together they may be")),
    ] {
        let (_folder, call) = with_file(&format!("[plugin_config]\n{entries}"), &["config"]);
        let ended = call.run();
        assert_eq!(ended.code == Some(0), problem.is_none(), "{}", ended.stderr);
        assert!(ended.stderr.contains(problem.unwrap_or_default()), "{}", ended.stderr);
    }
}

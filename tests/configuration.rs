//! The command line and the configuration, as a user of the binary sees them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use host::config::{Kind, SETTINGS, Setting};

/// Output of a finished process.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A call of `host` in an empty folder and an empty environment.
struct Call {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Call {
    fn new() -> Call {
        Call { folder: tempfile::tempdir().expect("a temporary folder"), variables: BTreeMap::new() }
    }

    fn variable(mut self, name: &str, value: &str) -> Call {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(self, text: &str) -> Call {
        std::fs::write(self.folder.path().join("host.toml"), text).expect("write the file");
        self
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let output = self.command().args(arguments).output().expect("start host");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command.current_dir(self.folder.path()).env_clear().envs(&self.variables).stdin(Stdio::null());
        command
    }
}

impl Finished {
    /// Standard output of a call that must succeed.
    fn output(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
    }

    /// Standard error of a call that must be refused.
    fn refusal(self) -> String {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        self.stderr
    }
}

/// The line that sets `key` in the output of `host config`.
fn line<'a>(config: &'a str, key: &str) -> &'a str {
    let mut lines = config.lines().filter(|line| line.starts_with(&format!("{key} = ")));
    let line = lines.next().unwrap_or_else(|| panic!("no {key} in {config}"));
    assert_eq!(lines.next(), None, "{key} is there twice");
    line
}

/// A valid value for each setting; all values together are valid as well.
fn value(setting: &Setting) -> String {
    match (setting.kind, setting.default()) {
        (Kind::File, _) => format!("{}.pem", setting.key),
        (Kind::Address, _) => "127.0.0.1:9090".to_owned(),
        (Kind::Endpoint, _) => "http://127.0.0.1:4318".to_owned(),
        (Kind::Property, _) => format!("{}.x", setting.key),
        (Kind::Token | Kind::Password, _) => "0123456789abcdef".to_owned(),
        (Kind::List, _) => "carts".to_owned(),
        _ if setting.key == "url" => "rediss://redis.example".to_owned(),
        (_, default) => default.expect("everything else has a default").to_owned(),
    }
}

fn toml_value(setting: &Setting) -> String {
    match setting.kind {
        Kind::Number | Kind::Ratio | Kind::Switch => value(setting),
        _ => format!("{:?}", value(setting)),
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let call = Call::new();
    assert_eq!(line(&call.run(&["config"]).output(), "consumers"), "consumers = 10");
    let call = call.file("consumers = 20\n[message]\nbytes_max = \"2MiB\"\n");
    let config = call.run(&["config", "--config", "host.toml"]).output();
    assert_eq!(line(&config, "consumers"), "consumers = 20");
    assert!(config.contains("bytes_max = \"2MiB\""));
    let call = call.variable("HOST_CONSUMERS", "30").variable("HOST_CONFIG", "host.toml");
    assert_eq!(line(&call.run(&["config"]).output(), "consumers"), "consumers = 30");
    let config = call.run(&["config", "--consumers", "40"]).output();
    assert_eq!(line(&config, "consumers"), "consumers = 40");
    assert!(config.contains("bytes_max = \"2MiB\""), "the file named by HOST_CONFIG is read");
}

#[test]
fn flags_stand_before_or_behind_the_command() {
    let call = Call::new();
    for arguments in [["--consumers", "7", "config"], ["config", "--consumers", "7"]] {
        assert_eq!(line(&call.run(&arguments).output(), "consumers"), "consumers = 7");
    }
}

#[test]
fn the_url_comes_from_redis_url_unless_host_redis_is_set() {
    let call = Call::new().variable("REDIS_URL", "redis://a:1");
    assert_eq!(line(&call.run(&["config"]).output(), "url"), "url = \"redis://a:1\"");
    let call = call.variable("HOST_REDIS", "unix:///b.sock");
    assert_eq!(line(&call.run(&["config"]).output(), "url"), "url = \"unix:///b.sock\"");
    let config = call.run(&["config", "--redis", "embedded"]).output();
    assert_eq!(line(&config, "url"), "url = \"embedded\"");
}

#[test]
fn every_setting_can_be_given_by_flag_by_variable_and_in_the_file() {
    let sources = |config: String| -> Vec<String> {
        config.lines().filter_map(|line| line.strip_prefix("# from: ")).map(str::to_owned).collect()
    };

    let flags: Vec<String> = SETTINGS.iter().map(|s| format!("--{}={}", s.flag(), value(s))).collect();
    let mut arguments = vec!["config", "--sources"];
    arguments.extend(flags.iter().map(String::as_str));
    let config = Call::new().run(&arguments).output();
    let expected: Vec<_> = SETTINGS.iter().map(|setting| format!("--{}", setting.flag())).collect();
    assert_eq!(sources(config), expected);

    for choice in [0, usize::MAX] {
        let name = |setting: &Setting| {
            let variables = setting.variables();
            variables[choice.min(variables.len() - 1)].clone()
        };
        let call = SETTINGS.iter().fold(Call::new(), |call, s| call.variable(&name(s), &value(s)));
        let expected: Vec<_> = SETTINGS.iter().map(name).collect();
        assert_eq!(sources(call.run(&["config", "--sources"]).output()), expected);
    }

    let dotted = SETTINGS.iter().map(|setting| format!("{} = {}\n", setting.path(), toml_value(setting)));
    let call = Call::new().file(&dotted.collect::<String>());
    let from_file = sources(call.run(&["config", "--sources", "--config", "host.toml"]).output());
    assert_eq!(from_file.len(), SETTINGS.len());
    for (index, source) in from_file.iter().enumerate() {
        assert!(source.starts_with(&format!("host.toml:{}:", index + 1)), "{source}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() {
    for (text, problem) in [
        ("\nconsumer = 1", "host.toml:2:1: unknown key `consumer`; did you mean `consumers`?"),
        (
            "[message]\n  byte_max = 1",
            "host.toml:2:3: unknown key `message.byte_max`; did you mean `message.bytes_max`?",
        ),
        ("[registri]", "host.toml:1:2: unknown section `[registri]`; did you mean `[registry]`?"),
        ("intake-buffer = 1", "host.toml:1:1: unknown key `intake-buffer`; did you mean `intake.buffer_bytes_max`?"),
    ] {
        let refusal = Call::new().file(text).run(&["config", "--config", "host.toml"]).refusal();
        assert!(refusal.contains(problem), "{refusal}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_source_and_what_is_valid() {
    for (text, place, valid) in [
        ("\nconsumers = 10001", "host.toml:2:13: `10001`", "from 0 to 10000"),
        ("consumers = \"10\"", "host.toml:1:13", "without quotes"),
        ("[message]\nbytes_max = \"1MB\"", "host.toml:2:13: `1MB`", "64KiB"),
        ("dedup_window = 300", "host.toml:1:16", "\"5m\""),
        ("[message]\nid_property = \"event..id\"", "host.toml:2:15: `event..id`", "such as event.id"),
        ("message.id_property = \"/a~b\"", "host.toml:1:23: `/a~b`", "written ~0"),
        ("log_format = \"xml\"", "host.toml:1:14: `xml`", "text, json"),
        ("keys.inbox = \"\"", "host.toml:1:14: ``", "empty"),
        ("consumers = 1\nconsumers = 2", "host.toml:2:1", "duplicate key"),
        ("[redis", "host.toml:1:7", "not TOML"),
    ] {
        let refusal = Call::new().file(text).run(&["config", "--config", "host.toml"]).refusal();
        assert!(refusal.contains(place) && refusal.contains(valid), "{text}: {refusal}");
    }
    let refusal = Call::new().variable("HOST_DELIVERY_TIME", "soon").run(&["config"]).refusal();
    assert!(refusal.contains("HOST_DELIVERY_TIME: `soon`") && refusal.contains("250ms"));
    let refusal = Call::new().run(&["config", "--consumers", "-1"]).refusal();
    assert!(refusal.contains("--consumers: `-1`"), "{refusal}");
    let refusal = Call::new().run(&["--config", "missing.toml"]).refusal();
    assert!(refusal.contains("--config") && refusal.contains("missing.toml"), "{refusal}");
}

#[test]
fn a_wrong_value_in_the_file_is_refused_even_when_a_flag_hides_it() {
    let call = Call::new().file("consumers = 10001");
    let refusal = call.run(&["config", "--config", "host.toml", "--consumers", "1"]).refusal();
    assert!(refusal.contains("host.toml:1:13"), "{refusal}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let call = Call::new().file("consumers = 10001\ncolour = 1\n").variable("HOST_DRAIN_TIMEOUT", "5");
    let refusal = call.run(&["--config", "host.toml", "--report-interval", "1ms"]).refusal();
    for part in ["host.toml:1:13", "host.toml:2:1", "HOST_DRAIN_TIMEOUT", "--report-interval"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

#[test]
fn both_ends_of_every_bound_hold() {
    for setting in SETTINGS.iter().filter(|setting| setting.kind == Kind::Number) {
        let (min, max) = setting.bounds().expect("every number is bounded");
        let (min, max): (u64, u64) = (min.parse().expect("a number"), max.parse().expect("a number"));
        for (value, valid) in [(min, true), (max, true), (min.wrapping_sub(1), false), (max + 1, false)] {
            let flag = format!("--{}={value}", setting.flag());
            let finished = Call::new().run(&["config", &flag]);
            assert_eq!(finished.code == Some(0), valid, "{flag}: {}", finished.stderr);
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_both_sources() {
    for (arguments, parts) in [
        (
            &["--heartbeat-ttl=4s"][..],
            &["registry.beat_ttl is `4s` (--heartbeat-ttl)", "beat_interval is `2s` (default)"][..],
        ),
        (&["--heartbeat-ttl=8s", "--heartbeat-interval=2s"], &["at most 9s"]),
        (&["--dedup-window=5s"], &["dedup_window is `5s` (--dedup-window)", "intake.lease_ttl is `3s` (default)"]),
        (&["--max-message-bytes=2MiB", "--intake-buffer=1MiB"], &["longest message"]),
        (&["--inbox-key=messages:processed"], &["keys.output", "keys.inbox", "same name"]),
        (&["--redis-ca-file=ca.pem"], &["redis.ca_file", "rediss://"]),
        (&["--redis=rediss://h", "--redis-cert-file=c.pem"], &["redis.key_file is not set"]),
        (&["--log-level=inof"], &["log_level", "`inof`"]),
        (&["--inbox-key=a:b@c", "--dead-key=a:b@c"], &["keys.dead"]),
        (&["--redis=localhost:6379"], &["redis.url is `localhost:6379` (--redis)", "redis://HOST:PORT/DB"]),
    ] {
        let mut call = vec!["config"];
        call.extend(arguments);
        let refusal = Call::new().run(&call).refusal();
        for part in parts {
            assert!(refusal.contains(part), "{arguments:?}: {refusal}");
        }
    }
}

#[test]
fn a_host_without_a_plugin_says_what_to_do() {
    let refusal = Call::new().run(&["--consumers", "10"]).refusal();
    for part in ["no plugin", "--plugin FILE", "HOST_PLUGIN", "plugin = "] {
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[test]
fn the_printed_configuration_used_as_a_file_prints_itself() {
    for arguments in [
        &["config"][..],
        &[
            "config",
            "--plugin",
            "a \"b\"\\c.wasm",
            "--consumers",
            "77",
            "--dedup-window",
            "90s",
            "--output-key",
            "or:d@ers",
        ],
        &["config", "--redis", "redis://user:secret@h:1/2", "--max-message-bytes", "1000", "--output-format", "json"],
        &["config", "--plugin-config", "api_key=1", "--plugin-config", "a.b \"c\"=2"],
    ] {
        let printed = Call::new().run(arguments).output();
        let again = Call::new().file(&printed).run(&["config", "--config", "host.toml"]).output();
        assert_eq!(printed, again);
    }
}

#[test]
fn keys_follow_the_name_of_the_output_stream() {
    let config = Call::new().run(&["config", "--output-key", "orders", "--dead-key", "graveyard"]).output();
    assert_eq!(line(&config, "inbox"), "inbox = \"{orders}:inbox\"");
    assert_eq!(line(&config, "claim_prefix"), "claim_prefix = \"{orders}:claim:\"");
    assert_eq!(line(&config, "dead"), "dead = \"graveyard\"");
}

#[test]
fn no_output_holds_a_password() {
    let unix = "unix:///r.sock?user=u&pass=secret&db=1";
    let (sentinels, several) =
        ("redis+sentinel://u:secret@s1:1,s2:2/m/0", "redis+sentinel://u:secret@s1:1,u:secret@s2:2/m");
    for url in [
        "redis://u:secret@h:1/2",
        "rediss://:secret@h",
        unix,
        "redis//:secret@h",
        "redis://u:sec/secret@h:x",
        sentinels,
        several,
    ] {
        let flag = format!("--redis={url}");
        let file = format!("redis.url = \"{url}\"\n[[");
        let calls = [
            Call::new().run(&["config", "--sources", &flag]),
            Call::new().run(&["--consumers=10001", &flag]),
            Call::new().run(&["--redis-ca-file=x", "--redis-cert-file=y", &flag]),
            Call::new().run(&[url]),
            Call::new().run(&["config", url]),
            Call::new().run(&["config", "--redis-ca-file", "--redis", url]),
            Call::new().variable("HOST_REDIS", url).run(&["--log-level=debug"]),
            Call::new().variable("HOST_CONSUMERS", url).run(&["config"]),
            Call::new().file(&file).run(&["--config=host.toml"]),
            Call::new().file(&file.replace("\"\n", "\n")).run(&["--config=host.toml"]),
        ];
        for Finished { stdout, stderr, .. } in calls {
            assert!(!stdout.contains("secret") && !stderr.contains("secret"), "{url}: {stdout}{stderr}");
        }
    }
}

#[test]
fn a_masked_password_never_logs_in() {
    let printed = Call::new().run(&["config", "--redis", "redis://u:secret@h"]).output();
    assert_eq!(line(&printed, "url"), "url = \"redis://u:***@h\"");
    let call = Call::new().file(&printed);
    let refusal = call.run(&["--config", "host.toml", "--plugin", "p.wasm"]).refusal();
    assert!(refusal.contains("host.toml:") && refusal.contains("HOST_REDIS"), "{refusal}");
    let call = call.variable("HOST_REDIS", "redis://u:secret@elsewhere");
    let config = call.run(&["config", "--config", "host.toml"]).output();
    assert_eq!(line(&config, "url"), "url = \"redis://u:***@elsewhere\"");

    let variable = ("HOST_REDIS_SENTINEL_PASSWORD", "s3cret");
    let printed = Call::new().variable(variable.0, variable.1).run(&["config", "--sources"]).output();
    assert_eq!(line(&printed, "sentinel_password"), "sentinel_password = \"***\"");
    assert!(!printed.contains("s3cret") && printed.contains("set HOST_REDIS_SENTINEL_PASSWORD"), "{printed}");
    let call = Call::new().file(&printed);
    let refusal = call.run(&["--config", "host.toml", "--plugin", "p.wasm"]).refusal();
    assert!(refusal.contains("host.toml:") && refusal.contains(variable.0), "{refusal}");
}

#[test]
fn the_help_describes_every_setting() {
    let call = Call::new();
    // Long help is wrapped.
    let long = call.run(&["--help"]).output().split_whitespace().collect::<Vec<_>>().join(" ");
    let short = call.run(&["-h"]).output();
    let config = call.run(&["config"]).output();
    for setting in SETTINGS {
        let flag = match setting.kind {
            Kind::Switch => format!("--{}[=<", setting.flag()),
            _ => format!("--{} <", setting.flag()),
        };
        assert!(long.contains(&flag), "{flag}");
        assert_eq!(short.contains(&flag), setting.is_common(), "{flag}");
        assert!(long.contains(&setting.variables().join(", ")), "{flag}");
        assert!(long.contains(&format!("[file: {}]", setting.path())), "{flag}");
        assert!(config.contains(&format!("# (--{};", setting.flag())), "{flag}");
    }
    let plugin_config = "[env: HOST_PLUGIN_CONFIG] [file: plugin_config]";
    for part in ["Examples:", "Exit codes:", "130", "--config <FILE>", "SIZE is a number of bytes", plugin_config] {
        assert!(long.contains(part), "{part}");
    }
    let subcommand = call.run(&["config", "--help"]).output();
    assert!(subcommand.contains("--consumers <N>") && subcommand.contains("--sources"));
    assert!(short.contains("--plugin-config <KEY=VALUE>"));
}

#[test]
fn completions_and_the_man_page_name_every_flag() {
    let call = Call::new();
    let man = call.run(&["man"]).output().replace("\\-", "-");
    let scripts = ["bash", "zsh", "fish", "elvish", "powershell"];
    let scripts = scripts.map(|shell| call.run(&["completions", shell]).output());
    for setting in SETTINGS {
        assert!(man.contains(&format!("--{}", setting.flag())), "{}", setting.flag());
        for script in &scripts {
            assert!(script.contains(setting.flag()), "{}", setting.flag());
        }
    }
    assert!(man.contains("--plugin-config") && scripts.iter().all(|script| script.contains("plugin-config")));
    assert!(man.contains("Exit codes:"));
}

#[test]
fn settings_in_front_of_a_command_that_ignores_them_are_refused() {
    for arguments in [&["--consumers", "5", "man"][..], &["--config", "host.toml", "completions", "bash"]] {
        let refusal = Call::new().run(arguments).refusal();
        assert!(refusal.contains("does not use --con"), "{refusal}");
    }
    let refusal = Call::new().run(&["--plugin-config", "a=b", "man"]).refusal();
    assert!(refusal.contains("does not use --plugin-config"), "{refusal}");
    Call::new().run(&["man", "--consumers", "5"]).refusal();
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let call = Call::new();
    for arguments in [&["--consumer", "5"][..], &["confg"], &["--consumers"], &["completions", "tcsh"]] {
        call.run(arguments).refusal();
    }
    assert!(call.run(&["--version"]).output().starts_with("host "));
    assert!(call.run(&["help"]).output().contains("Usage:"));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure_and_a_full_disk_is_one() {
    for arguments in [&["config"][..], &["config", "--reference"], &["man"], &["completions", "bash"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Call::new().command().args(arguments).stdout(writer).output().expect("start host");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("open a full device");
        let output = Call::new().command().args(arguments).stdout(full).output().expect("start host");
        let stderr = String::from_utf8_lossy(&output.stderr);
        // clap prints the help, and says nothing when it cannot.
        let (code, beginning) =
            if arguments == ["--help"] { (0, "") } else { (1, "error: cannot write to standard output: ") };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with(beginning) && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn relative_paths_in_a_file_start_at_its_folder() {
    let call = Call::new();
    let folder = call.folder.path().join("etc");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("host.toml"), "plugin = \"p.wasm\"").expect("write the file");
    let file: PathBuf = ["etc", "host.toml"].iter().collect();
    let config = call.run(&["config", "--config", &file.to_string_lossy()]).output();
    let plugin = call.folder.path().canonicalize().expect("a folder").join("etc/p.wasm");
    assert_eq!(line(&config, "plugin"), format!("plugin = {plugin:?}"));
    let flag = call.run(&["config", "--config", &file.to_string_lossy(), "--plugin", "q.wasm"]).output();
    assert!(line(&flag, "plugin").ends_with("/q.wasm\"") && !flag.contains("etc/q.wasm"));
}

#[test]
fn what_is_probably_meant_otherwise_is_named_at_the_start() {
    let call = Call::new().variable("HOST_CONSUMER", "5").variable("HOSTNAME", "h");
    // The build scripts of plugins read this one.
    let call = call.variable("HOST_BINARY", "host");
    let started = call.run(&["--plugin", "p.wasm", "--redis", "redis://127.0.0.1:1", "--channel", "orders.*"]);
    assert!(started.stderr.contains("HOST_CONSUMER is not a setting and is ignored; did you mean `HOST_CONSUMERS`?"));
    assert!(started.stderr.contains("orders.*") && started.stderr.contains("patterns are not supported"));
    assert!(!started.stderr.contains("HOSTNAME"), "{}", started.stderr);
    assert!(!started.stderr.contains("HOST_BINARY"), "{}", started.stderr);
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let call = Call::new().file("no certificate");
    let rediss = ["--plugin", "p.wasm", "--redis", "rediss://127.0.0.1:1"];
    let run = |more: &[&str]| call.run(&[&rediss[..], more].concat()).refusal();
    let refusal = run(&["--redis-ca-file", "host.toml"]);
    assert!(refusal.contains("the CA file host.toml has no certificate in it"), "{refusal}");
    let refusal = run(&["--redis-cert-file", "host.toml", "--redis-key-file", "host.toml"]);
    assert!(refusal.contains("certificate file host.toml has no certificate"), "{refusal}");
    let refusal = call.run(&["--plugin", "p.wasm", "--redis", "rediss://h#insecure"]).refusal();
    assert!(refusal.contains("#insecure") && refusal.contains("--redis-ca-file"), "{refusal}");
}

#[test]
fn a_second_consumer_group_on_one_inbox_cannot_be_named() {
    let call = Call::new();
    assert!(call.run(&["config", "--group", "g1"]).refusal().contains("--group"));
    let refusal = Call::new().file("[keys]\ngroup = 'g1'\n").run(&["config", "--config", "host.toml"]).refusal();
    assert!(refusal.contains("host.toml:2:1") && refusal.contains("keys.group"), "{refusal}");
}

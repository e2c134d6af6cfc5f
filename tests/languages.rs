//! Plugins in other languages than Rust: the examples, and the helpers that the examples share with every plugin.
//! The tools come from the lock files of the examples, as for a user.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::host::{Ended, Launch};
use crate::support::{Host, Publisher, Redis, message, repository};

/// A language: the example to start from, and the file of that example with the function.
struct Language {
    example: &'static str,
    function: &'static str,
    /// The file in tests/languages with the function that the tests use.
    probe: &'static str,
}

const LANGUAGES: [Language; 2] = [
    Language { example: "enrich-typescript", function: "src/plugin.ts", probe: "plugin.ts" },
    Language { example: "enrich-python", function: "plugin.py", probe: "plugin.py" },
];

const EXAMPLES: [&str; 8] =
    ["enrich-typescript", "enrich-python", "enrich-go", "enrich-c", "redact", "route", "validate", "filter"];

fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The component of an example, as `just plugins` builds it.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(repository().join(".ci/plugins"));
        let (success, stderr) = run(build.args(EXAMPLES).env("HOST", env!("CARGO_BIN_EXE_host")));
        assert!(success, "{stderr}");
    });
    repository().join("plugins/dist").join(name).with_extension("wasm")
}

/// Copies an example as a user gets it: files instead of symbolic links, and nothing that was built.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let path = entry.expect("read a folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name of text");
        let built = [".build", "bindings", "node_modules", "__pycache__"].contains(&name) || name.ends_with(".wasm");
        if built {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("copy a file");
        }
    }
}

/// A folder of its own, outside of the repository's examples, with another function.
fn project(language: &Language, name: &str, function: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(name);
    copy(&repository().join("plugins").join(language.example), &folder);
    fs::write(folder.join(language.function), function).expect("write the function");
    folder
}

/// The component whose function does what a message says.
fn probe(language: &Language) -> PathBuf {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let build = |language: &Language| {
            let function = fs::read_to_string(repository().join("tests/languages").join(language.probe));
            let folder = project(language, language.probe, &function.expect("read the function"));
            let (success, stderr) = run(&mut Command::new(folder.join("build")));
            assert!(success, "{stderr}");
            folder.join(language.example).with_extension("wasm")
        };
        LANGUAGES.iter().map(build).collect()
    });
    let at = LANGUAGES.iter().position(|known| known.example == language.example).expect("a known language");
    built[at].clone()
}

fn host_test(plugin: &Path, more: &[&str]) -> Ended {
    let plugin = plugin.to_str().expect("a path of text");
    Launch::subcommand("test").words(&[plugin]).words(more).env("HOST_PLUGIN_CONFIG", "currency=EUR").run()
}

/// The result of one message in a fresh instance.
fn result(plugin: &Path, payload: &Value) -> Value {
    let ended = host_test(plugin, &["--message", &payload.to_string()]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
    outcome["emit"].clone()
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
fn the_helpers_of_every_language_keep_what_they_promise() {
    for language in &LANGUAGES {
        let cases = repository().join("tests/languages/cases.jsonl");
        let ended = host_test(&probe(language), &[cases.to_str().expect("a path of text")]);
        assert_eq!(ended.code, Some(0), "{}: {}{}", language.example, ended.stdout, ended.stderr);
    }
}

#[test]
fn every_instance_has_random_values_and_a_time_of_its_own() {
    for language in &LANGUAGES {
        let plugin = probe(language);
        let random = || result(&plugin, &json!({"message_id": "1", "do": "random"}));
        let (first, second) = (random(), random());
        assert_ne!(first["random"], second["random"], "{}", language.example);
        assert_ne!(first["uuid"], second["uuid"], "{}", language.example);
        let time = || result(&plugin, &json!({"message_id": "1", "do": "time"}))["ms"].as_u64().expect("a time");
        assert!(time() < time(), "{}", language.example);
    }
}

#[test]
fn the_log_of_every_language_is_the_log_of_the_host() {
    for language in &LANGUAGES {
        let payload = json!({"message_id": "order-1", "do": "log"}).to_string();
        let ended = host_test(&probe(language), &["--message", &payload, "--log-level", "debug"]);
        for (level, text) in
            [("DEBUG", "to debug"), ("INFO", "to the log: {"), ("WARN", "to warn"), ("ERROR", "to error")]
        {
            let is_it = |line: &&str| line.contains(level) && line.contains(text) && line.contains("order-1");
            assert!(ended.stderr.lines().any(|line| is_it(&line)), "{level} {text}: {}", ended.stderr);
        }
    }
}

#[test]
fn every_language_runs_in_a_host_with_a_fresh_instance_for_each_message() {
    let redis = Redis::start();
    for language in &LANGUAGES {
        let launch = Host::on(&redis).arg("--plugin", probe(language)).switch("--instance-per-message");
        let host = launch.ready(&redis, 4);
        let mut publisher = Publisher::new(&redis);
        let id = |number: usize| format!("{}-{number}", language.example);
        publisher.publish_all((0..50).map(|number| message(&id(number), json!({"do": "random"}))));
        let random: HashSet<String> =
            (0..50).map(|number| redis.result_of(&id(number)).text("random").to_owned()).collect();
        assert_eq!(random.len(), 50, "{}", language.example);

        let context = format!("{}-context", language.example);
        publisher.publish(message(&context, json!({"do": "context"})));
        let facts = redis.result_of(&context);
        assert_eq!(facts.text("consumer"), facts.text("consumer_id"), "{}", language.example);
        assert!(!facts.text("channel").is_empty(), "{}", language.example);
        assert_eq!(host.stop().code, Some(0));
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

#[test]
fn an_exception_is_in_the_dead_letter_with_its_place() {
    let redis = Redis::start();
    for (language, place) in LANGUAGES.iter().zip(["at broken (", "in broken"]) {
        let host = Host::on(&redis).arg("--plugin", probe(language)).arg("--max-attempts", "1").ready(&redis, 1);
        Publisher::new(&redis).publish(message(language.example, json!({"do": "throw"})));
        let letter = redis.dead_letter_of(language.example);
        let text = letter.text("error");
        assert!(text.contains("Error: asked for") && text.contains(place), "{text}");
        assert_eq!(host.stop().code, Some(0));
    }
}

#[test]
fn a_build_names_what_is_wrong() {
    let [typescript, python] = &LANGUAGES;
    for (language, name, function, error) in [
        (
            typescript,
            "wrong-type",
            "import { emit, plugin } from \"./host\";\nexport const processor = plugin((message) => emit(message.attempt));\n",
            "src/plugin.ts(2,",
        ),
        (
            typescript,
            "random-during-build",
            "import { emit, plugin } from \"./host\";\nconst seed = Math.random();\n\
             export const processor = plugin(() => emit({ seed }));\n",
            "Math.random needs the host, which is not there during the build: move the call into a function",
        ),
        (python, "wrong-import", "import absent\n", "ModuleNotFoundError: No module named 'absent'"),
    ] {
        let folder = project(language, name, function);
        let (success, stderr) = run(&mut Command::new(folder.join("build")));
        assert!(!success, "{name} is wrong");
        assert!(stderr.contains(error), "{name}: {stderr}");
        assert!(!folder.join(language.example).with_extension("wasm").exists(), "{name}");
    }
}

/// Asks for a toolchain of the folder `sys.argv[2]`, with an installation that `sys.argv[3]` describes.
const TOOLCHAIN: &str = r#"
import os, signal, sys
sys.path.insert(0, sys.argv[1])
os.environ["XDG_CACHE_HOME"] = sys.argv[2]
import toolchain

def install(temporary, folder):
    with open(os.path.join(sys.argv[2], "installations"), "a") as log:
        log.write("one\n")
    (temporary / "first").touch()
    if sys.argv[3] == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "fails":
        toolchain.give_up("no network")
    (temporary / "second").touch()

folder = toolchain.once("tools", "the lock", install, lambda folder: folder.is_dir())
assert sorted(path.name for path in folder.iterdir()) == ["first", "second"], "it is complete"
"#;

fn toolchain(cache: &Path, installation: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-B", "-c", TOOLCHAIN]).arg(repository().join("plugins/enrich-python")).arg(cache).arg(installation);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The folders of tools in a cache, complete or not.
fn toolchains(cache: &Path) -> Vec<String> {
    let folders = fs::read_dir(cache.join("host/toolchains")).expect("read the tools").map(|entry| {
        let entry = entry.expect("read the tools");
        (entry.path().is_dir(), entry.file_name().into_string().expect("a name of text"))
    });
    folders.filter(|(is_folder, _)| *is_folder).map(|(_, name)| name).collect()
}

#[test]
fn builds_at_the_same_time_install_the_tools_once() {
    let cache = tempfile::tempdir().expect("make a folder");
    let builds: Vec<_> = (0..8).map(|_| toolchain(cache.path(), "works").spawn().expect("start a build")).collect();
    for build in builds {
        let ended = build.wait_with_output().expect("wait for a build");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(fs::read_to_string(cache.path().join("installations")).expect("read the log"), "one\n");
    assert_eq!(toolchains(cache.path()).len(), 1);
}

#[test]
fn an_installation_that_fails_or_is_killed_leaves_no_half_of_the_tools() {
    let cache = tempfile::tempdir().expect("make a folder");
    let (success, stderr) = run(&mut toolchain(cache.path(), "fails"));
    assert!(!success && stderr.contains("build: no network"), "{stderr}");
    assert!(toolchains(cache.path()).is_empty(), "{:?}", toolchains(cache.path()));

    let (success, _) = run(&mut toolchain(cache.path(), "is killed"));
    assert!(!success);
    let (success, stderr) = run(&mut toolchain(cache.path(), "works"));
    assert!(success, "{stderr}");
    let folders = toolchains(cache.path());
    assert!(folders.len() == 1 && folders[0].starts_with("tools-"), "{folders:?}");
}

#[test]
fn a_python_without_venv_is_told_what_to_install() {
    let [_, python] = &LANGUAGES;
    let folder = project(python, "no-venv", "");
    let cache = tempfile::tempdir().expect("make a folder");
    // A Python without the module, as the one of Debian without the package python3-venv.
    let program = "import runpy, sys, importlib.util as u\n\
                   find = u.find_spec\n\
                   u.find_spec = lambda name, *rest: None if name == 'ensurepip' else find(name, *rest)\n\
                   sys.path.insert(0, sys.argv.pop(1))\n\
                   runpy.run_path(sys.path[0] + '/build', run_name='__main__')\n";
    let mut command = Command::new("python3");
    command.args(["-c", program, folder.to_str().expect("a path of text")]).env("XDG_CACHE_HOME", cache.path());
    let (success, stderr) = run(&mut command);
    assert!(!success);
    assert!(stderr.contains("On Debian and Ubuntu: apt-get install python3."), "{stderr}");
    assert!(toolchains(cache.path()).is_empty());
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

//! The files of host/deploy: they agree with each other, with the program, with its metrics and with what the handbook says.
//! Their own linters are run by host/deploy/check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use host::config::SETTINGS;
use serde_json::Value;

use crate::metrics::{Row, documented};
use crate::support::host::Launch;
use crate::support::repository;

/// What a stop may take beyond the drain timeout.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

fn deploy(file: &str) -> PathBuf {
    repository().join("host/deploy").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(deploy(file)).unwrap_or_else(|error| panic!("read {file}: {error}"))
}

/// What follows this key in a file of YAML, on the same line.
fn value(file: &str, key: &str) -> String {
    let text = read(file);
    let mut lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("no {key} in {file}")).trim_matches('"').to_owned()
}

/// The lines below this line of a file, as far as they are indented more.
fn below(file: &str, line: &str) -> Vec<String> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let text = read(file);
    let mut lines = text.lines().skip_while(|each| each.trim() != line);
    let head = lines.next().unwrap_or_else(|| panic!("no {line} in {file}"));
    lines.take_while(|each| depth(each) > depth(head)).map(|each| each.trim().to_owned()).collect()
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The expressions of alerts, dashboard and autoscalers, each with its place.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let alerts = read("prometheus/alerts.yml");
    for alert in alerts.split("- alert: ").skip(1) {
        let (name, rest) = alert.split_once('\n').unwrap();
        let (_, rest) = rest.split_once("expr: ").unwrap_or_else(|| panic!("no expression in {name}"));
        // A long expression takes several lines, up to the next key.
        let lines =
            rest.lines().take_while(|line| !line.trim().starts_with("for: ") && !line.trim().starts_with("labels:"));
        let expression = lines.collect::<Vec<_>>().join(" ");
        queries.push((format!("alert {name}"), expression.trim_start_matches(">-").to_owned()));
    }
    let board: Value = serde_json::from_str(&read("grafana/host.json")).unwrap();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((format!("panel {}", panel["title"]), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for note in board["annotations"]["list"].as_array().unwrap() {
        queries.push((format!("annotation {}", note["name"]), note["expr"].as_str().unwrap().to_owned()));
    }
    queries.push(("keda.yaml".to_owned(), value("kubernetes/autoscaling/keda.yaml", "query")));
    let [metric] = <[_; 1]>::try_from(below("kubernetes/autoscaling/hpa.yaml", "metric:")).unwrap();
    queries.push(("hpa.yaml".to_owned(), metric.trim_start_matches("name: ").to_owned()));
    queries
}

/// A series that a query asks for, with its labels and their values.
type Selector = (String, Vec<(String, String)>);

/// What a query selects, and the labels by which it groups. Names of the host's series begin with its name.
fn parts_of(query: &str) -> (Vec<Selector>, Vec<String>) {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut selectors = Vec::new();
    for (place, _) in query.match_indices("host_") {
        if query[..place].ends_with(is_word) {
            continue;
        }
        let (name, rest) =
            query[place..].split_at(query[place..].find(|char| !is_word(char)).unwrap_or(query.len() - place));
        let matchers =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(matchers, _)| matchers);
        let matchers = matchers.split(',').filter(|matcher| !matcher.is_empty()).map(|matcher| {
            let (label, value) = matcher.split_once('=').unwrap_or_else(|| panic!("{matcher} in {query}"));
            (label.to_owned(), value.trim_matches(['~', '"']).to_owned())
        });
        selectors.push((name.to_owned(), matchers.collect()));
    }
    let groupings = query.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    let labels = groupings.flat_map(|(labels, _)| labels.split(", ")).map(str::to_owned).collect();
    (selectors, labels)
}

/// The metric behind the name of a series: a histogram has three.
fn metric_of<'a>(metrics: &'a BTreeMap<String, Row>, series: &str) -> Option<(&'a String, &'a Row)> {
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| series.strip_suffix(part));
    let mut histograms =
        parts.filter_map(|name| metrics.get_key_value(name)).filter(|(_, metric)| metric.kind == "histogram");
    let plain = metrics.get_key_value(series).filter(|(_, metric)| metric.kind != "histogram");
    plain.or_else(|| histograms.next())
}

#[test]
fn dashboard_alerts_and_autoscalers_ask_for_metrics_that_there_are() {
    let metrics = documented();
    let mut shown = BTreeSet::new();
    for (place, query) in queries() {
        let (selectors, grouped_by) = parts_of(&query);
        assert!(!selectors.is_empty(), "{place} asks for no metric: {query}");
        let found: Vec<(&String, &Row)> = selectors
            .iter()
            .map(|(name, _)| metric_of(&metrics, name).unwrap_or_else(|| panic!("{place}: there is no metric {name}")))
            .collect();
        let known = |label: &String| {
            // The first comes from Prometheus, the second is of every histogram.
            label == "instance" || label == "le" || found.iter().any(|(_, metric)| metric.labels.contains_key(label))
        };
        let matched = selectors.iter().flat_map(|(_, matchers)| matchers);
        for label in matched.clone().map(|(label, _)| label).chain(&grouped_by) {
            assert!(known(label), "{place}: there is no label {label}");
        }
        for (label, values) in matched {
            let listed: BTreeSet<&String> =
                found.iter().filter_map(|(_, metric)| metric.labels.get(label)).flatten().collect();
            if !listed.is_empty() {
                assert!(values.split('|').all(|value| listed.contains(&value.to_owned())), "{place}: {label}={values}");
            }
        }
        if place.starts_with("panel") {
            shown.extend(found.into_iter().map(|(name, _)| name.clone()));
        }
    }
    let missing: Vec<&String> = metrics.keys().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "every metric is on the dashboard: {missing:?}");
}

#[test]
fn every_alert_is_explained() {
    let alerts = read("prometheus/alerts.yml");
    let alerts = alerts.split("- alert: ").skip(1).map(|alert| alert.lines().next().unwrap());
    let handbook = fs::read_to_string(repository().join("host/docs/deploying.md")).unwrap();
    let (_, table) = handbook.split_once("| alert | meaning |\n").expect("the table of alerts");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let explained = rows.map(|row| row.split('`').nth(1).unwrap());
    assert_eq!(alerts.collect::<Vec<_>>(), explained.collect::<Vec<_>>());
}

/// The settings that a file gives as environment variables.
fn variables(text: &str) -> BTreeSet<String> {
    let names = text.split(|char: char| !char.is_ascii_uppercase() && char != '_' && !char.is_ascii_digit());
    names.filter(|name| name.starts_with("HOST_")).map(str::to_owned).collect()
}

#[test]
fn the_settings_in_the_files_are_settings_of_the_host() {
    let known: BTreeSet<String> =
        SETTINGS.iter().flat_map(|setting| setting.variables()).chain(["HOST_CONFIG".to_owned()]).collect();
    for file in ["Dockerfile", "compose.yaml", "kubernetes/deployment.yaml"] {
        let named = variables(&read(file));
        assert!(named.len() >= 3, "{file}: {named:?}");
        for name in named {
            // In a comment about what must not come in.
            let is_foreign = name == "HOST_PORT";
            assert!(is_foreign || known.contains(&name), "{file}: there is no setting {name}");
        }
    }
    let file = deploy("systemd/host.toml");
    let ended = Launch::subcommand("config").arg("--config", &file).run();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", file.display());
}

/// The environment of the host in the deployment.
fn variables_of_the_deployment() -> BTreeMap<String, String> {
    let lines = below("kubernetes/deployment.yaml", "env:");
    let lines: Vec<&String> = lines.iter().filter(|line| !line.starts_with('#')).collect();
    let pair = |pair: &[&String]| {
        let [name, value] = pair else { panic!("{pair:?}") };
        let (name, value) = (name.strip_prefix("- name: ").unwrap(), value.strip_prefix("value: ").unwrap());
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    lines.chunks(2).map(pair).collect()
}

#[test]
fn no_manager_kills_a_host_that_still_drains() {
    let file = "kubernetes/deployment.yaml";
    let grace = Duration::from_secs(value(file, "terminationGracePeriodSeconds").parse().unwrap());
    let drain = variables_of_the_deployment().remove("HOST_DRAIN_TIMEOUT").unwrap();
    assert!(grace >= duration(&drain) + AFTER_DRAIN, "{file}: {grace:?}");

    let file = "compose.yaml";
    let grace = duration(&value(file, "stop_grace_period"));
    assert!(grace >= duration(&value(file, "HOST_DRAIN_TIMEOUT")) + AFTER_DRAIN, "{file}: {grace:?}");

    let toml: toml::Table = read("systemd/host.toml").parse().unwrap();
    let drain = duration(toml["drain_timeout"].as_str().unwrap());
    let grace = duration(unit("TimeoutStopSec"));
    assert!(grace >= drain + AFTER_DRAIN, "host.service: {grace:?}");
}

/// The value of a key in the unit.
fn unit(key: &str) -> &'static str {
    let text: &'static str = read("systemd/host.service").leak();
    let mut values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {key} in host.service"))
}

#[test]
fn the_unit_speaks_as_the_host_does_and_lets_it_compile() {
    assert_eq!((unit("Type"), unit("NotifyAccess")), ("notify", "main"));
    assert!(unit("ExecReload").contains("-HUP"));
    assert!(duration(unit("WatchdogSec")) >= Duration::from_secs(10), "a busy machine is not a hung host");
    let text = read("systemd/host.service");
    assert!(
        !text.lines().any(|line| line.starts_with("MemoryDenyWriteExecute")),
        "a plugin is compiled to native code"
    );
    let (_, file) = unit("ExecStart").split_once("--config ").unwrap();
    assert_eq!(file, "/etc/host/host.toml", "where the unit's head installs it");
}

#[test]
fn a_container_finds_its_files_where_its_settings_say() {
    let file = "kubernetes/deployment.yaml";
    let text = read(file);
    let mounted = below(file, "volumeMounts:");
    let of = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("{key} in {line}"));
        rest.split([',', ' ']).next().unwrap().to_owned()
    };
    let mounts: Vec<(String, String)> = mounted
        .iter()
        .filter(|line| line.starts_with("- "))
        .map(|line| (of(line, "name"), of(line, "mountPath")))
        .collect();
    assert!(mounts.len() > 3, "{mounted:?}");
    for (name, value) in variables_of_the_deployment() {
        let is_mounted = mounts.iter().any(|(_, folder)| value.starts_with(&format!("{folder}/")));
        assert!(!value.starts_with('/') || is_mounted, "{name}={value} is in none of {mounts:?}");
    }
    let volumes = below(file, "volumes:");
    for (name, _) in &mounts {
        assert!(volumes.contains(&format!("- name: {name}")), "{name}");
    }
    let mut fields = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    assert!(!fields.any(|line| line.contains("subPath:")), "a file that is mounted alone never changes");
    // Variables such as HOST_PORT=tcp://… would be taken for settings.
    assert_eq!(value(file, "enableServiceLinks"), "false");
    let image = read("Dockerfile");
    let user = value(file, "runAsUser");
    assert!(image.contains(&format!("\nUSER {user}:{user}\n")), "the image's user is {user}");
    let cache = image.lines().find_map(|line| line.trim().strip_prefix("XDG_CACHE_HOME=")).unwrap();
    assert!(mounts.iter().any(|(_, folder)| folder == cache), "{cache}");
    for (probe, path) in [("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
        assert_eq!(below(file, &format!("{probe}:"))[0], format!("httpGet: {{ path: {path}, port: http }}"));
    }
    let tmpfs = read("compose.yaml");
    assert!(tmpfs.contains(&format!("\n      - {cache}:uid={user},")), "the user's own folder for the cache");
}

/// A pattern of a .dockerignore file, as far as this one uses them: names, `*`, and `**` for any number of folders.
fn covers(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        // A pattern for a folder is one for everything below.
        ([], _) => true,
        (_, []) => false,
        (["**", rest @ ..], [_, below @ ..]) => covers(rest, path) || covers(pattern, below),
        ([name, rest @ ..], [here, below @ ..]) => {
            let fits = match name.split_once('*') {
                Some((start, end)) => here.starts_with(start) && here.ends_with(end),
                None => name == here,
            };
            fits && covers(rest, below)
        }
    }
}

/// Whether the build of the image sees this file. The last pattern that covers it decides.
fn is_in_the_context(path: &str) -> bool {
    let patterns = read("Dockerfile.dockerignore");
    let path: Vec<&str> = path.split('/').collect();
    let lines = patterns.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut seen = true;
    for line in lines {
        let (is_exception, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern));
        if covers(&pattern.split('/').collect::<Vec<_>>(), &path) {
            seen = is_exception;
        }
    }
    seen
}

/// The files of the repository that the compiler has read for the program, by the names of links and of what they lead to.
fn sources() -> BTreeSet<String> {
    let built = Path::new(env!("CARGO_BIN_EXE_host")).parent().unwrap().join("deps");
    let files = fs::read_dir(built).unwrap().map(|file| file.unwrap().path());
    let lists = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("host-") && name.ends_with(".d")
    });
    let root = repository();
    let mut sources = BTreeSet::new();
    for list in lists.map(|path| fs::read_to_string(path).unwrap()) {
        // The first line of each rule has a target, a colon and what it is made of.
        for word in list.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, words)| words.split(' ')) {
            let mut named = PathBuf::new();
            for part in root.join(word).components() {
                match part {
                    Component::ParentDir => _ = named.pop(),
                    part => named.push(part),
                }
            }
            // A list may be of an earlier build.
            let Ok(real) = fs::canonicalize(&named) else { continue };
            let below = [named, real].into_iter().filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_owned()));
            sources.extend(below.map(|path| path.to_string_lossy().into_owned()));
        }
    }
    // Some lists are of unit tests, which share helpers with these tests, or of a linter, which reads its settings.
    sources.retain(|path| !path.starts_with("target/") && !path.starts_with("tests/") && path != ".clippy.toml");
    sources
}

#[test]
fn the_build_of_the_image_sees_the_sources_of_the_program_and_not_much_else() {
    let sources = sources();
    assert!(sources.len() > 100 && sources.contains("host/src/main.rs"), "{sources:?}");
    assert!(sources.contains("wit/plugin.wit"), "{sources:?}");
    for path in sources.iter().map(String::as_str).chain(["Cargo.toml", "Cargo.lock", "host/Cargo.toml"]) {
        assert!(is_in_the_context(path), "{path} is needed for the build");
    }
    for path in [
        ".git/config",
        "target/release/host",
        "plugins/enrich/target/x",
        "plugins/dist/enrich.wasm",
        "tests/deploy.rs",
        "host/deploy/http-token",
        "host/docs/README.md",
    ] {
        assert!(!is_in_the_context(path), "{path} has nothing to do with the build");
    }
}

#[test]
fn the_image_is_built_with_the_compiler_that_the_repository_pins() {
    let toolchain: toml::Table = fs::read_to_string(repository().join("rust-toolchain.toml")).unwrap().parse().unwrap();
    let version = toolchain["toolchain"]["channel"].as_str().unwrap();
    let image = read("Dockerfile");
    assert!(image.contains(&format!("\nFROM rust:{version}-")), "{version}");
    assert!(image.contains(&format!("\nENV RUSTUP_TOOLCHAIN={version}\n")), "{version}");
    assert!(image.contains("cargo build --locked "), "with the dependencies of the lock file");
    assert!(image.contains("\nHEALTHCHECK ") && image.contains("/health"));
}

#[test]
fn a_release_is_the_version_of_the_repository() {
    let manifest: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
    let version = manifest["workspace"]["package"]["version"].as_str().unwrap();
    assert_eq!(value("kubernetes/kustomization.yaml", "newTag"), version);
}

#[test]
fn every_claim_about_security_names_a_test_that_there_is() {
    let text = fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let mut claims = 0;
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    for row in rows.filter(|row| !row.ends_with("| tests |")) {
        claims += 1;
        let (_, tests) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {row}");
        for name in names {
            let (file, function) = name.split_once("::").unwrap_or_else(|| panic!("{name} in {row}"));
            let path = repository().join("tests").join(file).with_extension("rs");
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(source.contains(&format!("#[test]\nfn {function}() {{")), "there is no test {name}");
        }
    }
    assert!(claims > 20, "{claims}");
}

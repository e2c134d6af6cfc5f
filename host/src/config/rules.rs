//! Rules that go beyond type and bounds of a single value: forms of text, and conditions between settings.
//! The reason of each rule stands beside the rule.

use std::time::Duration;

use super::{Loaded, OnOff, Password, PluginConfig, SETTINGS, Token};
use super::{outputs, redis_url};

/// The consumers of a killed host leave `consumer:ids` one interval after its last heartbeat has expired. The promise
/// is 10 s, of which 1 s is reserved for a busy Redis and a slow script.
const BEAT_TOTAL_MAX: Duration = Duration::from_secs(9);

/// Problems of the configuration as a whole, when every single value is valid.
pub(super) fn problems(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let (intake, registry, redis) = (&config.intake, &config.registry, &config.redis);
    let mut check = Check { loaded, problems: Vec::new() };

    if let Err(problem) = redis_url::check(&redis.url) {
        check.require(false, &["redis.url"], &problem);
    }
    check.require(
        redis.cert_file.is_some() == redis.key_file.is_some(),
        &["redis.cert_file", "redis.key_file"],
        "a client certificate needs both files",
    );
    for (file, path) in [(&redis.ca_file, "redis.ca_file"), (&redis.cert_file, "redis.cert_file")] {
        check.require(
            file.is_none() || redis_url::is_tls(&redis.url),
            &[path, "redis.url"],
            "certificates are used with rediss:// only; change the URL or leave the file out",
        );
    }
    if let Some(problem) = log_level_problem(&config.log_level) {
        check.require(false, &["log_level"], &problem);
    }
    check.keys_differ();
    check.problems.extend(config.plugin_config.problems());

    // One lost heartbeat must not make a living host a dead one.
    check.require(
        registry.beat_ttl > 2 * registry.beat_interval,
        &["registry.beat_ttl", "registry.beat_interval"],
        "the validity must be more than twice the interval",
    );
    check.require(
        registry.beat_ttl + registry.beat_interval <= BEAT_TOTAL_MAX,
        &["registry.beat_ttl", "registry.beat_interval"],
        "together they must be at most 9s, so that the list of consumers is correct 10s after a host was killed",
    );
    // Messages that were heard before the first mark of a subscription have no position. Only their claims tell whether they were
    // appended, for half of the window, and they may have to wait for the lease.
    check.require(
        config.dedup_window >= 2 * intake.lease_ttl,
        &["dedup_window", "intake.lease_ttl"],
        "the dedup window must be at least twice the lease; otherwise messages that are received while a subscription begins \
         could be lost when the active host dies",
    );
    check.http();
    check.require(
        !config.reload.canary || config.reload.rollback == OnOff::On,
        &["reload.canary", "reload.rollback"],
        "a canary needs its probation; set --rollback on, or leave --canary out",
    );
    check.require(
        config.message.bytes_max <= intake.buffer_bytes_max,
        &["message.bytes_max", "intake.buffer_bytes_max"],
        "the buffer must hold the longest message",
    );
    check.require(
        config.retry.delay <= config.retry.delay_max,
        &["retry.delay", "retry.delay_max"],
        "the first wait must not be longer than the longest",
    );
    check.problems
}

/// Problems that only prevent a host from running; other commands can use the configuration.
pub(super) fn missing(loaded: &Loaded) -> Vec<String> {
    let mut problems = Vec::new();
    if loaded.config.plugin.is_none() {
        problems.push(
            "no plugin is named: give the file of a Wasm component with --plugin FILE, with HOST_PLUGIN, or as \
             `plugin = \"FILE\"` in the configuration file"
                .to_owned(),
        );
    }
    if redis_url::is_masked(&loaded.config.redis.url) {
        problems.push(format!(
            "{}: the password in redis.url is masked (***), as `host config` prints it: put the URL with its \
             password into HOST_REDIS, or write the password into the file",
            loaded.source("redis.url")
        ));
    }
    if loaded.config.redis.sentinel_password.as_ref().is_some_and(Password::is_masked) {
        problems.push(format!(
            "{}: the password in redis.sentinel_password is masked (***), as `host config` prints it: put the password into \
             HOST_REDIS_SENTINEL_PASSWORD, or name a file with the password",
            loaded.source("redis.sentinel_password")
        ));
    }
    if loaded.config.http.token.as_ref().is_some_and(Token::is_masked) {
        problems.push(format!(
            "{}: the token in http.token is masked (***), as `host config` prints it: put the token into HOST_HTTP_TOKEN, or name a \
             file with the token",
            loaded.source("http.token")
        ));
    }
    if loaded.config.consumers == 0 && loaded.config.http.address.is_none() {
        problems.push(format!(
            "consumers is `0` ({}): a host without consumers hands messages to remote consumers, which register over HTTP; \
             set --http, or start consumers",
            loaded.source("consumers")
        ));
    }
    problems.extend(masked_plugin_config(loaded));
    problems
}

/// A problem for each masked value (`***`) in the plugin's configuration.
pub(super) fn masked_plugin_config(loaded: &Loaded) -> Vec<String> {
    let problem = |key: &str| {
        let (source, section) = (&loaded.plugin_config_sources[key], PluginConfig::SECTION);
        format!(
            "{source}: the value of {section}.{key} is masked (***), as `host config` prints it: write the value in its \
             place, or set it with {} or --{}",
            PluginConfig::VARIABLE,
            PluginConfig::FLAG
        )
    };
    loaded.config.plugin_config.masked_keys().map(problem).collect()
}

/// A warning for each valid value that is probably a mistake.
pub(super) fn warnings(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut warnings = Vec::new();
    let channel = &config.keys.channel;
    if channel.contains(['*', '?', '[']) {
        warnings.push(format!(
            "keys.channel is `{channel}` ({}), which looks like a pattern: patterns are not supported, and the host \
             receives only messages published on a channel with exactly this name",
            loaded.source("keys.channel")
        ));
    }
    warnings
}

/// Names this program to the build scripts of plugins, which call it.
const BINARY_VARIABLE: &str = "HOST_BINARY";

/// A warning for each environment variable with the prefix `HOST_` that is no setting. The value is not shown.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    const PREFIX: &str = "HOST_";
    let others = [super::layers::FILE_VARIABLE, PluginConfig::VARIABLE, BINARY_VARIABLE].map(str::to_owned);
    let known: Vec<String> = SETTINGS.iter().flat_map(|setting| setting.variables()).chain(others).collect();
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort();
    let warning = |name: String| {
        let candidates = known.iter().map(|name| (name.clone(), name.clone()));
        let hint = super::file::nearest(&name, candidates, "", "");
        let hint = if hint.is_empty() { "; `host --help` lists all settings".to_owned() } else { hint };
        format!("the environment variable {name} is not a setting and is ignored{hint}")
    };
    unknown.into_iter().map(warning).collect()
}

/// Without this check a misspelt level would count as the name of a module, and would disable all other log lines.
fn log_level_problem(level: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let levels = level.split(',').map(|directive| directive.rsplit('=').next().unwrap_or(directive).trim());
    let wrong = levels.into_iter().find(|level| !LEVELS.contains(&level.to_lowercase().as_str()));
    let directives = "or directives such as warn,host::intake=debug";
    match (wrong, tracing_subscriber::EnvFilter::try_new(level)) {
        (Some(wrong), _) => Some(format!("`{wrong}` must be one of {} {directives}", LEVELS.join(", "))),
        (None, Err(error)) => Some(format!("{error}; it must be one of {} {directives}", LEVELS.join(", "))),
        (None, Ok(_)) => None,
    }
}

struct Check<'a> {
    loaded: &'a Loaded,
    problems: Vec<String>,
}

impl Check<'_> {
    /// Adds a problem that names these settings with value and source, unless `holds`.
    fn require(&mut self, holds: bool, paths: &[&str], problem: &str) {
        if holds {
            return;
        }
        let named = paths.iter().map(|path| {
            let setting = SETTINGS.iter().find(|setting| setting.path() == *path);
            let output =
                || self.loaded.config.outputs.iter().find(|output| outputs::path(&output.name, outputs::KEY) == *path);
            let value = match setting {
                Some(setting) => self.loaded.shown(setting),
                None => output().map(|output| output.key.clone()),
            };
            let value = value.map_or("not set".to_owned(), |value| format!("`{value}`"));
            format!("{path} is {value} ({})", self.loaded.source(path))
        });
        let named = named.collect::<Vec<_>>().join(", ");
        self.problems.push(format!("{named}: {problem}"));
    }

    /// Whoever reaches the listener can read payloads and send commands.
    fn http(&mut self) {
        let http = &self.loaded.config.http;
        self.require(
            http.cert_file.is_some() == http.key_file.is_some(),
            &["http.cert_file", "http.key_file"],
            "a certificate needs both files",
        );
        let is_local = http.address.is_none_or(|address| address.ip().is_loopback());
        self.require(
            is_local || http.token.is_some() || http.token_file.is_some(),
            &["http.address"],
            "an address that other machines can reach needs a token: put one into HOST_HTTP_TOKEN, or name a file with \
             --http-token-file; `openssl rand -hex 32` makes a token",
        );
    }

    /// Two keys with the same name would overwrite each other's data.
    fn keys_differ(&mut self) {
        let config = &self.loaded.config;
        let keys: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| setting.section == "keys" && setting.key != "channel")
            .map(|setting| (setting.path(), (setting.get)(&self.loaded.config).unwrap_or_default()))
            .chain(config.outputs.iter().map(|output| (outputs::path(&output.name, outputs::KEY), output.key.clone())))
            .collect();
        for (index, (path, name)) in keys.iter().enumerate() {
            if let Some((other, _)) = keys[..index].iter().find(|(_, other)| other == name) {
                self.require(false, &[other, path], "two keys must not have the same name");
            }
        }
        let prefixes = [
            (&config.keys.claim_prefix, "keys.claim_prefix"),
            (&config.keys.permit_prefix, "keys.permit_prefix"),
            (&config.keys.state_prefix, "keys.state_prefix"),
        ];
        for output in config.outputs.iter() {
            let path = outputs::path(&output.name, outputs::KEY);
            for (prefix, prefix_path) in prefixes {
                let is_longer = output.key != *prefix && output.key.starts_with(prefix.as_str());
                self.require(!is_longer, &[prefix_path, &path], "a stream must not have a name with this prefix");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_log_level_is_refused() {
        for level in ["info", "WARN", "off", "warn,host::intake=debug", "host=trace"] {
            assert_eq!(log_level_problem(level), None, "{level}");
        }
        for level in ["inof", "", "warn,host::intake", "host=loud", "1 2"] {
            assert!(log_level_problem(level).is_some(), "{level}");
        }
    }
}

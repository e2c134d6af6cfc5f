//! Conditions that a single value cannot show: forms of text, and conditions between settings.
//! Each has its reason beside it.

use std::time::Duration;

use super::redis_url;
use super::{Loaded, PluginConfig, SETTINGS};

/// A killed host leaves `consumer:ids` one interval after its last heartbeat expired; 10 s are promised,
/// and one of them is for a busy Redis and a slow script.
const BEAT_TOTAL_MAX: Duration = Duration::from_secs(9);

/// What is wrong with values that are valid each for itself.
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
        "together they must be at most 9s, so that the list of consumers is true 10s after a host was killed",
    );
    // Messages that were heard before the first mark of a subscription have no position. Only their claims tell whether they were
    // appended, for half of the window, and they may have to wait for the lease.
    check.require(
        config.dedup_window >= 2 * intake.lease_ttl,
        &["dedup_window", "intake.lease_ttl"],
        "the dedup window must be at least twice the lease; otherwise messages that are received while a subscription begins \
         could be lost when the active host dies",
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

/// What a running host needs and other commands do without.
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
    problems.extend(masked_plugin_config(loaded));
    problems
}

/// Values of the plugin's configuration that are none.
pub(super) fn masked_plugin_config(loaded: &Loaded) -> Vec<String> {
    let problem = |key: &str| {
        let (source, section) = (&loaded.plugin_config_sources[key], PluginConfig::SECTION);
        format!(
            "{source}: the value of {section}.{key} is masked (***), as `host config` prints it: put the value in its \
             place, or give it with {} or --{}",
            PluginConfig::VARIABLE,
            PluginConfig::FLAG
        )
    };
    loaded.config.plugin_config.masked_keys().map(problem).collect()
}

/// What is valid and yet probably not meant.
pub(super) fn warnings(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut warnings = Vec::new();
    let channel = &config.keys.channel;
    if channel.contains(['*', '?', '[']) {
        warnings.push(format!(
            "keys.channel is `{channel}` ({}), which looks like a pattern: patterns are not supported, and only messages \
             published on a channel of exactly this name are received",
            loaded.source("keys.channel")
        ));
    }
    warnings
}

/// Environment variables that look like settings and are none; a sentence each, without the value.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    const PREFIX: &str = "HOST_";
    let others = [super::layers::FILE_VARIABLE, PluginConfig::VARIABLE].map(str::to_owned);
    let known: Vec<String> = SETTINGS.iter().flat_map(|setting| setting.variables()).chain(others).collect();
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort();
    let warning = |name: String| {
        let candidates = known.iter().map(|name| (name.clone(), name.clone()));
        let hint = super::file::nearest(&name, candidates, "", "");
        let hint = if hint.is_empty() { "; `host --help` names all of them".to_owned() } else { hint };
        format!("the environment variable {name} is no setting and is ignored{hint}")
    };
    unknown.into_iter().map(warning).collect()
}

/// A misspelt level would be taken for the name of a module and switch everything else off.
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
    /// Notes a problem with these settings, each with its value and source, unless `holds`.
    fn require(&mut self, holds: bool, paths: &[&str], problem: &str) {
        if holds {
            return;
        }
        let named = paths.iter().map(|path| {
            let setting = SETTINGS.iter().find(|setting| setting.path() == *path);
            let value = setting.and_then(|setting| self.loaded.shown(setting));
            let value = value.map_or("not set".to_owned(), |value| format!("`{value}`"));
            format!("{path} is {value} ({})", self.loaded.source(path))
        });
        let named = named.collect::<Vec<_>>().join(", ");
        self.problems.push(format!("{named}: {problem}"));
    }

    /// Two kinds of data under one key would destroy each other.
    fn keys_differ(&mut self) {
        let keys: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| setting.section == "keys" && setting.key != "channel")
            .map(|setting| (setting.path(), (setting.get)(&self.loaded.config)))
            .collect();
        for (index, (path, name)) in keys.iter().enumerate() {
            if let Some((other, _)) = keys[..index].iter().find(|(_, other)| other == name) {
                self.require(false, &[other, path], "two keys must not have the same name");
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

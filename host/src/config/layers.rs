//! Merges flags, environment, file and defaults, and records the source of each value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::outputs::{self, NamedOutput, OUTPUTS_MAX, Outputs};
use super::{Config, Kind, PluginConfig, SETTINGS, Setting, file, plugin_config, rules};

/// Environment variable that names the file when `--config` does not.
pub(super) const FILE_VARIABLE: &str = "HOST_CONFIG";

/// The arguments of the command line.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Values by the name of their flag, without its dashes.
    pub flags: BTreeMap<&'static str, String>,
    /// Every `--plugin-config KEY=VALUE`, in order. The last value of a repeated key counts.
    pub plugin_config: Vec<String>,
}

impl Given {
    /// Adds the arguments that were given later. The later value wins.
    pub fn overlay(&mut self, later: Given) {
        self.file = later.file.or(self.file.take());
        self.flags.extend(later.flags);
        self.plugin_config.extend(later.plugin_config);
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No layer sets the value.
    Default,
    /// The file, with line and column of the value.
    File(PathBuf, usize, usize),
    /// This environment variable.
    Variable(String),
    /// This flag, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Source::Variable(name) => f.write_str(name),
            Source::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// An invalid configuration, with all of its problems.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not valid:\n  {}", problems.join("\n  "))]
pub struct ConfigError {
    /// A sentence for each problem, with source, value and valid form.
    pub problems: Vec<String>,
}

/// A valid configuration and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read, if one was named.
    pub file: Option<PathBuf>,
    /// In the order of `SETTINGS`.
    pub(super) sources: Vec<Source>,
    /// By the paths of the named outputs' values; those that are not set are not there.
    pub(super) output_sources: BTreeMap<String, Source>,
    /// By the keys of the plugin's configuration.
    pub(super) plugin_config_sources: BTreeMap<String, Source>,
}

/// Loads the configuration. `variable` looks up an environment variable.
///
/// # Errors
///
/// If the file cannot be read, or if any source contains an unknown key or a wrong value, even when a stronger source
/// overrides that value.
pub fn load(given: &Given, variable: impl Fn(&str) -> Option<OsString>) -> Result<Loaded, ConfigError> {
    let mut layers = Layers {
        loaded: Loaded {
            config: Config::default(),
            file: None,
            sources: vec![Source::Default; SETTINGS.len()],
            output_sources: BTreeMap::new(),
            plugin_config_sources: BTreeMap::new(),
        },
        problems: Vec::new(),
    };
    // An empty variable counts as unset: shells and service files unset a variable like this.
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let named = given.file.clone().map(|path| (path, "--config"));
    let path = named.or_else(|| variable(FILE_VARIABLE).map(|path| (path.into(), FILE_VARIABLE)));
    if let Some((path, named_by)) = path {
        layers.add_file(&path, named_by);
        layers.loaded.file = Some(path);
    }
    for (index, setting) in SETTINGS.iter().enumerate() {
        for name in setting.variables().iter().rev() {
            if let Some(text) = layers.text(name, variable(name)) {
                layers.set(index, &text, Source::Variable(name.clone()));
            }
        }
        if let Some(text) = given.flags.get(setting.flag()) {
            layers.set(index, text, Source::Flag(setting.flag()));
        }
    }
    if let Some(text) = layers.text(PluginConfig::VARIABLE, variable(PluginConfig::VARIABLE)) {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        layers.add_plugin_config(lines, &Source::Variable(PluginConfig::VARIABLE.to_owned()));
    }
    let flags = given.plugin_config.iter().map(String::as_str);
    layers.add_plugin_config(flags, &Source::Flag(PluginConfig::FLAG));
    layers.loaded.name_what_was_not_named();
    // Rules between settings make sense only when every single value is valid.
    if layers.problems.is_empty() {
        layers.problems = rules::problems(&layers.loaded);
    }
    match layers.problems {
        problems if problems.is_empty() => Ok(layers.loaded),
        problems => Err(ConfigError { problems }),
    }
}

struct Layers {
    loaded: Loaded,
    problems: Vec<String>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, named_by: &str) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let path = path.display();
                return self.problems.push(format!(
                    "{named_by}: cannot read the configuration file {path}: {error}; name a readable file, or leave \
                     the file out"
                ));
            }
        };
        let contents = file::parse(&text);
        // Relative paths need a folder to start at, and a pipe has none.
        let folder = path.parent().filter(|_| path.is_file());
        let source = |place: file::Place| Source::File(path.to_owned(), place.line, place.column);
        for (index, mut text, place) in contents.entries {
            if let (Kind::File, Some(folder), false) = (SETTINGS[index].kind, folder, text.is_empty()) {
                // An absolute path stays as it is.
                text = folder.join(text).to_string_lossy().into_owned();
            }
            self.set(index, &text, source(place));
        }
        for output in contents.outputs {
            self.add_output(output, &source);
        }
        for (key, value, place) in contents.plugin_config {
            self.loaded.set_plugin_config(key, value, source(place));
        }
        let problems = contents.problems.into_iter();
        self.problems.extend(problems.map(|(place, problem)| format!("{}: {problem}", source(place))));
    }

    fn add_output(&mut self, output: file::Output, source: &dyn Fn(file::Place) -> Source) {
        let file::Output { name, place, values } = output;
        let section = format!("{}.{name}", Outputs::SECTION);
        if self.loaded.config.outputs.len() == OUTPUTS_MAX {
            let problem = format!("{}: `{section}` is one output too many; there may be {OUTPUTS_MAX}", source(place));
            return self.problems.push(problem);
        }
        if !values.iter().any(|(key, _, _)| *key == outputs::KEY) {
            let example = format!("write the name of its stream, such as `key = \"messages:{name}\"`");
            self.problems.push(format!("{}: {section} has no key; {example}", source(place)));
        }
        let mut named = NamedOutput { name, key: String::new(), length_max: outputs::LENGTH.default_value() };
        for (key, text, place) in values {
            let read = match key {
                outputs::KEY => outputs::NAME.read(&text).map(|key| named.key = key),
                _ => outputs::LENGTH.read(&text).map(|length_max| named.length_max = length_max),
            };
            let path = outputs::path(&named.name, key);
            match read {
                Ok(()) => drop(self.loaded.output_sources.insert(path, source(place))),
                Err(problem) => {
                    self.problems.push(format!("{}: `{text}` is not valid for {path}: {problem}", source(place)));
                }
            }
        }
        self.loaded.config.outputs.insert(named);
    }

    /// The text of an environment variable that is set.
    fn text(&mut self, name: &str, value: Option<OsString>) -> Option<String> {
        let text = value?.into_string();
        text.map_err(|_| self.problems.push(format!("{name}: the value is not UTF-8"))).ok()
    }

    /// Adds every `KEY=VALUE`. A problem names the position of the pair, because the pair may contain a secret.
    fn add_plugin_config<'a>(&mut self, pairs: impl Iterator<Item = &'a str>, source: &Source) {
        for (index, pair) in pairs.enumerate() {
            match plugin_config::parse(pair) {
                Ok((key, value)) => self.loaded.set_plugin_config(key, value, source.clone()),
                Err(problem) => self.problems.push(format!("{source}, number {}: {problem}", index + 1)),
            }
        }
    }

    fn set(&mut self, index: usize, text: &str, source: Source) {
        let setting = &SETTINGS[index];
        match (setting.set)(&mut self.loaded.config, text) {
            Ok(()) => self.loaded.sources[index] = source,
            Err(problem) => {
                let value = setting.shown(text);
                self.problems.push(format!("{source}: `{value}` is not valid for {}: {problem}", setting.path()));
            }
        }
    }
}

impl Loaded {
    /// The configuration for a running host.
    ///
    /// # Errors
    ///
    /// If a value is missing that only a running host needs.
    pub fn into_runnable(self) -> Result<Config, ConfigError> {
        match rules::missing(&self) {
            problems if problems.is_empty() => Ok(self.config),
            problems => Err(ConfigError { problems }),
        }
    }

    /// The configuration for a command that only tries a plugin, such as `host test`.
    ///
    /// # Errors
    ///
    /// If a value of the plugin's own configuration is masked.
    pub fn into_triable(self) -> Result<Config, ConfigError> {
        match rules::masked_plugin_config(&self) {
            problems if problems.is_empty() => Ok(self.config),
            problems => Err(ConfigError { problems }),
        }
    }

    /// A warning for each of these environment variables that has the prefix of a setting and is none.
    pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
        rules::unknown_variables(names.filter_map(|name| name.into_string().ok()))
    }

    /// A warning for each valid value that is probably a mistake.
    pub fn warnings(&self) -> Vec<String> {
        rules::warnings(self)
    }

    fn set_plugin_config(&mut self, key: String, value: String, source: Source) {
        self.plugin_config_sources.insert(key.clone(), source);
        self.config.plugin_config.insert(key, value);
    }

    /// The value as errors and `host config` show it: without a password.
    pub(super) fn shown(&self, setting: &Setting) -> Option<String> {
        let text = (setting.get)(&self.config)?;
        Some(if setting.is_secret() { setting.shown(&text) } else { text })
    }

    /// Where the value of the setting with this path came from.
    pub(super) fn source(&self, path: &str) -> &Source {
        if let Some(source) = self.output_sources.get(path) {
            return source;
        }
        let index = SETTINGS.iter().position(|setting| setting.path() == path);
        index.map_or(&Source::Default, |index| &self.sources[index])
    }

    /// Derives the names of keys that were not set. Two groups with different output streams must not share an inbox
    /// because only the output stream was named.
    fn name_what_was_not_named(&mut self) {
        let defaults = Config::default().keys;
        let leaders = [
            (defaults.output, self.config.keys.output.clone()),
            (defaults.consumer_ids, self.config.keys.consumer_ids.clone()),
        ];
        for (setting, source) in SETTINGS.iter().zip(&self.sources) {
            let Some(default) = setting.default().filter(|_| setting.section == "keys") else {
                continue;
            };
            let leader = leaders.iter().find(|(name, _)| default.starts_with(&format!("{{{name}}}")));
            if let (Some((old, new)), Source::Default) = (leader, source) {
                let name = default.replacen(&format!("{{{old}}}"), &with_hash_tag(new), 1);
                (setting.set)(&mut self.config, &name).expect("a name that is not empty is valid");
            }
        }
    }
}

/// Prefix that makes Redis Cluster keep a key in the same slot as the key `name`.
fn with_hash_tag(name: &str) -> String {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    match tag {
        Some(tag) if !tag.is_empty() => name.to_owned(),
        _ => format!("{{{name}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let flags = flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect();
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
        load(&Given { flags, ..Given::default() }, find)
    }

    #[test]
    fn every_default_and_every_bound_can_be_read() {
        let mut config = Config::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default() {
                assert_eq!((setting.set)(&mut config, default), Ok(()), "{}", setting.path());
            }
            if let Some((min, max)) = setting.bounds() {
                assert_eq!((setting.set)(&mut config, min), Ok(()), "{}", setting.path());
                assert_eq!((setting.set)(&mut config, max), Ok(()), "{}", setting.path());
            }
        }
        loaded(&[], &[]).expect("the defaults satisfy every rule");
    }

    #[test]
    fn every_name_belongs_to_one_setting() {
        let mut names = std::collections::BTreeSet::new();
        for setting in SETTINGS {
            for name in setting.variables().into_iter().chain([setting.path(), format!("--{}", setting.flag())]) {
                assert!(names.insert(name.clone()), "{name}");
            }
        }
    }

    #[test]
    fn the_established_variable_yields_to_our_own() {
        let both = [("REDIS_URL", "redis://a"), ("HOST_REDIS", "redis://b")];
        assert_eq!(loaded(&[], &both[..1]).expect("valid").config.redis.url, "redis://a");
        assert_eq!(loaded(&[], &both).expect("valid").config.redis.url, "redis://b");
        assert_eq!(loaded(&[("redis", "redis://c")], &both).expect("valid").config.redis.url, "redis://c");
        let empty = [("REDIS_URL", "redis://a"), ("HOST_REDIS", "")];
        assert_eq!(loaded(&[], &empty).expect("valid").config.redis.url, "redis://a");
    }

    #[test]
    fn keys_follow_the_output_stream_unless_they_are_named() {
        let keys = loaded(&[("output-key", "orders"), ("dead-key", "graveyard")], &[]).expect("valid").config.keys;
        assert_eq!((keys.inbox.as_str(), keys.dead.as_str()), ("{orders}:inbox", "graveyard"));
        assert_eq!(
            (keys.claim_prefix.as_str(), keys.heartbeat.as_str()),
            ("{orders}:claim:", "{consumer:ids}:heartbeat")
        );
        let keys = loaded(&[("output-key", "{app}:orders")], &[]).expect("valid").config.keys;
        assert_eq!(keys.inbox, "{app}:orders:inbox");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let error = loaded(&[("consumers", "10001")], &[("HOST_DRAIN_TIMEOUT", "soon")]).expect_err("both are wrong");
        assert_eq!(error.problems.len(), 2);
        assert_eq!(error.problems[0], "--consumers: `10001` is not valid for consumers: it must be from 0 to 10000");
    }

    #[test]
    fn a_debug_print_holds_no_password() {
        let loaded = loaded(&[("redis", "redis://:secret@h")], &[]).expect("valid");
        assert!(!format!("{loaded:?}").contains("secret"));
    }
}

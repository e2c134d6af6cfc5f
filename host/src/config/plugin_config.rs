//! The plugin's own configuration: the only open section, with keys that only the plugin knows. The values may be
//! secrets, so no value is ever shown.

use std::collections::BTreeMap;
use std::fmt;

use super::redis_url::MASK;

/// Maximum number of keys.
pub(super) const KEYS_MAX: usize = 1_000;

/// Maximum length of all keys and values together.
pub(super) const BYTES_MAX: usize = 64 << 10;

/// The plugin's own configuration: text by its key, in the order of the keys. A debug print shows no value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PluginConfig(BTreeMap<String, String>);

impl PluginConfig {
    /// Heading in the help and in the file.
    pub const HEADING: &str = "Plugin configuration";
    /// Section of the file.
    pub const SECTION: &str = "plugin_config";
    /// Flag without its dashes, given once for each key.
    pub const FLAG: &str = "plugin-config";
    /// Environment variable, with a line for each key.
    pub const VARIABLE: &str = "HOST_PLUGIN_CONFIG";

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub(super) fn insert(&mut self, key: String, value: String) {
        self.0.insert(key, value);
    }

    /// Problems of all keys and values together.
    pub(super) fn problems(&self) -> Vec<String> {
        let keys = self.0.len();
        let bytes: usize = self.iter().map(|(key, value)| key.len() + value.len()).sum();
        let mut problems = Vec::new();
        if keys > KEYS_MAX {
            problems.push(format!("{} has {keys} keys; it may have at most {KEYS_MAX}", Self::SECTION));
        }
        if bytes > BYTES_MAX {
            let (section, kib) = (Self::SECTION, BYTES_MAX >> 10);
            problems.push(format!(
                "the keys and values of {section} are {bytes} bytes long; together they may be at most {kib}KiB"
            ));
        }
        problems
    }

    /// Keys with a masked value (`***`), as `host config` prints it.
    pub(super) fn masked_keys(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, value)| *value == MASK).map(|(key, _)| key)
    }
}

impl FromIterator<(String, String)> for PluginConfig {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> PluginConfig {
        PluginConfig(pairs.into_iter().collect())
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|key| (key, MASK))).finish()
    }
}

/// Splits `KEY=VALUE`. The error does not show the value.
pub(super) fn parse(pair: &str) -> Result<(String, String), String> {
    const VALID: &str = "write KEY=VALUE";
    let Some((key, value)) = pair.split_once('=') else {
        return Err(format!("there is no `=` in it; {VALID}"));
    };
    if key.is_empty() {
        return Err(format!("there is no key before the `=`; {VALID}"));
    }
    // A space beside the `=` would become part of the key or of the value.
    if key.trim() != key {
        return Err(format!("the key `{}` has a space beside it; {VALID} without spaces around the `=`", key.trim()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse("key=value"), pair("key", "value"));
        assert_eq!(parse("a.b c=x = y\n "), pair("a.b c", "x = y\n "));
        assert_eq!(parse("key="), pair("key", ""));
        for (wrong, words) in [("", "no `=`"), ("key", "no `=`"), ("=secret", "no key"), ("key = secret", "`key`")] {
            let problem = parse(wrong).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn its_size_has_a_bound() {
        let of = |keys: usize, bytes: usize| -> PluginConfig {
            (0..keys).map(|key| (format!("{key:04}"), "x".repeat(bytes))).collect()
        };
        assert_eq!(of(KEYS_MAX, 0).problems(), Vec::<String>::new());
        assert_eq!(of(1, BYTES_MAX - 4).problems(), Vec::<String>::new());
        assert_eq!(of(KEYS_MAX + 1, 0).problems(), ["plugin_config has 1001 keys; it may have at most 1000"]);
        let long = "the keys and values of plugin_config are 65537 bytes long; together they may be at most 64KiB";
        assert_eq!(of(1, BYTES_MAX - 3).problems(), [long]);
    }

    #[test]
    fn a_debug_print_shows_keys_only() {
        let config: PluginConfig = [("key".to_owned(), "secret".to_owned())].into_iter().collect();
        assert_eq!(format!("{config:?}"), r#"{"key": "***"}"#);
    }
}

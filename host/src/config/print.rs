//! Prints the configuration in effect as a configuration file.

use std::fmt::Write as _;

use super::outputs::{self, NAME_BYTES_MAX, OUTPUTS_MAX, Outputs};
use super::plugin_config::{BYTES_MAX, KEYS_MAX};
use super::redis_url::{self, MASK};
use super::value::Kind;
use super::{Loaded, NamedOutput, PluginConfig, SETTINGS, Setting};
use crate::printable::is_hidden;

impl Loaded {
    /// The configuration as commented TOML, without passwords and without the values of the plugin's own configuration.
    /// With `sources`, each comment names the source of the value.
    pub fn to_toml(&self, sources: bool) -> String {
        let mut text = String::from(
            "# Configuration of `host`. Order of precedence: flag, environment variable, this file, default.\n\
             # A setting that is commented out has no value. Relative paths start at the folder of this file.\n",
        );
        let mut section = None;
        for (setting, source) in SETTINGS.iter().zip(&self.sources) {
            if section != Some(setting.section) {
                section = Some(setting.section);
                push_section(&mut text, setting.heading, setting.section);
            }
            push_comment(&mut text, setting);
            if sources {
                push_line(&mut text, &format!("# from: {source}"));
            }
            self.push_value(&mut text, setting);
        }
        self.push_outputs(&mut text, sources);
        self.push_plugin_config(&mut text, sources);
        text
    }

    fn push_value(&self, text: &mut String, setting: &Setting) {
        let Some(value) = self.shown(setting) else {
            let nothing = if setting.kind == Kind::List { "[]" } else { "\"\"" };
            return push_line(text, &format!("#{} = {nothing}", setting.key));
        };
        if setting.kind == Kind::Token {
            push_line(
                text,
                "# The token is masked. `host` refuses to run with ***: set HOST_HTTP_TOKEN, or name a file with the token.",
            );
        } else if setting.kind == Kind::Password {
            let variable = setting.variables().swap_remove(0);
            push_line(
                text,
                &format!("# The password is masked. `host` refuses to run with ***: set {variable}, or name a file."),
            );
        } else if setting.is_secret() && redis_url::is_masked(&value) {
            push_line(text, "# The password is masked. `host` refuses to log in with ***: set HOST_REDIS to the whole");
            push_line(text, "# URL, or write the password here and make this file readable for your user only.");
        }
        match setting.kind {
            Kind::Number | Kind::Ratio | Kind::Switch => push_line(text, &format!("{} = {value}", setting.key)),
            Kind::List => {
                let items: Vec<String> = value.split(',').map(quoted).collect();
                push_line(text, &format!("{} = [{}]", setting.key, items.join(", ")));
            }
            // Absolute, because the user may save this text in any folder.
            Kind::File => {
                let path = std::path::absolute(&value).map_or(value, |path| path.to_string_lossy().into_owned());
                push_line(text, &format!("{} = {}", setting.key, quoted(&path)));
            }
            _ => push_line(text, &format!("{} = {}", setting.key, quoted(&value))),
        }
    }

    fn push_outputs(&self, text: &mut String, sources: bool) {
        push_section(text, Outputs::HEADING, "");
        push_line(text, "\n# Streams beside the main output, to which a plugin may send single results by name.");
        push_line(
            text,
            "# key is the name of the stream. length_max is the approximate number of results to keep; 0 keeps all.",
        );
        push_line(
            text,
            &format!(
                "# (no flag, no variable; up to {OUTPUTS_MAX} outputs; a name has up to {NAME_BYTES_MAX} characters: a to z, 0 to 9, -)"
            ),
        );
        if self.config.outputs.len() == 0 {
            push_line(text, &format!("#[{}.fraud]", Outputs::SECTION));
            push_line(text, "#key = \"messages:fraud\"");
            return push_line(text, "#length_max = 0");
        }
        for NamedOutput { name, key, length_max } in self.config.outputs.iter() {
            push_line(text, &format!("[{}.{name}]", Outputs::SECTION));
            for (word, value) in [(outputs::KEY, quoted(key)), (outputs::LENGTH_MAX, length_max.to_string())] {
                if sources {
                    push_line(text, &format!("# from: {}", self.source(&outputs::path(name, word))));
                }
                push_line(text, &format!("{word} = {value}"));
            }
        }
    }

    fn push_plugin_config(&self, text: &mut String, sources: bool) {
        let (flag, variable, kib) = (PluginConfig::FLAG, PluginConfig::VARIABLE, BYTES_MAX >> 10);
        push_section(text, PluginConfig::HEADING, PluginConfig::SECTION);
        push_line(text, "\n# The plugin's own keys. A value is text, a number, true or false. The plugin reads all");
        push_line(text, "# values through wasi:config, as text.");
        let facts = format!("--{flag} KEY=VALUE, once for each key; {variable}, a line KEY=VALUE for each key");
        push_line(text, &format!("# ({facts}; up to {KEYS_MAX} keys and {kib}KiB)"));
        if self.plugin_config_sources.is_empty() {
            return push_line(text, "#key = \"value\"");
        }
        push_line(text, "# The values are masked, and `host` refuses to run with ***: set the values with");
        push_line(text, &format!("# {variable}, or write them here and make this file readable for your user only."));
        for (key, source) in &self.plugin_config_sources {
            if sources {
                push_line(text, &format!("# from: {source}"));
            }
            push_line(text, &format!("{} = \"{MASK}\"", key_text(key)));
        }
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn push_section(text: &mut String, heading: &str, section: &str) {
    push_line(text, &format!("\n# ---- {heading} ----"));
    if !section.is_empty() {
        push_line(text, &format!("[{section}]"));
    }
}

fn push_comment(text: &mut String, setting: &Setting) {
    text.push('\n');
    for line in setting.doc() {
        push_line(text, format!("# {line}").trim_end());
    }
    let mut facts = vec![format!("--{}", setting.flag()), setting.variables().join(" or ")];
    facts.extend(match (setting.kind, setting.bounds()) {
        (Kind::Choice(words), _) => Some(words.join(" or ")),
        (_, Some((min, max))) => Some(format!("from {min} to {max}")),
        _ => None,
    });
    facts.push(setting.default().map_or("no default".to_owned(), |default| format!("default {default}")));
    push_line(text, &format!("# ({})", facts.join("; ")));
}

/// A TOML key, quoted only if necessary.
fn key_text(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { key.to_owned() } else { quoted(key) }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_hidden(c) => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_quoting() {
        for text in ["plain", "q\"uo\\te", "new\nline\ttab\u{7f}\u{85}", "ключ {tag}:*", ""] {
            let table: toml::Table = format!("key = {}", quoted(text)).parse().expect("valid TOML");
            assert_eq!(table["key"].as_str(), Some(text));
        }
    }
}

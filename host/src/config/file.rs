//! Reads a configuration file: which settings and plugin keys the file sets, at which place, and which parts cannot be
//! understood. This file does not validate values; it passes on their text.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::outputs::{self, Outputs};
use super::value::Kind;
use super::{PluginConfig, SETTINGS, Setting};

/// Line and column, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Contents of a file. The lists are in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Index in `SETTINGS`, text form of the value, and place of the value.
    pub(super) entries: Vec<(usize, String, Place)>,
    /// The named outputs.
    pub(super) outputs: Vec<Output>,
    /// Key and value of the plugin's own configuration, and place of the value.
    pub(super) plugin_config: Vec<(String, String, Place)>,
    /// A sentence for each problem, and its place.
    pub(super) problems: Vec<(Place, String)>,
}

/// A named output, as the file sets it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) place: Place,
    /// Key and text form of each value, and place of the value.
    pub(super) values: Vec<(&'static str, String, Place)>,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> Contents {
    let mut reader = Reader { text, contents: Contents::default() };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim_end().replace('\n', "; ");
            reader.problem(at, format!("this is not TOML: {message}"));
        }
    }
    let mut contents = reader.contents;
    contents.entries.sort_by_key(|(_, _, place)| *place);
    contents.outputs.sort_by_key(|output| output.place);
    contents.plugin_config.sort_by_key(|(_, _, place)| *place);
    contents.problems.sort();
    contents
}

struct Reader<'a> {
    text: &'a str,
    contents: Contents,
}

impl Reader<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let at = key.span().start;
            let key = key.get_ref().as_ref();
            let index = SETTINGS.iter().position(|setting| setting.section == section && setting.key == key);
            match (index, value.get_ref()) {
                (Some(index), _) => self.value(index, value),
                (None, DeValue::Table(inner)) if section.is_empty() && key == PluginConfig::SECTION => {
                    self.plugin_config(inner);
                }
                (None, DeValue::Table(inner)) if section.is_empty() && key == Outputs::SECTION => self.outputs(inner),
                (None, DeValue::Table(_)) if section == "output" => {
                    self.problem(
                        at,
                        format!("unknown section `[output.{key}]`; did you mean `[{}.{key}]`?", Outputs::SECTION),
                    );
                }
                (None, DeValue::Table(inner)) if section.is_empty() && is_section(key) => self.table(key, inner),
                (None, DeValue::Table(_)) if section.is_empty() => {
                    let hint = nearest(key, sections().map(|name| (name, name.to_owned())), "[", "]");
                    self.problem(at, format!("unknown section `[{key}]`{hint}"));
                }
                (None, _) if section.is_empty() && is_section(key) => {
                    self.problem(at, format!("`{key}` is a section: write its settings below a line `[{key}]`"));
                }
                (None, _) => {
                    let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
                    self.problem(at, format!("unknown key `{path}`{}", nearest_setting(section, key)));
                }
            }
        }
    }

    fn value(&mut self, index: usize, value: &Spanned<DeValue<'_>>) {
        let setting = &SETTINGS[index];
        let at = value.span().start;
        match (setting.kind, value.get_ref()) {
            (Kind::Number | Kind::Size, DeValue::Integer(number)) if number.radix() == 10 => {
                self.entry(index, number.as_str(), at);
            }
            (Kind::Ratio, DeValue::Integer(number)) if number.radix() == 10 => self.entry(index, number.as_str(), at),
            (Kind::Ratio, DeValue::Float(number)) => self.entry(index, number.as_str(), at),
            (Kind::List, DeValue::Array(items)) => {
                let texts: Option<Vec<&str>> = items
                    .iter()
                    .map(|item| match item.get_ref() {
                        DeValue::String(text) if !text.contains(',') => Some(text.as_ref()),
                        _ => None,
                    })
                    .collect();
                match texts {
                    Some(texts) if texts.is_empty() => {}
                    Some(texts) => self.entry(index, &texts.join(","), at),
                    None => self.problem(at, format!("{} must be a list of texts such as [\"carts\"]", setting.path())),
                }
            }
            (Kind::List, DeValue::String(text)) => self.entry(index, text, at),
            (Kind::List, _) => self.wrong_type(setting, value, "a list of texts such as [\"carts\"]"),
            (Kind::Switch, DeValue::Boolean(on)) => self.entry(index, &on.to_string(), at),
            (Kind::Switch, _) => self.wrong_type(setting, value, "true or false without quotes"),
            (Kind::Number, _) => self.wrong_type(setting, value, "a whole number without quotes such as 10"),
            (Kind::Ratio, _) => self.wrong_type(setting, value, "a number without quotes such as 0.01"),
            (_, DeValue::String(text)) => self.entry(index, text, at),
            (Kind::Size, _) => self.wrong_type(setting, value, "a number of bytes or text such as \"64KiB\""),
            (Kind::Duration, _) => {
                self.wrong_type(setting, value, "text with a unit of time such as \"250ms\", \"3s\" or \"5m\"");
            }
            (
                Kind::Text
                | Kind::Property
                | Kind::Address
                | Kind::Endpoint
                | Kind::Token
                | Kind::Password
                | Kind::File
                | Kind::Choice(_),
                _,
            ) => {
                self.wrong_type(setting, value, "text in quotes");
            }
        }
    }

    /// A section for each name.
    fn outputs(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            let section = format!("{}.{name}", Outputs::SECTION);
            match (outputs::name_problem(name), value.get_ref()) {
                (Some(problem), _) => self.problem(at, format!("`{section}` is no name for an output: {problem}")),
                (None, DeValue::Table(inner)) => self.output(name, at, inner),
                (None, _) => {
                    let example = format!("`[{section}]` with a line `key = \"messages:{name}\"`");
                    self.problem(at, format!("`{section}` is a section: write {example}"));
                }
            }
        }
    }

    fn output(&mut self, name: &str, at: usize, table: &DeTable<'_>) {
        let mut values = Vec::new();
        for (key, value) in table {
            let (key_at, key, at) = (key.span().start, key.get_ref().as_ref(), value.span().start);
            match (key, value.get_ref()) {
                (outputs::KEY, DeValue::String(text)) => values.push((outputs::KEY, text.to_string(), self.place(at))),
                (outputs::LENGTH_MAX, DeValue::Integer(number)) if number.radix() == 10 => {
                    values.push((outputs::LENGTH_MAX, number.to_string(), self.place(at)));
                }
                (outputs::KEY | outputs::LENGTH_MAX, other) => {
                    let valid =
                        if key == outputs::KEY { "text in quotes" } else { "a whole number without quotes such as 10" };
                    let (path, kind) = (outputs::path(name, key), other.type_str());
                    self.problem(at, format!("{path} is of type {kind}; it must be {valid}"));
                }
                _ => {
                    // The flag of the main output's bound is named differently.
                    let word = if key.replace('-', "_") == "max_length" { outputs::LENGTH_MAX } else { key };
                    let known = [outputs::KEY, outputs::LENGTH_MAX];
                    let hint = nearest(
                        &word.replace('-', "_"),
                        known.map(|key| (key, outputs::path(name, key))).into_iter(),
                        "",
                        "",
                    );
                    let hint = if hint.is_empty() { format!("; an output has {}", known.join(" and ")) } else { hint };
                    self.problem(key_at, format!("unknown key `{}`{hint}", outputs::path(name, key)));
                }
            }
        }
        let place = self.place(at);
        self.contents.outputs.push(Output { name: name.to_owned(), place, values });
    }

    /// Any key is valid, and any value with an obvious text form.
    fn plugin_config(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let text = match value.get_ref() {
                _ if key.get_ref().is_empty() => {
                    self.problem(key.span().start, format!("a key of {} is empty", PluginConfig::SECTION));
                    continue;
                }
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(on) => on.to_string(),
                other => {
                    let (kind, path) = (other.type_str(), format!("{}.{}", PluginConfig::SECTION, key.get_ref()));
                    let hint = if other.is_table() { "; a key with a dot in it is written in quotes" } else { "" };
                    let valid = "text in quotes, a number, true or false";
                    self.problem(value.span().start, format!("{path} is of type {kind}; it must be {valid}{hint}"));
                    continue;
                }
            };
            self.contents.plugin_config.push((key.get_ref().to_string(), text, self.place(value.span().start)));
        }
    }

    fn wrong_type(&mut self, setting: &Setting, value: &Spanned<DeValue<'_>>, valid: &str) {
        let kind = value.get_ref().type_str();
        self.problem(value.span().start, format!("{} is of type {kind}; it must be {valid}", setting.path()));
    }

    fn entry(&mut self, index: usize, text: &str, at: usize) {
        self.contents.entries.push((index, text.to_owned(), self.place(at)));
    }

    fn problem(&mut self, at: usize, problem: String) {
        self.contents.problems.push((self.place(at), problem));
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let fixed = SETTINGS.iter().map(|setting| setting.section).filter(|section| !section.is_empty());
    fixed.chain([Outputs::SECTION, PluginConfig::SECTION])
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

/// The key that was probably meant: a similar key in the same section, else a similar key or flag anywhere.
fn nearest_setting(section: &str, key: &str) -> String {
    let key = &key.replace('-', "_");
    let here = SETTINGS.iter().filter(|setting| setting.section == section);
    let hint = nearest(key, here.map(|setting| (setting.key, setting.path())), "", "");
    if !hint.is_empty() {
        return hint;
    }
    let anywhere = SETTINGS.iter().flat_map(|setting| {
        let flag = setting.flag().replace('-', "_");
        [(setting.key.to_owned(), setting.path()), (flag, setting.path())]
    });
    match nearest(key, anywhere, "", "") {
        hint if hint.is_empty() => "; `host config` prints all keys".to_owned(),
        hint => hint,
    }
}

/// "; did you mean …?" for the candidate most similar to `word`, or an empty text if no candidate is similar.
pub(super) fn nearest<N: AsRef<str>>(
    word: &str,
    candidates: impl Iterator<Item = (N, String)>,
    open: &str,
    close: &str,
) -> String {
    let distances = candidates.map(|(name, path)| (strsim::damerau_levenshtein(word, name.as_ref()), path));
    match distances.min_by_key(|(distance, _)| *distance) {
        Some((distance, path)) if distance <= (word.chars().count() / 3).max(1) => {
            format!("; did you mean `{open}{path}{close}`?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, usize, String) {
        let Contents { problems, .. } = parse(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        (problems[0].0.line, problems[0].0.column, problems[0].1.clone())
    }

    #[test]
    fn a_key_that_is_almost_right_is_named() {
        let (line, column, text) = problem("# comment\nconsumer = 1\n");
        assert_eq!((line, column), (2, 1));
        assert_eq!(text, "unknown key `consumer`; did you mean `consumers`?");
        assert!(problem("[redis]\n ur1 = 'x'").2.ends_with("did you mean `redis.url`?"));
        assert!(problem("[registri]\n").2.ends_with("did you mean `[registry]`?"));
    }

    #[test]
    fn a_key_in_the_wrong_place_or_named_like_its_flag_is_found() {
        assert!(problem("max-message-bytes = 1").2.ends_with("did you mean `message.bytes_max`?"));
        assert!(problem("report-interval = '3s'").2.ends_with("did you mean `report_interval`?"));
        assert!(problem("[redis]\nconsumers = 1").2.ends_with("did you mean `consumers`?"));
        assert!(problem("colour = 'blue'").2.ends_with("`host config` prints all keys"));
    }

    #[test]
    fn values_of_another_type_are_refused_where_they_stand() {
        assert_eq!(problem("consumers = \"10\"").1, 13);
        assert!(problem("report_interval = 3").2.contains("\"3s\""));
        assert!(problem("redis = 'redis://h'").2.contains("[redis]"));
        assert!(problem("log_format = true").2.contains("text in quotes"));
        assert!(problem("consumers = 0x10").2.contains("whole number"));
    }

    #[test]
    fn sizes_are_numbers_or_text() {
        let Contents { entries, problems, .. } =
            parse("[message]\nbytes_max = 1_000\n[intake]\nbuffer_bytes_max = '1MiB'");
        assert_eq!(problems, []);
        let texts: Vec<_> = entries.iter().map(|(_, text, place)| (text.as_str(), place.line)).collect();
        assert_eq!(texts, [("1000", 2), ("1MiB", 4)]);
    }

    #[test]
    fn a_plugins_configuration_has_keys_of_its_own_and_values_of_text() {
        let text = "[plugin_config]\nz = ''\n\"a.b c\" = 'x\\y'\nn = 1_000\nhex = 0xFf\nf = 1.50\non = true\n";
        let Contents { plugin_config, problems, .. } = parse(text);
        assert_eq!(problems, []);
        let pairs: Vec<_> = plugin_config.iter().map(|(key, value, _)| (key.as_str(), value.as_str())).collect();
        let read = [("z", ""), ("a.b c", "x\\y"), ("n", "1000"), ("hex", "0xFf"), ("f", "1.50"), ("on", "true")];
        assert_eq!(pairs, read);
        assert_eq!(plugin_config[1].2, Place { line: 3, column: 11 });
    }

    #[test]
    fn a_named_output_has_a_section_of_its_own() {
        let text = "[outputs.b]\nlength_max = 1_000\nkey = 's:b'\n\n[outputs.a]\nkey = 's:a'\n";
        let Contents { outputs, problems, .. } = parse(text);
        assert_eq!(problems, []);
        assert_eq!(
            outputs.iter().map(|output| (&*output.name, output.place.line)).collect::<Vec<_>>(),
            [("b", 1), ("a", 5)]
        );
        let mut values: Vec<_> =
            outputs[0].values.iter().map(|(key, text, place)| (*key, &**text, place.line)).collect();
        values.sort_unstable();
        assert_eq!(values, [("key", "s:b", 3), ("length_max", "1000", 2)]);
    }

    #[test]
    fn a_named_output_that_is_almost_right_is_refused_where_it_stands() {
        for (text, place, words) in [
            ("[outputs.Fraud]\nkey = 's'", (1, 10), "`outputs.Fraud` is no name for an output: a name has 1 to 64"),
            ("[outputs.main]\nkey = 's'", (1, 10), "stands for the main output"),
            ("[outputs]\nfraud = 's'", (2, 1), "write `[outputs.fraud]` with a line `key = \"messages:fraud\"`"),
            ("[outputs.a]\n kye = 's'", (2, 2), "unknown key `outputs.a.kye`; did you mean `outputs.a.key`?"),
            ("[outputs.a]\nmax-length = 5", (2, 1), "did you mean `outputs.a.length_max`?"),
            ("[outputs.a]\ncolour = 5", (2, 1), "an output has key and length_max"),
            ("[outputs.a]\nkey = 5", (2, 7), "outputs.a.key is of type integer; it must be text in quotes"),
            ("[outputs.a]\nlength_max = '5'", (2, 14), "it must be a whole number"),
            ("[output.fraud]\nkey = 's'", (1, 9), "did you mean `[outputs.fraud]`?"),
            ("[output5.fraud]", (1, 2), "unknown section `[output5]`; did you mean `[output"),
            ("outputs = 1", (1, 1), "`outputs` is a section"),
        ] {
            let (line, column, problem) = problem(text);
            assert_eq!((line, column), place, "{text}");
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_plugins_configuration_has_one_level() {
        for (text, place, words) in [
            (
                "[plugin_config]\n  list = [1]",
                (2, 10),
                "plugin_config.list is of type array; it must be text in quotes",
            ),
            ("[plugin_config]\na.b = 'secret'", (2, 1), "plugin_config.a is of type table"),
            ("[plugin_config]\na.b = 'secret'", (2, 1), "a key with a dot in it is written in quotes"),
            ("[plugin_config.a]\nb = 'secret'", (1, 1), "plugin_config.a is of type table"),
            ("[plugin_config]\nday = 1979-05-27", (2, 7), "of type datetime"),
            ("[plugin_config]\n'' = 'secret'", (2, 1), "a key of plugin_config is empty"),
            ("plugin_config = 'secret'", (1, 1), "`plugin_config` is a section"),
            ("[plugin_confg]", (1, 2), "did you mean `[plugin_config]`?"),
            ("[redis.plugin_config]", (1, 8), "unknown key `redis.plugin_config`"),
        ] {
            let (line, column, problem) = problem(text);
            assert_eq!((line, column), place, "{text}");
            assert!(problem.contains(words) && !problem.contains("secret"), "{problem}");
        }
    }
}

//! Properties of every configuration, valid or not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::value::Value as _;
use super::*;
use crate::arbitrary::cases;

const PASSWORD: &str = "Geh3im";

/// A valid value for the setting: within the bounds, in the form of the setting's kind.
fn valid(setting: &'static Setting) -> BoxedStrategy<String> {
    let bounds = setting.bounds().unwrap_or(("1", "1000"));
    match setting.kind {
        Kind::Choice(words) => select(words.to_vec()).prop_map(str::to_owned).boxed(),
        Kind::Switch => select(vec!["true".to_owned(), "false".to_owned()]).boxed(),
        Kind::Number => {
            let bound = |text: &str| u64::parse(text).unwrap();
            (bound(bounds.0)..=bound(bounds.1)).prop_map(|number| number.to_string()).boxed()
        }
        Kind::Size => {
            let bound = |text: &str| usize::parse(text).unwrap();
            let any = bound(bounds.0)..=bound(bounds.1);
            prop_oneof![any.clone(), any.prop_map(move |size| (size >> 10 << 10).max(bound(bounds.0)))]
                .prop_map(|size| size.text().unwrap())
                .boxed()
        }
        Kind::Duration => {
            let bound = |text: &str| u64::try_from(Duration::parse(text).unwrap().as_nanos()).unwrap();
            let any = bound(bounds.0)..=bound(bounds.1);
            prop_oneof![any.clone(), any.prop_map(move |ns| (ns / 1_000_000 * 1_000_000).max(bound(bounds.0)))]
                .prop_map(|ns| Duration::from_nanos(ns).text().unwrap())
                .boxed()
        }
        Kind::Address => "(127\\.0\\.0\\.1|\\[::1\\]):[1-9][0-9]{0,3}".boxed(),
        Kind::Ratio => (0.0..=1.0).prop_map(|ratio: f64| ratio.to_string()).boxed(),
        Kind::Endpoint => "http://([a-z]{1,9}|127\\.0\\.0\\.1|\\[::1\\]):[1-9][0-9]{0,3}(/[a-z]{1,5})?".boxed(),
        Kind::Property => "(/[a-z.]{1,9}){1,3}|[a-z_]{1,9}(\\.[a-z0-9]{1,5}){0,3}".boxed(),
        Kind::Token => "[!-~]{16,40}".boxed(),
        Kind::Password => "[!-~]{1,40}".boxed(),
        Kind::List => "[a-z]{3}1(=[1-9]h)?(,[a-z]{3}2)?".boxed(),
        Kind::File => any::<String>().prop_filter("an empty name is none", |text| !text.is_empty()).boxed(),
        Kind::Text => match setting.path().as_str() {
            "redis.url" => prop_oneof![
                Just("embedded".to_owned()),
                "(redis|rediss)://[a-z]{1,9}(:[1-9][0-9]{0,3})?(/[0-9])?",
                "rediss?\\+sentinel://[a-z]{1,9}(,[a-z]{1,9}:[1-9][0-9]{0,3})?/[a-z]{1,9}(/[0-9])?",
                "unix:///[a-z]{1,9}(\\?db=[0-9])?",
            ]
            .boxed(),
            "log_level" => "(error|WARN|info|off)(,host::[a-z]{1,5}=(debug|trace))?".boxed(),
            _ => any::<String>().prop_filter("an empty text is none", |text| !text.is_empty()).boxed(),
        },
    }
}

/// Some settings, each with valid values for flag, environment and file. Any of the three may be missing.
fn choices() -> impl Strategy<Value = Vec<(usize, [Option<String>; 3])>> {
    let one = (0..SETTINGS.len()).prop_flat_map(|index| {
        let value = || prop::option::weighted(0.6, valid(&SETTINGS[index]));
        (Just(index), [value(), value(), value()])
    });
    vec(one, 0..8).prop_map(|mut all| {
        all.sort_by_key(|(index, _)| *index);
        all.dedup_by_key(|(index, _)| *index);
        all
    })
}

/// The file that sets these values.
fn file(values: impl Iterator<Item = (usize, String)>) -> String {
    let mut text = String::new();
    let mut section = "";
    for (index, value) in values {
        let setting = &SETTINGS[index];
        if setting.section != section {
            section = setting.section;
            text += &format!("[{section}]\n");
        }
        let value =
            if matches!(setting.kind, Kind::Number | Kind::Ratio | Kind::Switch) { value } else { quoted(&value) };
        text += &format!("{} = {value}\n", setting.key);
    }
    text
}

/// A TOML string, all in escapes.
fn quoted(text: &str) -> String {
    let escapes: String = text.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
    format!("\"{escapes}\"")
}

fn texts(config: &Config) -> Vec<(String, Option<String>)> {
    SETTINGS.iter().map(|setting| (setting.path(), (setting.get)(config))).collect()
}

/// Loads a file with this content, and the sources that `more` adds.
fn load_file(
    content: &[u8],
    flags: &[(&'static str, String)],
    variables: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.toml");
    fs::write(&path, content).unwrap();
    let find = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| OsString::from(value));
    load(&Given { file: Some(path), flags: flags.iter().cloned().collect(), ..Given::default() }, find)
}

/// Keys and values of a plugin that can be given by file, environment and flag alike.
fn plugin_pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-c.\"\\\\é]{1,2}( [ab])?", "[^\r\n]{0,6}|=", 0..5)
}

/// The section of the file that sets these keys.
fn plugin_section(pairs: &BTreeMap<String, String>) -> String {
    let lines = pairs.iter().map(|(key, value)| format!("{} = {}\n", quoted(key), quoted(value)));
    format!("[{}]\n{}", PluginConfig::SECTION, lines.collect::<String>())
}

/// Text with the parts of a configuration file in any order.
fn soup() -> impl Strategy<Value = String> {
    let setting = any::<Index>().prop_map(|index| index.get(SETTINGS));
    let part = prop_oneof![
        setting.clone().prop_map(|setting| format!("\n{} = ", setting.key)),
        setting.prop_map(|setting| format!("\n[{}]\n", setting.section)),
        Just(format!("\n[{}]\n", PluginConfig::SECTION)),
        select(vec![
            "=", "[", "]", "\"", "'", "\"\"\"", "{", "}", ".", "#", "\n", "\r", "é", "\u{0}", "_", "1e9", "-0"
        ])
        .prop_map(str::to_owned),
        select(vec![
            "10",
            "\"3s\"",
            "\"1GiB\"",
            "'x'",
            "true",
            "1979-05-27",
            "99999999999999999999999",
            "\"-1ms\"",
            "[1]"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    vec(part, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn no_file_makes_loading_panic(
        content in prop_oneof![3 => soup().prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..60)],
    ) {
        match load_file(&content, &[], &[]) {
            Ok(loaded) => prop_assert!(!loaded.to_toml(true).is_empty()),
            Err(error) => prop_assert!(!error.problems.is_empty()),
        }
    }

    #[test]
    fn flags_beat_variables_beat_the_file_beats_defaults(choices in choices()) {
        let (mut flags, mut variables, mut strongest) = (Vec::new(), Vec::new(), Vec::new());
        for (index, [flag, variable, in_file]) in &choices {
            let setting = &SETTINGS[*index];
            flags.extend(flag.clone().map(|value| (setting.flag(), value)));
            variables.extend(variable.clone().map(|value| (setting.variables()[0].clone(), value)));
            strongest.extend(flag.as_ref().or(variable.as_ref()).or(in_file.as_ref()).map(|value| (setting.flag(), value.clone())));
        }
        let content = file(choices.iter().filter_map(|(index, [_, _, value])| Some((*index, value.clone()?))));
        let layered = load_file(content.as_bytes(), &flags, &variables);
        let alone = load_file(b"", &strongest, &[]);
        match (layered, alone) {
            (Ok(layered), Ok(alone)) => {
                // A relative path in the file starts at the file's folder.
                let without_folders = |texts: Vec<(String, Option<String>)>| -> Vec<(String, Option<String>)> {
                    let is_file = |path: &str| SETTINGS.iter().any(|one| one.path() == path && one.kind == Kind::File);
                    let name = |text: String| std::path::Path::new(&text).file_name().map(|name| format!("{name:?}"));
                    let short = |(path, text): (String, Option<String>)| match is_file(&path) {
                        true => (path, text.and_then(name)),
                        false => (path, text),
                    };
                    texts.into_iter().map(short).collect()
                };
                prop_assert_eq!(without_folders(texts(&layered.config)), without_folders(texts(&alone.config)));
                for (index, [flag, variable, in_file]) in &choices {
                    let is_right = match &layered.sources[*index] {
                        Source::Flag(_) => flag.is_some(),
                        Source::Variable(_) => flag.is_none() && variable.is_some(),
                        Source::File(..) => flag.is_none() && variable.is_none() && in_file.is_some(),
                        Source::Default => flag.is_none() && variable.is_none() && in_file.is_none(),
                    };
                    prop_assert!(is_right, "{}: {:?}", SETTINGS[*index].path(), layered.sources[*index]);
                }
            }
            // Rules between settings judge values, not sources.
            (Err(layered), Err(alone)) => prop_assert_eq!(layered.problems.len(), alone.problems.len()),
            (layered, alone) => prop_assert!(false, "{:?}\n{:?}", layered.err(), alone.err()),
        }
    }

    #[test]
    fn a_printed_configuration_reads_back_the_same(choices in choices(), sources: bool) {
        let flags: Vec<_> = choices.into_iter()
            .filter_map(|(index, [value, _, _])| Some((SETTINGS[index].flag(), value?)))
            .collect();
        if let Ok(loaded) = load_file(b"", &flags, &[]) {
            let printed = loaded.to_toml(sources);
            let again = load_file(printed.as_bytes(), &[], &[]);
            let again = again.map_err(|error| TestCaseError::fail(format!("{error}\n{printed}")))?;
            // A path in a file starts at the file's folder, so it is printed from the root.
            let absolute = |(path, text): (String, Option<String>)| {
                let is_file = SETTINGS.iter().any(|setting| setting.path() == path && setting.kind == Kind::File);
                let from_root = |text: String| std::path::absolute(text).unwrap().to_string_lossy().into_owned();
                let is_secret = |setting: &Setting| matches!(setting.kind, Kind::Token | Kind::Password);
                let is_token = SETTINGS.iter().any(|setting| setting.path() == path && is_secret(setting));
                let shown = if is_token { text.map(|_| redis_url::MASK.to_owned()) } else { text };
                (path, if is_file { shown.map(from_root) } else { shown })
            };
            let expected: Vec<_> = texts(&loaded.config).into_iter().map(absolute).collect();
            prop_assert_eq!(texts(&again.config), expected);
        }
    }
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn a_plugins_configuration_is_put_together_key_by_key(
        in_file in plugin_pairs(), in_variable in plugin_pairs(), by_flag in plugin_pairs(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        fs::write(&path, plugin_section(&in_file)).unwrap();
        let assigned = |pairs: &BTreeMap<String, String>| -> Vec<String> {
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
        };
        let variable = assigned(&in_variable).join("\n\n");
        let find = |name: &str| (name == PluginConfig::VARIABLE).then(|| OsString::from(&variable));
        let given = Given { file: Some(path), plugin_config: assigned(&by_flag), ..Given::default() };
        let loaded = load(&given, find).unwrap();

        let mut expected = in_file;
        expected.extend(in_variable.clone());
        expected.extend(by_flag.clone());
        for (key, source) in &loaded.plugin_config_sources {
            let is_right = match source {
                Source::Flag(_) => by_flag.contains_key(key),
                Source::Variable(_) => in_variable.contains_key(key) && !by_flag.contains_key(key),
                _ => !in_variable.contains_key(key) && !by_flag.contains_key(key),
            };
            prop_assert!(is_right, "{key}: {source}");
        }
        prop_assert_eq!(loaded.plugin_config_sources.len(), expected.len());
        prop_assert_eq!(loaded.config.plugin_config, expected.into_iter().collect::<PluginConfig>());
    }

    #[test]
    fn a_printed_plugin_configuration_has_its_keys_and_none_of_its_values(
        keys in vec(any::<String>().prop_filter("a key is not empty", |key| !key.is_empty()), 1..5),
        around in ".{0,4}", wrong: bool, sources: bool,
    ) {
        let pairs = keys.into_iter().map(|key| (key, format!("{around}{PASSWORD}{around}"))).collect();
        let flags = wrong.then(|| ("consumers", "none".to_owned()));
        let loaded = match load_file(plugin_section(&pairs).as_bytes(), flags.as_slice(), &[]) {
            Ok(loaded) => loaded,
            Err(error) => {
                prop_assert!(wrong && !format!("{error}\n{error:?}").contains(PASSWORD), "{}", error);
                return Ok(());
            }
        };
        let printed = loaded.to_toml(sources);
        let debugged = format!("{loaded:?}");
        prop_assert!(!printed.contains(PASSWORD) && !debugged.contains(PASSWORD), "{}\n{}", printed, debugged);

        let again = load_file(printed.as_bytes(), &[], &[]);
        let again = again.map_err(|error| TestCaseError::fail(format!("{error}\n{printed}")))?;
        prop_assert_eq!(again.to_toml(false), loaded.to_toml(false));
        prop_assert_eq!(again.config.plugin_config.masked_keys().count(), pairs.len());
        prop_assert!(loaded.into_triable().is_ok());
        // A host must refuse masked values.
        prop_assert_eq!(again.into_triable().unwrap_err().problems.len(), pairs.len());
    }
}

/// URLs with a password that differs from every other part of the URL.
fn url_with_password() -> impl Strategy<Value = String> {
    let around = "[!$%&()*+,;=_.~0-9A-Z:@/?#\\[\\]-]{0,6}";
    // For the client library a separator of the query ends the password.
    let in_query = "[!$%()*+,;=_.~0-9A-Z:@/?\\[\\]-]{0,6}";
    prop_oneof![
        ("(redis|rediss|http|)", "[a-z]{0,5}", around, around, "[a-z]{1,5}(:[0-9]{1,4})?(/[0-9])?").prop_map(
            |(scheme, user, before, after, host)| format!("{scheme}://{user}:{before}{PASSWORD}{after}@{host}")
        ),
        (in_query, in_query, "(\\?|\\?db=1&|\\?user=u&pass=x&|\\?pass=x&)", "(|&db=1|#end|&pass=y)").prop_map(
            |(before, after, separator, end)| format!(
                "unix:///run/redis.sock{separator}pass={before}{PASSWORD}{after}{end}"
            )
        ),
    ]
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn no_text_shows_a_password(url in url_with_password(), before in "([a-z:]{0,9}[ `'\"])?", after in "([ `'\"][a-z:@]{0,9})?") {
        let text = format!("{before}{url}{after}");
        prop_assert!(!masked(&text).contains(PASSWORD), "{}", masked(&text));
        prop_assert!(!redis_url::shown(&url).contains(PASSWORD), "{}", redis_url::shown(&url));
    }

    #[test]
    fn nothing_that_is_printed_shows_a_password(
        noise in "[ '\"<>`a-zäöü\\\\]{0,4}", url in url_with_password(), wrong: bool,
    ) {
        let url = url.replace(PASSWORD, &format!("{noise}{PASSWORD}"));
        let mut flags = BTreeMap::from([("redis", url)]);
        if wrong {
            flags.insert("consumers", "none".to_owned());
        }
        let printed = match load(&Given { flags, ..Given::default() }, |_| None) {
            Ok(loaded) => format!("{}\n{:?}\n{:?}", loaded.to_toml(true), loaded, loaded.config.redis),
            Err(error) => format!("{error}\n{error:?}"),
        };
        prop_assert!(!printed.contains(PASSWORD), "{}", printed);
    }

    #[test]
    fn masking_takes_any_text(text in ".{0,40}|[:/@?&=pas ]{0,30}") {
        let shown = masked(&text);
        prop_assert!(shown.len() <= text.len() + 3 * text.len().max(1));
        prop_assert!(text.contains('@') || text.contains("pass=") || shown == text);
    }
}

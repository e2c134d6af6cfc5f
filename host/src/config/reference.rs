//! The handbook's chapter on configuration, generated from the table of settings, so that the two cannot disagree.
//! This file reads no configuration file and no environment.

use super::outputs::{self, NAME_BYTES_MAX, OUTPUTS_MAX, Outputs};
use super::value::Kind;
use super::{PluginConfig, SETTINGS, Setting};

/// The text before the settings.
const INTRODUCTION: &str = r#"# Configuration

<!-- Made by `host config --reference`. Change host/src/config.rs or host/src/config/reference.rs, then run `just docs`. -->

Every setting of `host` is a flag, an environment variable and a key in a configuration file. This chapter describes all
settings. `host --help` has the same texts; `host -h` is a short list.

## Where a value comes from

A value comes from the first of these sources that sets it: flag, environment variable, configuration file, default.

```sh
host config --consumers 50 --dedup-window 1h > host.toml
host --config host.toml --plugin plugins/dist/enrich.wasm --log-format json
```

`host config` prints the configuration in effect as a commented file, for use with `--config`. With `--sources` the file
also names the source of each value:

```sh
host config --sources --consumers 50
```

- The **file** is TOML. `--config FILE` or `HOST_CONFIG` names the file; there is no default file. A relative path inside
  the file starts at the folder of the file. A relative path in a flag or a variable starts at the working directory.
- The **environment variable** of a setting is `HOST_` and the flag in capitals: `--dedup-window` is `HOST_DEDUP_WINDOW`.
  An empty variable counts as unset. `host` warns of variables that begin with `HOST_` and belong to no setting.
- A **wrong value or an unknown key** is an error, which names the place and the valid values. `host` reports all problems
  at once, including wrong values that a stronger source overrides. The exit code is 2.
- **Passwords** in `redis.url`, the token in `http.token` and the values of the plugin's own configuration appear as `***` in
  all output of `host`. A host refuses to run with `***` as a value.

A running host reads the configuration again when the file changes or SIGHUP arrives: see
[reload](reload.md#changing-the-configuration).

## How values are written

| word in `--help` | form of the value |
| --- | --- |
| `N` | a whole number |
| `RATIO` | a number such as `0.01` |
| `DURATION` | a number with a unit of time: `250ms`, `3s`, `5m`, `1h`, `7d` |
| `SIZE` | a number of bytes, with or without a unit: `1048576`, `64KiB`, `1MiB`, `2GiB` |
| `FILE` | a path |
| `ADDRESS` | an IP address with a port: `127.0.0.1:9090`, `[::1]:9090`; or only a port, for `127.0.0.1` |
| `PROPERTY` | names with dots between them, `event.id`, or a JSON pointer, `/event/id` |
| `TEXT`, `TOKEN`, `URL` | any text |
| `LIST` | texts with commas between them: `carts,seen=7d`; in the file a list: `["carts", "seen=7d"]` |
| `WORD` | one of the listed words |
| `true\|false` | a switch: `--flag` or `--flag=true`, and `--flag=false` |

In the file, write numbers and switches without quotes, and all other values in quotes. A `SIZE` may be a plain number.
"#;

/// A sentence at the start of each section.
const SECTIONS: [(&str, &str); 18] = [
    ("", "These settings stand at the top of the file, before the first section."),
    ("redis", "See [Redis](operating.md#redis)."),
    (
        "keys",
        "The name of the output stream identifies a group of hosts. Most other keys derive their names from it, so \
         `keys.output` is enough to separate two groups: see [groups and names](operating.md#groups-and-names).",
    ),
    ("reload", "See [reload](reload.md)."),
    ("output", "See [what is written](writing-plugins.md#what-is-written)."),
    ("intake", "The intake is the part of a host that receives from the channel and appends to the inbox."),
    ("delivery", "A delivery is an inbox entry with one or more messages, which one consumer takes as a whole."),
    ("retry", "See [retries](operating.md#retries)."),
    ("limits", "See [limits](writing-plugins.md#limits)."),
    ("allow", "What is not listed is denied: see [state](state.md)."),
    ("load", "See [how a plugin is loaded](reload.md#how-a-plugin-is-loaded)."),
    ("message", "What a message is, and its limits. See [messages](writing-plugins.md#messages)."),
    ("registry", "How the hosts of a group detect each other, and detect that a host has died."),
    ("http", "See [the HTTP listener](operating.md#the-http-listener)."),
    ("remote", "See [remote consumers](remote-consumers.md)."),
    ("traces", "See [traces](operating.md#traces)."),
    (
        Outputs::SECTION,
        "Streams beside the main output, to which a plugin may send single results by name: see \
         [several outputs](writing-plugins.md#several-outputs).",
    ),
    (
        PluginConfig::SECTION,
        "Keys for the plugin itself: see [configuration of a plugin](writing-plugins.md#configuration-of-a-plugin).",
    ),
];

/// The chapter as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut section = None;
    for setting in SETTINGS {
        if section != Some(setting.section) {
            section = Some(setting.section);
            push_section(&mut text, setting.heading, setting.section);
        }
        push_setting(&mut text, setting);
    }
    push_outputs(&mut text);
    push_section(&mut text, PluginConfig::HEADING, PluginConfig::SECTION);
    let (flag, variable) = (PluginConfig::FLAG, PluginConfig::VARIABLE);
    text + &format!(
        "\n### `--{flag} KEY=VALUE`\n\nvariable `{variable}`, with a line `KEY=VALUE` for each key · any key of the \
         section `[{}]`\n\nOne key of the plugin's own configuration. The flag may be repeated. The stronger source wins \
         key by key.\n",
        PluginConfig::SECTION
    )
}

fn push_outputs(text: &mut String) {
    push_section(text, Outputs::HEADING, Outputs::SECTION);
    let (section, key, length_max) = (Outputs::SECTION, outputs::KEY, outputs::LENGTH_MAX);
    *text += &format!(
        "\nThese settings have neither flag nor variable. The file has a section `[{section}.NAME]` for each output:\n\n\
         ```toml\n[{section}.fraud]\n{key} = \"messages:fraud\"\n{length_max} = 1000000\n```\n\n\
         - A **name** has 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens; `main` is no name for an output. There may be\n  \
         {OUTPUTS_MAX} outputs.\n\
         - `{key}` is the stream to which the results are appended. The setting is required, and the name must differ from those of\n  \
         all other keys. A Redis Cluster, which `host` does not support yet, would need all keys of a group in one slot; names\n  \
         such as `{{messages:processed}}:fraud` are in the slot of the default names.\n\
         - `{length_max}` is the approximate number of results to keep in that stream, from `0` to `1000000000000`. `0`, the default,\n  \
         keeps all.\n\
         - `output.format` and `output.plugin_digest` hold for all outputs.\n\n\
         All hosts of a group should have the same outputs. A change takes effect at the next start of a host.\n"
    );
}

fn push_section(text: &mut String, heading: &str, section: &str) {
    *text += &format!("\n## {heading}\n\n");
    if !section.is_empty() {
        *text += &format!("Section `[{section}]`. ");
    }
    let sentence = SECTIONS.iter().find(|(name, _)| *name == section).map_or("", |(_, sentence)| sentence);
    *text += &format!("{sentence}\n");
}

fn push_setting(text: &mut String, setting: &Setting) {
    *text += &format!("\n### `--{}{}`\n\n", setting.flag(), value_name(setting));
    let variables: Vec<String> = setting.variables().iter().map(|name| format!("`{name}`")).collect();
    let mut facts = vec![format!("key `{}`", setting.path()), format!("variable {}", variables.join(" or "))];
    facts.push(setting.default().map_or("no default".to_owned(), |default| format!("default `{default}`")));
    match (setting.kind, setting.bounds()) {
        (Kind::Choice(words), _) => facts.push(format!("one of `{}`", words.join("`, `"))),
        (_, Some((min, max))) => facts.push(format!("from `{min}` to `{max}`")),
        _ => {}
    }
    *text += &format!("{}\n\n", facts.join(" · "));
    for line in setting.doc() {
        *text += line;
        text.push('\n');
    }
}

fn value_name(setting: &Setting) -> &'static str {
    match setting.kind {
        Kind::Text if setting.is_secret() => " URL",
        Kind::Text => " TEXT",
        Kind::Property => " PROPERTY",
        Kind::Endpoint => " URL",
        Kind::Ratio => " RATIO",
        Kind::Number => " N",
        Kind::Duration => " DURATION",
        Kind::Size => " SIZE",
        Kind::Address => " ADDRESS",
        Kind::Token => " TOKEN",
        Kind::Password => " PASSWORD",
        Kind::List => " LIST",
        Kind::File => " FILE",
        Kind::Choice(_) => " WORD",
        Kind::Switch => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_its_sentence() {
        let mut sections: Vec<&str> = SETTINGS.iter().map(|setting| setting.section).collect();
        sections.dedup();
        sections.extend([Outputs::SECTION, PluginConfig::SECTION]);
        assert_eq!(sections, SECTIONS.map(|(name, _)| name));
    }
}

//! The settings of `config` as flags: one flag for each setting, with the setting's documentation as help.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use crate::config::{Given, Kind, PluginConfig, SETTINGS, Setting};

/// `--config`, a flag for every setting, and `--plugin-config`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    given: Given,
}

impl Flags {
    /// These flags with `over` on top: a value in `over` wins.
    pub fn overlaid_with(mut self, over: Flags) -> Given {
        self.given.overlay(over.given);
        self.given
    }

    /// Name of a flag that was given, for an error that refuses the flag.
    pub fn first(&self) -> Option<&'static str> {
        let file = self.given.file.as_ref().map(|_| "config");
        let plugin_config = self.given.plugin_config.first().map(|_| PluginConfig::FLAG);
        file.or_else(|| self.given.flags.keys().next().copied()).or(plugin_config)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.arg(file_arg()).args(SETTINGS.iter().map(arg)).arg(plugin_config_arg())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Flags { given: given(matches, SETTINGS.iter()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `--config` and the flags that matter to a plugin, for commands that only try a plugin.
#[derive(Clone, Debug, Default)]
pub struct PluginFlags {
    given: Given,
}

impl PluginFlags {
    /// These flags on top of the flags before the command. The error is the name of a flag that the command would
    /// ignore.
    pub fn under(self, before: &Flags) -> Result<Given, &'static str> {
        let mut given = before.given.clone();
        let useless = SETTINGS.iter().filter(|setting| !matters_to_plugins(setting)).map(Setting::flag);
        if let Some(flag) = useless.into_iter().find(|flag| given.flags.contains_key(flag)) {
            return Err(flag);
        }
        given.overlay(self.given);
        Ok(given)
    }
}

impl Args for PluginFlags {
    fn augment_args(command: Command) -> Command {
        let settings = SETTINGS.iter().filter(|setting| matters_to_plugins(setting));
        command.arg(file_arg()).args(settings.map(arg)).arg(plugin_config_arg())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PluginFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let settings = SETTINGS.iter().filter(|setting| matters_to_plugins(setting));
        Ok(PluginFlags { given: given(matches, settings) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Whether a setting affects loading, limits, input or output of a plugin, or the log.
fn matters_to_plugins(setting: &Setting) -> bool {
    matches!(setting.section, "allow" | "limits" | "load" | "message")
        || matches!(setting.flag(), "no-cache" | "trust-cache-folder" | "output-format" | "log-format" | "log-level")
}

fn given<'a>(matches: &ArgMatches, settings: impl Iterator<Item = &'a Setting>) -> Given {
    let value = |setting: &Setting| Some((setting.flag(), matches.get_one::<String>(setting.flag())?.clone()));
    let flags: BTreeMap<_, _> = settings.filter_map(value).collect();
    let plugin_config = matches.get_many::<String>(PluginConfig::FLAG).unwrap_or_default().cloned().collect();
    Given { file: matches.get_one::<PathBuf>("config").cloned(), flags, plugin_config }
}

fn file_arg() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help_heading(SETTINGS[0].heading)
        .help("Configuration file (TOML), as printed by `host config`")
        .long_help(
            "Configuration file (TOML), as printed by `host config`\n\n\
             Flags and environment variables take precedence over the file. \
             An unknown key or a wrong value is an error.\n\n[env: HOST_CONFIG]",
        )
}

fn plugin_config_arg() -> Arg {
    let (variable, section) = (PluginConfig::VARIABLE, PluginConfig::SECTION);
    Arg::new(PluginConfig::FLAG)
        .long(PluginConfig::FLAG)
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help_heading(PluginConfig::HEADING)
        .help("A key of the plugin's own configuration; may be repeated")
        .long_help(format!(
            "A key of the plugin's own configuration; may be repeated\n\n\
             The plugin reads the value through wasi:config. The plugin's author defines the keys. The environment \
             variable has a line KEY=VALUE for each key. For each key, the order of precedence is flag, environment \
             variable, file. Put secrets into the variable or the file: every user of the machine can read the command \
             line.\n\n\
             [env: {variable}] [file: {section}]"
        ))
}

fn arg(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.flag())
        .long(setting.flag())
        .help_heading(setting.heading)
        .hide_short_help(!setting.is_common())
        .help(short_help(setting))
        .long_help(long_help(setting))
        // A value such as -1 is a wrong value, not an unknown flag.
        .allow_hyphen_values(matches!(setting.kind, Kind::Number | Kind::Ratio));
    match setting.kind {
        Kind::Text if setting.is_secret() => arg.value_name("URL"),
        Kind::Text => arg.value_name("TEXT"),
        Kind::Property => arg.value_name("PROPERTY"),
        Kind::Endpoint => arg.value_name("URL"),
        Kind::Ratio => arg.value_name("RATIO"),
        Kind::Number => arg.value_name("N"),
        Kind::Duration => arg.value_name("DURATION"),
        Kind::Size => arg.value_name("SIZE"),
        Kind::Address => arg.value_name("ADDRESS"),
        Kind::Token => arg.value_name("TOKEN"),
        Kind::Password => arg.value_name("PASSWORD"),
        Kind::List => arg.value_name("LIST"),
        Kind::File => arg.value_name("FILE").value_hint(ValueHint::FilePath),
        // With a required `=` the argument after a bare flag is never taken for the value.
        Kind::Switch => arg
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"])),
        Kind::Choice(words) => arg.value_name("WORD").value_parser(PossibleValuesParser::new(words)),
    }
}

fn short_help(setting: &Setting) -> String {
    let summary = setting.doc().next().unwrap_or_default().trim_end_matches('.');
    match setting.default() {
        Some(default) => format!("{summary} [default: {default}]"),
        None => summary.to_owned(),
    }
}

fn long_help(setting: &Setting) -> String {
    let mut help = String::new();
    for line in setting.doc() {
        match line {
            // An empty line of documentation ends a paragraph; the lines within one are wrapped anew.
            "" => help.push_str("\n\n"),
            line if help.is_empty() || help.ends_with('\n') => help.push_str(line),
            line => {
                help.push(' ');
                help.push_str(line);
            }
        }
    }
    help.push_str("\n\n");
    if let Some(default) = setting.default() {
        help.push_str(&format!("[default: {default}] "));
    }
    if let Some((min, max)) = setting.bounds() {
        help.push_str(&format!("[from {min} to {max}] "));
    }
    help + &format!("[env: {}] [file: {}]", setting.variables().join(", "), setting.path())
}

//! The shape of the table of settings in `config.rs`, and the macro that turns its entries into structs.
//! This file knows no particular setting.

use super::Config;
use super::redis_url;
use super::value::{Kind, Value};

/// Everything about one setting except its type, name and documentation, which stand beside it in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    flag: &'static str,
    default: &'static str,
    bounds: Option<(&'static str, &'static str)>,
    variable: Option<&'static str>,
    common: bool,
    secret: bool,
}

/// A setting with the flag `--name` and the environment variable `HOST_NAME`.
pub(super) const fn flag(name: &'static str) -> Spec {
    Spec { flag: name, default: "", bounds: None, variable: None, common: false, secret: false }
}

impl Spec {
    /// The value when no layer sets one. A setting without a default may be absent.
    pub(super) const fn default(self, default: &'static str) -> Spec {
        Spec { default, ..self }
    }

    /// The smallest and the largest valid value.
    pub(super) const fn between(self, min: &'static str, max: &'static str) -> Spec {
        Spec { bounds: Some((min, max)), ..self }
    }

    /// A second environment variable with an established name. `HOST_…` takes precedence.
    pub(super) const fn also(self, variable: &'static str) -> Spec {
        Spec { variable: Some(variable), ..self }
    }

    /// Shown by `-h`. All other settings are shown by `--help` only.
    pub(super) const fn common(self) -> Spec {
        Spec { common: true, ..self }
    }

    /// Shown with `***` in place of a password.
    pub(super) const fn secret(self) -> Spec {
        Spec { secret: true, ..self }
    }

    /// The default as a typed value.
    pub(super) fn default_value<V: Value>(&self) -> V {
        V::parse(self.default).expect("a test parses every default")
    }

    /// Reads a value and checks it against the bounds.
    pub(super) fn read<V: Value>(&self, text: &str) -> Result<V, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let value = V::parse(text)?;
        if let Some((min, max)) = self.bounds {
            let bound = |text| V::parse(text).expect("a test parses every bound");
            if value < bound(min) || value > bound(max) {
                return Err(format!("it must be from {min} to {max}"));
            }
        }
        Ok(value)
    }
}

/// One setting, as flags, variables, files and documentation see it.
#[derive(Debug)]
pub struct Setting {
    /// Section of the file; empty at the top of the file.
    pub section: &'static str,
    /// Key in its section.
    pub key: &'static str,
    /// Heading over the section in the help and in the file.
    pub heading: &'static str,
    pub(super) doc: &'static [&'static str],
    /// Form of the value.
    pub kind: Kind,
    pub(super) spec: Spec,
    /// Parses the text form of a value and stores the value in the configuration.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The text form of the value in the configuration, `None` if the setting is absent.
    pub(super) get: fn(&Config) -> Option<String>,
}

impl Setting {
    /// Path in the file: `redis.url`.
    pub fn path(&self) -> String {
        match self.section {
            "" => self.key.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }

    /// Name of the flag without its dashes.
    pub fn flag(&self) -> &'static str {
        self.spec.flag
    }

    /// Environment variables for the setting, in order of precedence.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("HOST_{}", self.spec.flag.replace('-', "_").to_uppercase());
        std::iter::once(own).chain(self.spec.variable.map(str::to_owned)).collect()
    }

    /// The documentation, line by line.
    pub fn doc(&self) -> impl Iterator<Item = &'static str> {
        self.doc.iter().map(|line| line.trim())
    }

    /// Text form of the default; `None` if the setting is absent by default.
    pub fn default(&self) -> Option<&'static str> {
        Some(self.spec.default).filter(|text| !text.is_empty())
    }

    /// Text forms of the smallest and the largest valid value.
    pub fn bounds(&self) -> Option<(&'static str, &'static str)> {
        self.spec.bounds
    }

    /// Whether the value may contain a password.
    pub fn is_secret(&self) -> bool {
        self.spec.secret
    }

    /// A text that was given as the value, without its secret, even if it is no valid value.
    pub(super) fn shown(&self, text: &str) -> String {
        match self.kind {
            Kind::Token | Kind::Password => redis_url::MASK.to_owned(),
            _ => redis_url::shown(text),
        }
    }

    /// Whether `-h` shows the setting.
    pub fn is_common(&self) -> bool {
        self.spec.common
    }
}

/// Generates the configuration structs, their defaults and the table of settings from one description.
///
/// The first struct is the configuration itself, with one field for each section. In the brackets of a section stand
/// the name of that field and, after `=`, the section's name in the file. The text after the brackets is the heading.
/// An open section is a field that does not consist of settings.
macro_rules! settings {
    (
        $(#[doc = $root_doc:literal])+
        #[derive($($root_derive:ident),+)]
        pub struct $Root:ident, $root_heading:literal {
            $(
                $(#[doc = $root_field_doc:literal])+
                pub $root_field:ident: $RootType:ty = $root_spec:expr;
            )+
        }
        $(
            $(#[doc = $doc:literal])+
            #[derive($($derive:ident),+)]
            pub struct $Section:ident [$section:ident = $name:literal], $heading:literal {
                $(
                    $(#[doc = $field_doc:literal])+
                    pub $field:ident: $Type:ty = $spec:expr;
                )+
            }
        )+
        open sections {
            $(
                $(#[doc = $open_doc:literal])+
                pub $open:ident: $Open:ty;
            )+
        }
    ) => {
        $(#[doc = $root_doc])+
        #[derive($($root_derive),+)]
        pub struct $Root {
            $($(#[doc = $root_field_doc])+ pub $root_field: $RootType,)+
            $($(#[doc = $doc])+ pub $section: $Section,)+
            $($(#[doc = $open_doc])+ pub $open: $Open,)+
        }

        impl Default for $Root {
            fn default() -> Self {
                $Root {
                    $($root_field: $root_spec.default_value(),)+
                    $($section: $Section { $($field: $spec.default_value(),)+ },)+
                    $($open: <$Open>::default(),)+
                }
            }
        }

        $(
            $(#[doc = $doc])+
            #[derive($($derive),+)]
            pub struct $Section {
                $($(#[doc = $field_doc])+ pub $field: $Type,)+
            }
        )+

        /// Every setting, in the order of the help and of the file.
        pub static SETTINGS: &[Setting] = &[
            $(Setting {
                section: "",
                key: stringify!($root_field),
                heading: $root_heading,
                doc: &[$($root_field_doc),+],
                kind: <$RootType as Value>::KIND,
                spec: $root_spec,
                set: |config, text| { config.$root_field = $root_spec.read(text)?; Ok(()) },
                get: |config| config.$root_field.text(),
            },)+
            $($(Setting {
                section: $name,
                key: stringify!($field),
                heading: $heading,
                doc: &[$($field_doc),+],
                kind: <$Type as Value>::KIND,
                spec: $spec,
                set: |config, text| { config.$section.$field = $spec.read(text)?; Ok(()) },
                get: |config| config.$section.$field.text(),
            },)+)+
        ];
    };
}
pub(super) use settings;

//! The shape of the table of settings in `config.rs`, and the macro that turns its entries into structs.
//! It knows no particular setting.

use super::Config;
use super::value::{Kind, Value};

/// Everything about one setting but its type, its name and its documentation, which stand beside it.
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
    /// The value when nothing else is said. Without it the setting is left out by default.
    pub(super) const fn default(self, default: &'static str) -> Spec {
        Spec { default, ..self }
    }

    /// The smallest and the largest valid value.
    pub(super) const fn between(self, min: &'static str, max: &'static str) -> Spec {
        Spec { bounds: Some((min, max)), ..self }
    }

    /// A second environment variable, for a name that others have established. `HOST_…` wins over it.
    pub(super) const fn also(self, variable: &'static str) -> Spec {
        Spec { variable: Some(variable), ..self }
    }

    /// Shown by `-h`. All other settings are shown by `--help` only.
    pub(super) const fn common(self) -> Spec {
        Spec { common: true, ..self }
    }

    /// Shown with `***` for a password in it.
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
    /// What its values look like.
    pub kind: Kind,
    pub(super) spec: Spec,
    /// Writes a value of its text form into the configuration.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The text form of the value in the configuration, `None` where it is left out.
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

    /// Environment variables that set it, the stronger one first.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("HOST_{}", self.spec.flag.replace('-', "_").to_uppercase());
        std::iter::once(own).chain(self.spec.variable.map(str::to_owned)).collect()
    }

    /// What it is for, a line of text for each line.
    pub fn doc(&self) -> impl Iterator<Item = &'static str> {
        self.doc.iter().map(|line| line.trim())
    }

    /// Text form of its default; `None` where it is left out by default.
    pub fn default(&self) -> Option<&'static str> {
        Some(self.spec.default).filter(|text| !text.is_empty())
    }

    /// Text forms of the smallest and the largest valid value.
    pub fn bounds(&self) -> Option<(&'static str, &'static str)> {
        self.spec.bounds
    }

    /// Whether it may hold a password.
    pub fn is_secret(&self) -> bool {
        self.spec.secret
    }

    /// Whether `-h` shows it.
    pub fn is_common(&self) -> bool {
        self.spec.common
    }
}

/// Makes the configuration structs, their defaults and the table of settings out of one description.
///
/// The first struct is the configuration itself and holds one field for each of the others. The word in
/// brackets is a section's field in it, `= "…"` its name in the file, the text after it its heading. The open section
/// is a field that is not made of settings.
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
        open section {
            $(#[doc = $open_doc:literal])+
            pub $open:ident: $Open:ty;
        }
    ) => {
        $(#[doc = $root_doc])+
        #[derive($($root_derive),+)]
        pub struct $Root {
            $($(#[doc = $root_field_doc])+ pub $root_field: $RootType,)+
            $($(#[doc = $doc])+ pub $section: $Section,)+
            $(#[doc = $open_doc])+ pub $open: $Open,
        }

        impl Default for $Root {
            fn default() -> Self {
                $Root {
                    $($root_field: $root_spec.default_value(),)+
                    $($section: $Section { $($field: $spec.default_value(),)+ },)+
                    $open: <$Open>::default(),
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

//! All imports of a guest: one file for each capability, with the names of its interfaces, what a guest finds behind
//! them, how they are linked, and the state in a store.
//!
//! A new capability is a new file and a line in the list below. A file has
//! - `INTERFACES`: the interfaces, with the versions that fit and what they grant,
//! - `State`, with `State::new`: the state in a store, and the capability's part of the store's WASI context,
//! - `link`: adds the functions to a linker.
//!
//! This room knows no engine and no plugin.

use std::sync::Arc;

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::journal::Journal;
use super::limits::{StoreLimits, Usage};
use super::state::Session;
use crate::config::{Buckets, PluginConfig, PluginLimits};

/// Generates for each entry of the list below: the module, a field in the store's state, the names, and the linking.
macro_rules! capabilities {
    ($($capability:ident,)*) => {
        $(mod $capability;)*

        /// All interfaces of all capabilities.
        const INTERFACES: &[&[Interface]] = &[$($capability::INTERFACES),*];

        /// The state of each capability in a store.
        #[expect(dead_code, reason = "most capabilities keep what they have in the WASI context")]
        struct States {
            $($capability: $capability::State,)*
        }

        impl States {
            fn new(setup: &Setup, wasi: &mut WasiCtxBuilder) -> States {
                States { $($capability: $capability::State::new(setup, wasi),)* }
            }
        }

        /// Adds the functions of all capabilities to the linker of this component.
        pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
            $($capability::link(linker, component)?;)*
            Ok(())
        }
    };
}

capabilities! {
    logging,
    configuration,
    context,
    randomness,
    clocks,
    io,
    streams,
    http,
    keyvalue,
    empty,
}

pub use context::Context;
pub use keyvalue::{Bucket, Cas};

/// The version of WASI that every engine has.
const WASI: Versions = Versions::Series("0.2");
/// The version of WASI that the full engine has beside it, with the same grants. Its interfaces are linked for a component that
/// imports one of them: other engines do not have the async functions.
const WASI_0_3: Versions = Versions::Series("0.3");

/// What the host provides for an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The import works.
    Granted,
    /// The import exists without content, so that the component starts: no files, variables or addresses. The text says
    /// what a guest finds.
    Empty(&'static str),
    /// The import does not exist, and the component cannot be used.
    Missing {
        /// The version that the host provides instead, if there is one.
        version: Option<&'static str>,
    },
}

/// What the host provides for an import of this name, such as `wasi:clocks/monotonic-clock@0.2.6`.
pub(super) fn grant(import: &str, buckets: &Buckets) -> Grant {
    let interfaces = || INTERFACES.iter().copied().flatten();
    if let Some(interface) = interfaces().find(|interface| interface.fits(import)) {
        let is_granted = keyvalue::is_asked_by(import) && !buckets.is_empty();
        return if is_granted { Grant::Granted } else { interface.grant.clone() };
    }
    let (name, _) = split(import);
    let other_version = interfaces().find(|interface| interface.name == name);
    Grant::Missing { version: other_version.map(|interface| interface.versions.text()) }
}

/// An interface that a guest may import.
struct Interface {
    /// The name without its version.
    name: &'static str,
    versions: Versions,
    grant: Grant,
}

impl Interface {
    const fn of(name: &'static str, versions: Versions, grant: Grant) -> Interface {
        Interface { name, versions, grant }
    }

    /// Whether an import with this name and version is this interface.
    fn fits(&self, import: &str) -> bool {
        let (name, version) = split(import);
        name == self.name && self.versions.contain(version)
    }
}

/// Numbers of a version: major, minor, patch.
const NUMBERS: usize = 3;

/// Versions that the linker accepts for the same interface.
#[derive(Clone, Copy)]
enum Versions {
    /// Every release with this prefix of its version: such releases are compatible.
    Series(&'static str),
    /// Candidates for a first release, and that release: `preferred` is the version in `wit/`, and hosts of other makers
    /// have others of the same shape. The linker accepts none for another, so each is linked under its own name.
    Draft { series: &'static str, preferred: &'static str, unversioned: bool },
    /// A draft whose shape no other version has.
    Exactly(&'static str),
}

impl Versions {
    fn contain(self, version: &str) -> bool {
        match self {
            Versions::Series(series) => is_release(version, series),
            Versions::Exactly(text) => version == text,
            Versions::Draft { unversioned, .. } if version.is_empty() => unversioned,
            Versions::Draft { series, .. } => {
                let candidate = version.split_once('-').filter(|(_, candidate)| !candidate.is_empty());
                candidate.map_or_else(
                    || is_release(version, series),
                    |(release, _)| release.strip_prefix(series) == Some(".0"),
                )
            }
        }
    }

    fn text(self) -> &'static str {
        match self {
            Versions::Series(text) | Versions::Exactly(text) | Versions::Draft { preferred: text, .. } => text,
        }
    }
}

/// Whether this is the version of a release with this beginning.
fn is_release(version: &str, series: &str) -> bool {
    let rest = version.strip_prefix(series).and_then(|rest| rest.strip_prefix('.'));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_some_and(|rest| rest.split('.').all(is_number)) && version.split('.').count() == NUMBERS
}

/// The names under which a component imports one of these interfaces.
fn imported(component: &Component, interfaces: &[Interface]) -> Vec<String> {
    let imports = component.component_type();
    let names = imports.imports(component.engine()).map(|(name, _)| name.to_owned());
    names.filter(|name| interfaces.iter().any(|interface| interface.fits(name))).collect()
}

/// Whether a component imports WASI 0.3.
fn wants_wasi_0_3(component: &Component) -> bool {
    let imports = component.component_type();
    imports.imports(component.engine()).any(|(name, _)| name.starts_with("wasi:") && WASI_0_3.contain(split(name).1))
}

/// Name and version of an import; the version may be empty.
fn split(import: &str) -> (&str, &str) {
    import.split_once('@').unwrap_or((import, ""))
}

/// Facts about a plugin and its consumer for the capabilities.
pub(super) struct Setup {
    pub(super) journal: Journal,
    pub(super) configuration: Arc<PluginConfig>,
    pub(super) buckets: Arc<Buckets>,
    pub(super) channel: Arc<str>,
    pub(super) generation: u64,
    pub(super) consumer_id: Arc<str>,
    pub(super) usage: Arc<Usage>,
}

/// Whether a component with these imports may ask for the [`Context`] of a call.
pub(super) fn ask_for_context(imports: &[String]) -> bool {
    imports.iter().any(|import| context::is_asked_by(import))
}

/// Whether a component with these imports may use state.
pub(super) fn ask_for_state(imports: &[String]) -> bool {
    imports.iter().any(|import| keyvalue::is_asked_by(import))
}

/// The state of a store: the limits, and the state of every capability.
pub(super) struct Store {
    pub(super) limits: StoreLimits,
    pub(super) journal: Journal,
    wasi: WasiCtx,
    handles: ResourceTable,
    states: States,
}

impl Store {
    pub(super) fn new(limits: &PluginLimits, setup: Setup) -> Store {
        let mut wasi = WasiCtx::builder();
        let states = States::new(&setup, &mut wasi);
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(limits.handles_max as usize);
        let limits = StoreLimits::new(limits, setup.usage);
        Store { limits, journal: setup.journal, wasi: wasi.build(), handles, states }
    }

    /// Replaces the facts that the guest may ask for.
    pub(super) fn begin(&mut self, context: Context<'_>) {
        self.states.context.begin(context);
    }

    /// The state of plugins that the next calls use.
    pub(super) fn follow(&mut self, session: Option<&Arc<Session>>) {
        self.states.keyvalue.follow(session);
    }
}

impl WasiView for Store {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.handles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_as_the_linker_counts_it() {
        let missing = |version| Grant::Missing { version };
        for (import, expected) in [
            ("wasi:random/random@0.2.0", Grant::Granted),
            ("wasi:random/random@0.2.99", Grant::Granted),
            ("wasi:random/random@0.3.0", Grant::Granted),
            ("wasi:random/random@0.3.0-rc-2025-09-16", missing(Some("0.2"))),
            ("wasi:random/random@0.4.0", missing(Some("0.2"))),
            ("wasi:clocks/system-clock@0.3.0", Grant::Granted),
            ("wasi:clocks/wall-clock@0.3.0", missing(Some("0.2"))),
            ("wasi:filesystem/preopens@0.3.1", Grant::Empty("no files")),
            ("wasi:random/random@0.2.0-rc-2023-11-10", missing(Some("0.2"))),
            ("wasi:random/random@0.20.0", missing(Some("0.2"))),
            ("wasi:random/random", missing(Some("0.2"))),
            ("wasi:random/other@0.2.0", missing(None)),
            ("wasi:logging/logging@0.1.0-draft", Grant::Granted),
            ("wasi:logging/logging", Grant::Granted),
            ("wasi:logging/logging@0.1.0-rc.1", Grant::Granted),
            ("wasi:logging/logging@0.1.0", Grant::Granted),
            ("wasi:logging/logging@0.2.0-draft", missing(Some("0.1.0-draft"))),
            ("wasi:logging/logging@0.1.0-", missing(Some("0.1.0-draft"))),
            ("wasi:config/store@0.2.0-rc.1", Grant::Granted),
            ("wasi:config/store@0.2.0-rc.2", Grant::Granted),
            ("wasi:config/store@0.2.0-draft", Grant::Granted),
            ("wasi:config/store@0.2.0-draft-2024-09-27", Grant::Granted),
            ("wasi:config/store@0.2.0", Grant::Granted),
            ("wasi:config/store@0.2.1", Grant::Granted),
            ("wasi:config/store@0.2.1-rc.1", missing(Some("0.2.0-rc.1"))),
            ("wasi:config/store@0.3.0-draft", missing(Some("0.2.0-rc.1"))),
            ("wasi:config/store", missing(Some("0.2.0-rc.1"))),
            ("wasi:config/runtime@0.2.0-draft", missing(None)),
            ("wasi:http/types@0.2.3", Grant::Empty("a call is a trap")),
            ("wasi:http/types@0.3.0", missing(Some("0.2"))),
            ("wasi:keyvalue/store@0.2.0-draft2", Grant::Empty(keyvalue::DENIED)),
            ("wasi:keyvalue/store@0.2.0-draft", missing(Some("0.2.0-draft2"))),
            ("host:plugin/context@1.0.0", Grant::Granted),
            ("host:plugin/context@1.3.1", Grant::Granted),
            ("host:plugin/context@1.0", missing(Some("1"))),
            ("host:plugin/context@2.0.0", missing(Some("1"))),
            ("example:thing/api", missing(None)),
        ] {
            assert_eq!(grant(import, &Buckets::default()), expected, "{import}");
        }
    }
}

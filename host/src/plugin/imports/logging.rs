//! `wasi:logging`: a guest's lines in the host's log.

use tracing::Level;
use wasmtime::StoreContextMut;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::v1::wasi::logging::logging::Level as Theirs;
use super::super::journal::Journal;
use super::{Grant, Interface, Setup, Store, Versions};

/// `0.1.0-draft` is the only published version. Other hosts also provide the interface without a version, as it was
/// before.
const VERSIONS: Versions = Versions::Draft { series: "0.1", preferred: "0.1.0-draft", unversioned: true };

pub(super) const INTERFACES: &[Interface] = &[Interface::of("wasi:logging/logging", VERSIONS, Grant::Granted)];

/// The destination of the lines.
pub(super) struct State {
    journal: Journal,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State { journal: setup.journal.clone() }
    }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    for name in super::imported(component, INTERFACES) {
        linker.instance(&name)?.func_wrap(
            "log",
            |store: StoreContextMut<'_, Store>, (level, context, message): (Theirs, String, String)| {
                store.data().states.logging.journal.log(severity(level), &context, &message);
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn severity(level: Theirs) -> Level {
    match level {
        Theirs::Trace => Level::TRACE,
        Theirs::Debug => Level::DEBUG,
        Theirs::Info => Level::INFO,
        Theirs::Warn => Level::WARN,
        // `tracing` has no level above error.
        Theirs::Error | Theirs::Critical => Level::ERROR,
    }
}

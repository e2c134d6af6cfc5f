//! `wasi:logging`: a guest's lines in the host's log.

use tracing::Level;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::v1::wasi::logging::logging::{self, Host};
use super::super::journal::Journal;
use super::{Grant, Interface, Setup, Store, Versions};

pub(super) const INTERFACES: &[Interface] =
    &[Interface::of("wasi:logging/logging", Versions::Only("0.1.0-draft"), Grant::Granted)];

/// The destination of the lines.
pub(super) struct State {
    journal: Journal,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State { journal: setup.journal.clone() }
    }
}

pub(super) fn link(linker: &mut Linker<Store>, _: &Component) -> wasmtime::Result<()> {
    logging::add_to_linker::<_, HasSelf<State>>(linker, |store| &mut store.states.logging)
}

impl Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let level = match level {
            logging::Level::Trace => Level::TRACE,
            logging::Level::Debug => Level::DEBUG,
            logging::Level::Info => Level::INFO,
            logging::Level::Warn => Level::WARN,
            // `tracing` has no level above error.
            logging::Level::Error | logging::Level::Critical => Level::ERROR,
        };
        self.journal.log(level, &context, &message);
    }
}

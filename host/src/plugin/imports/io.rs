//! `wasi:io`: streams, errors and polling, on which other interfaces are based.

use wasmtime::component::{Component, HasData, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

use super::{Grant, Interface, Setup, Store, WASI};

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:io/error", WASI, Grant::Granted),
    Interface::of("wasi:io/poll", WASI, Grant::Granted),
    Interface::of("wasi:io/streams", WASI, Grant::Granted),
];

/// The store's table of handles contains the open streams.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, _: &mut WasiCtxBuilder) -> State {
        State
    }
}

struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

pub(super) fn link(linker: &mut Linker<Store>, _: &Component) -> wasmtime::Result<()> {
    error::add_to_linker::<Store, Handles>(linker, |store| store.ctx().table)?;
    poll::add_to_linker::<Store, Handles>(linker, |store| store.ctx().table)?;
    streams::add_to_linker::<Store, Handles>(linker, |store| store.ctx().table)
}

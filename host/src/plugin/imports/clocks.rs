//! `wasi:clocks`: the real time of day, a steady clock, and sleep.

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p3;

use super::{Grant, Interface, Setup, Store, WASI, WASI_0_3};

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:clocks/wall-clock", WASI, Grant::Granted),
    Interface::of("wasi:clocks/monotonic-clock", WASI, Grant::Granted),
    Interface::of("wasi:clocks/types", WASI_0_3, Grant::Granted),
    Interface::of("wasi:clocks/system-clock", WASI_0_3, Grant::Granted),
    Interface::of("wasi:clocks/monotonic-clock", WASI_0_3, Grant::Granted),
];

/// The WASI context contains the clocks.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, _: &mut WasiCtxBuilder) -> State {
        State
    }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    if super::wants_wasi_0_3(component) {
        p3::clocks::add_to_linker(linker)?;
    }
    wall_clock::add_to_linker::<Store, WasiClocks>(linker, WasiClocksView::clocks)?;
    monotonic_clock::add_to_linker::<Store, WasiClocks>(linker, WasiClocksView::clocks)
}

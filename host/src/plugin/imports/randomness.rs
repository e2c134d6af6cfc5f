//! `wasi:random`: randomness from the host, a bounded number of bytes in one call.

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p3;
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};
use wasmtime_wasi::WasiCtxBuilder;

use super::{Grant, Interface, Setup, Store, WASI, WASI_0_3};

/// Maximum number of random bytes in one call.
const BYTES_MAX: u64 = 1 << 20;

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:random/random", WASI, Grant::Granted),
    Interface::of("wasi:random/insecure", WASI, Grant::Granted),
    Interface::of("wasi:random/insecure-seed", WASI, Grant::Granted),
    Interface::of("wasi:random/random", WASI_0_3, Grant::Granted),
    Interface::of("wasi:random/insecure", WASI_0_3, Grant::Granted),
    Interface::of("wasi:random/insecure-seed", WASI_0_3, Grant::Granted),
];

/// The WASI context contains the generators.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, wasi: &mut WasiCtxBuilder) -> State {
        wasi.max_random_size(BYTES_MAX);
        State
    }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    if super::wants_wasi_0_3(component) {
        p3::random::add_to_linker(linker)?;
    }
    random::add_to_linker::<Store, WasiRandom>(linker, WasiRandomView::random)?;
    insecure::add_to_linker::<Store, WasiRandom>(linker, WasiRandomView::random)?;
    insecure_seed::add_to_linker::<Store, WasiRandom>(linker, WasiRandomView::random)
}

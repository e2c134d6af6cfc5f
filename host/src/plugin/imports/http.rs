//! `wasi:http`, denied: a component that imports it starts, and a call is a trap.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::{Grant, Interface, Setup, Store, WASI};

const DENIED: Grant = Grant::Empty("a call is a trap");

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:http/types", WASI, DENIED),
    Interface::of("wasi:http/outgoing-handler", WASI, DENIED),
    Interface::of("wasi:http/incoming-handler", WASI, DENIED),
];

/// There is nothing to keep.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, _: &mut WasiCtxBuilder) -> State {
        State
    }
}

/// Puts a trap behind every function of `wasi:http`. Some toolchains import it into every component, whether it
/// calls it or not, so refusing the component would be too much; but no call may look like one that worked.
pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else { continue };
        if !INTERFACES.iter().any(|known| known.fits(name)) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (item, exported) in interface.exports(engine) {
            match exported.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{name}#{item}");
                    instance.func_new(item, move |_, _, _, _| {
                        wasmtime::bail!("it called {called}, which plugins are not granted")
                    })?;
                }
                ComponentItem::Resource(_) => instance.resource(item, resource_type(item), |_, _| Ok(()))?,
                // Types need no definition.
                _ => {}
            }
        }
    }
    Ok(())
}

/// The type behind a resource that a denied interface names: one of `wasi:io`, which is granted, or one of its own.
fn resource_type(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "pollable" => ResourceType::host::<DynPollable>(),
        "error" | "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Never>(),
    }
}

/// Stands for all resources of denied interfaces, of which there is none ever.
enum Never {}

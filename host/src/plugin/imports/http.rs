//! `wasi:http`, denied: a component with this import starts, and a call is a trap.

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

/// A denied interface has no state.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, _: &mut WasiCtxBuilder) -> State {
        State
    }
}

/// Defines every function of `wasi:http` as a trap. Some toolchains import the interface into every component, called
/// or not, so the host does not refuse such a component. A trap makes sure that no call appears to work.
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
                        wasmtime::bail!("the plugin called {called}, which is not granted")
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

/// The type of a resource in a denied interface: a type of `wasi:io`, which is granted, or a type of its own.
fn resource_type(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "pollable" => ResourceType::host::<DynPollable>(),
        "error" | "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Never>(),
    }
}

/// The type of all resources in denied interfaces. No such resource ever exists.
enum Never {}

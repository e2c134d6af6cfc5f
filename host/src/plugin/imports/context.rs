//! `host:plugin/context`: facts about the message in process and about its consumer, for the plugins that ask.

use std::sync::Arc;
use std::time::SystemTime;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::v1::host::plugin::context::{self, Host};
use super::{Grant, Interface, Setup, Store, Versions};
use crate::time::unix_ms;

/// Name without its version.
const NAME: &str = "host:plugin/context";

pub(super) const INTERFACES: &[Interface] = &[Interface::of(NAME, Versions::Series("1"), Grant::Granted)];

/// Facts about a call, for a plugin that imports the interface.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Time at which the host took the message in, in ms since 1970.
    pub received_ms: u64,
    /// The consumer's id, which may change while its instance lives.
    pub consumer_id: &'a str,
}

/// The facts of the present call; until the first one those of the instance's start.
pub(super) struct State {
    channel: Arc<str>,
    generation: u64,
    received_ms: u64,
    consumer_id: Arc<str>,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State {
            channel: Arc::clone(&setup.channel),
            generation: setup.generation,
            received_ms: unix_ms(SystemTime::now()),
            consumer_id: Arc::clone(&setup.consumer_id),
        }
    }

    pub(super) fn begin(&mut self, context: Context<'_>) {
        self.received_ms = context.received_ms;
        if *self.consumer_id != *context.consumer_id {
            self.consumer_id = context.consumer_id.into();
        }
    }
}

/// Whether a component with an import of this name may ask.
pub(super) fn is_asked_by(import: &str) -> bool {
    super::split(import).0 == NAME
}

pub(super) fn link(linker: &mut Linker<Store>, _: &Component) -> wasmtime::Result<()> {
    context::add_to_linker::<_, HasSelf<State>>(linker, |store| &mut store.states.context)
}

impl Host for State {
    fn channel(&mut self) -> String {
        self.channel.to_string()
    }

    fn received_ms(&mut self) -> u64 {
        self.received_ms
    }

    fn consumer_id(&mut self) -> String {
        self.consumer_id.to_string()
    }

    fn generation(&mut self) -> u64 {
        self.generation
    }
}

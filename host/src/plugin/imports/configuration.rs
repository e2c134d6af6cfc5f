//! `wasi:config`: the plugin's own configuration for its instances. This file knows no key, and writes no value to the
//! log.

use std::sync::Arc;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::v1::wasi::config::store::{self, Error, Host};
use super::{Grant, Interface, Setup, Store, Versions};
use crate::config::PluginConfig;

pub(super) const INTERFACES: &[Interface] =
    &[Interface::of("wasi:config/store", Versions::Only("0.2.0-rc.1"), Grant::Granted)];

/// The plugin's configuration, shared by all instances.
pub(super) struct State {
    configuration: Arc<PluginConfig>,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State { configuration: Arc::clone(&setup.configuration) }
    }
}

pub(super) fn link(linker: &mut Linker<Store>, _: &Component) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<State>>(linker, |store| &mut store.states.configuration)
}

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.configuration.get(&key).map(str::to_owned))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.configuration.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

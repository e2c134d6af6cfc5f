//! `wasi:config`: the plugin's own configuration for its instances. This file knows no key, and writes no value to the
//! log.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::v1::wasi::config::store::Error;
use super::{Grant, Interface, Setup, Store, Versions};
use crate::config::PluginConfig;

/// wasmtime and this contract have `0.2.0-rc.1`, wasmCloud has `0.2.0-draft` as well, and Spin has
/// `0.2.0-draft-2024-09-27`.
const VERSIONS: Versions = Versions::Draft { series: "0.2", preferred: "0.2.0-rc.1", unversioned: false };

pub(super) const INTERFACES: &[Interface] = &[Interface::of("wasi:config/store", VERSIONS, Grant::Granted)];

/// The plugin's configuration, shared by all instances.
pub(super) struct State {
    configuration: Arc<PluginConfig>,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State { configuration: Arc::clone(&setup.configuration) }
    }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    for name in super::imported(component, INTERFACES) {
        let mut instance = linker.instance(&name)?;
        instance.func_wrap("get", |store: StoreContextMut<'_, Store>, (key,): (String,)| {
            let value = configuration(&store).get(&key).map(str::to_owned);
            Ok((Ok::<Option<String>, Error>(value),))
        })?;
        instance.func_wrap("get-all", |store: StoreContextMut<'_, Store>, (): ()| {
            let pairs = configuration(&store).iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            Ok((Ok::<Vec<(String, String)>, Error>(pairs),))
        })?;
    }
    Ok(())
}

fn configuration<'a>(store: &'a StoreContextMut<'_, Store>) -> &'a PluginConfig {
    &store.data().states.configuration.configuration
}

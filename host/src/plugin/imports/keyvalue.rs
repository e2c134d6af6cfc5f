//! `wasi:keyvalue`: state in the buckets that the operator has granted. Writes are held back in the [`Session`] of the delivery
//! until the host settles it. This file knows no store.

use std::sync::Arc;

use bytes::Bytes;
use tracing::Level;
use wasmtime::component::{Component, HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiCtxBuilder;

use super::super::bindings::keyvalue::wasi::keyvalue::atomics::{self, CasError};
use super::super::bindings::keyvalue::wasi::keyvalue::batch;
use super::super::bindings::keyvalue::wasi::keyvalue::store::{self, Error, KeyResponse};
use super::super::journal::Journal;
use super::super::state::{Refused, Session};
use super::{Grant, Interface, Setup, Store, Versions};
use crate::config::Buckets;

/// The draft of which Spin and the proposal itself have the same shape.
const VERSIONS: Versions = Versions::Exactly("0.2.0-draft2");

/// What a guest finds without a grant.
pub(super) const DENIED: &str = "access is denied: no bucket is granted; --allow-keyvalue NAME, or [allow] keyvalue = [\"NAME\"] in \
                                 the file, grants one";

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:keyvalue/store", VERSIONS, Grant::Empty(DENIED)),
    Interface::of("wasi:keyvalue/atomics", VERSIONS, Grant::Empty(DENIED)),
    Interface::of("wasi:keyvalue/batch", VERSIONS, Grant::Empty(DENIED)),
];

/// An open bucket.
pub struct Bucket(String);

/// A value that was read.
pub struct Cas {
    bucket: String,
    key: String,
    value: Option<Bytes>,
}

/// What is granted, and the state of the delivery in process.
pub(super) struct State {
    buckets: Arc<Buckets>,
    journal: Journal,
    session: Option<Arc<Session>>,
    /// Whether this instance has already told of a denied bucket.
    has_told: bool,
}

impl State {
    pub(super) fn new(setup: &Setup, _: &mut WasiCtxBuilder) -> State {
        State { buckets: Arc::clone(&setup.buckets), journal: setup.journal.clone(), session: None, has_told: false }
    }

    pub(super) fn follow(&mut self, session: Option<&Arc<Session>>) {
        match (&self.session, session) {
            (None, None) => {}
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (_, new) => self.session = new.cloned(),
        }
    }
}

/// Whether a component with an import of this name may use state.
pub(super) fn is_asked_by(import: &str) -> bool {
    INTERFACES.iter().any(|interface| interface.fits(import))
}

struct Access;

impl HasData for Access {
    type Data<'a> = View<'a>;
}

/// The store's part of the state.
pub(super) struct View<'a> {
    state: &'a mut State,
    handles: &'a mut ResourceTable,
}

fn view(store: &mut Store) -> View<'_> {
    View { state: &mut store.states.keyvalue, handles: &mut store.handles }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    if super::imported(component, INTERFACES).is_empty() {
        return Ok(());
    }
    store::add_to_linker::<Store, Access>(linker, view)?;
    atomics::add_to_linker::<Store, Access>(linker, view)?;
    batch::add_to_linker::<Store, Access>(linker, view)
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::NotGranted(_) => Error::AccessDenied,
            Refused::Other(sentence) => Error::Other(sentence),
        }
    }
}

/// The answer to a guest; the outer result is for what ends the instance.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

impl View<'_> {
    fn name(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<String> {
        Ok(self.handles.get(bucket)?.0.clone())
    }

    /// The state of the message in process.
    fn session(&self) -> Result<Arc<Session>, Error> {
        let none = || Error::Other("state can be used only while a message is processed".to_owned());
        self.state.session.clone().ok_or_else(none)
    }

    fn change(&self, bucket: &Resource<Bucket>, changes: Vec<(String, Option<Vec<u8>>)>) -> Answer<()> {
        let bucket = self.name(bucket)?;
        let changes = changes.into_iter().map(|(key, value)| (key, value.map(Bytes::from))).collect();
        Ok(self.session().and_then(|session| Ok(session.change(&bucket, changes)?)))
    }
}

/// Reads keys. Not a method of the view, which must not be shared while a call waits.
async fn read(session: Result<Arc<Session>, Error>, bucket: &str, keys: &[String]) -> Result<Vec<Option<Bytes>>, Error> {
    Ok(session?.get(bucket, keys).await?)
}

impl store::Host for View<'_> {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        if let Err(refused) = Session::open(&self.state.buckets, &identifier) {
            if !std::mem::replace(&mut self.state.has_told, true) {
                self.state.journal.log(Level::WARN, "", &refused.to_string());
            }
            return Ok(Err(refused.into()));
        }
        Ok(Ok(self.handles.push(Bucket(identifier))?))
    }
}

impl store::HostBucket for View<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let bucket = self.name(&bucket)?;
        let values = read(self.session(), &bucket, &[key]).await;
        Ok(values.map(|mut values| values.pop().flatten().map(Vec::from)))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.change(&bucket, vec![(key, Some(value))])
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        self.change(&bucket, vec![(key, None)])
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let bucket = self.name(&bucket)?;
        Ok(read(self.session(), &bucket, &[key]).await.map(|mut values| values.pop().flatten().is_some()))
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        let (bucket, session) = (self.name(&bucket)?, self.session());
        let session = match session {
            Ok(session) => session,
            Err(error) => return Ok(Err(error)),
        };
        let page = session.list(&bucket, cursor.as_deref()).await;
        Ok(page.map(|(keys, cursor)| KeyResponse { keys, cursor }).map_err(Error::from))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.handles.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        let bucket = self.name(&bucket)?;
        let session = match self.session() {
            Ok(session) => session,
            Err(error) => return Ok(Err(error)),
        };
        Ok(session.increment(&bucket, key, delta).await.map_err(Error::from))
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { bucket, key, value: before } = self.handles.delete(cas)?;
        // Another message's change shows when the message is settled; here it is only this message's own.
        let now = match read(self.session(), &bucket, std::slice::from_ref(&key)).await {
            Ok(mut values) => values.pop().flatten(),
            Err(error) => return Ok(Err(CasError::StoreError(error))),
        };
        if now != before {
            let newer = self.handles.push(Cas { bucket, key, value: now })?;
            return Ok(Err(CasError::CasFailed(newer)));
        }
        let swapped = self.session().and_then(|session| {
            Ok(session.change(&bucket, vec![(key, Some(Bytes::from(value)))])?)
        });
        Ok(swapped.map_err(CasError::StoreError))
    }
}

impl atomics::HostCas for View<'_> {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let bucket = self.name(&bucket)?;
        match read(self.session(), &bucket, std::slice::from_ref(&key)).await {
            Ok(mut values) => {
                let cas = Cas { bucket, key, value: values.pop().flatten() };
                Ok(Ok(self.handles.push(cas)?))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        Ok(Ok(self.handles.get(&cas)?.value.as_ref().map(|value| value.to_vec())))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.handles.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<(String, Option<Vec<u8>>)>> {
        let bucket = self.name(&bucket)?;
        let values = read(self.session(), &bucket, &keys).await;
        Ok(values.map(|values| keys.into_iter().zip(values.into_iter().map(|value| value.map(Vec::from))).collect()))
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        self.change(&bucket, pairs.into_iter().map(|(key, value)| (key, Some(value))).collect())
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        self.change(&bucket, keys.into_iter().map(|key| (key, None)).collect())
    }
}

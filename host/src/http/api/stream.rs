//! Server-sent events: a bound on the clients, a bounded buffer for each, and an end when the host stops. A slow client loses
//! events. One that reads nothing for long loses its connection, as any client does, and with it its place.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::poll_fn;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::http::answer::Problem;

/// Longest silence on a stream.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Places for the clients of one kind of stream.
#[derive(Debug)]
pub(super) struct Slots {
    name: &'static str,
    clients_max: usize,
    /// Events that wait for a client, at most.
    buffer_events: usize,
    free: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(name: &'static str, clients_max: usize, buffer_events: usize) -> Slots {
        Slots { name, clients_max, buffer_events, free: Arc::new(Semaphore::new(clients_max)) }
    }

    /// A place for another client, and the answer to that client.
    pub(super) fn open(&self) -> Result<(Client, Response), Problem> {
        let place = self.free.clone().try_acquire_owned().map_err(|_| {
            let (name, max) = (self.name, self.clients_max);
            let text = format!("{max} clients follow /api/v1/{name} already, which is the bound; close one of them");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let (events, mut buffer) = mpsc::channel(self.buffer_events);
        let stream = poll_fn(move |context| buffer.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>)));
        let ping = KeepAlive::new().interval(PING_INTERVAL).event(Event::default().event("ping").data("{}"));
        let mut answer = Sse::new(stream).keep_alive(ping).into_response();
        // A proxy such as nginx would collect events otherwise.
        answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok((Client { events, _place: place }, answer))
    }
}

/// The other end of a stream.
#[derive(Debug)]
pub(super) struct Client {
    events: mpsc::Sender<Event>,
    _place: OwnedSemaphorePermit,
}

impl Client {
    /// Sends an event, unless the client is too slow. Returns whether it was sent.
    pub(super) fn send(&self, name: &str, data: &impl Serialize) -> bool {
        let Ok(place) = self.events.try_reserve() else { return false };
        // Serialising fails for no type here; such an event would be left out.
        let Ok(event) = Event::default().event(name).json_data(data) else { return true };
        place.send(event);
        true
    }

    /// Feeds the client until it is gone, or the host stops.
    pub(super) fn feed<F>(self, mut stop: watch::Receiver<bool>, feed: impl FnOnce(Client) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let events = self.events.clone();
        let feeding = feed(self);
        tokio::spawn(async move {
            tokio::select! {
                () = feeding => {}
                () = events.closed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

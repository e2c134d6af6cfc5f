//! A connection that is made again whenever it breaks. It knows none of the commands that go over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::RedisError;
use tokio::sync::Mutex;
use tracing::warn;

use super::backoff::Backoff;
use super::connector::{Connector, LibraryConnection};
use crate::counters::Counters;
use crate::throttle::Throttle;

/// A kind of connection that many tasks can share; clones share it.
pub trait Connect: Clone + Send {
    /// Makes one.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    fn connect(connector: &Connector) -> impl Future<Output = Result<Self, RedisError>> + Send;
}

impl Connect for LibraryConnection {
    async fn connect(connector: &Connector) -> Result<LibraryConnection, RedisError> {
        connector.connect().await
    }
}

/// A connection that is made when it is needed and made again when it broke, shared by many tasks.
#[derive(Debug)]
pub struct Reconnecting<C = LibraryConnection> {
    name: &'static str,
    connector: Connector,
    counters: Arc<Counters>,
    current: Mutex<Option<C>>,
    /// Times that the connection was made; 1 is the first.
    made: AtomicU64,
    /// However many tasks share the connection.
    warnings: Throttle,
}

impl<C: Connect> Reconnecting<C> {
    /// A connection for what `name` says; nothing is opened yet.
    #[must_use]
    pub fn new(name: &'static str, connector: Connector, counters: Arc<Counters>) -> Reconnecting<C> {
        Reconnecting {
            name,
            connector,
            counters,
            current: Mutex::new(None),
            made: AtomicU64::new(0),
            warnings: Throttle::default(),
        }
    }

    /// The connection, made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn connection(&self) -> Result<(C, u64), RedisError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref() {
            return Ok((connection.clone(), self.made.load(Ordering::Relaxed)));
        }
        let connection = C::connect(&self.connector).await?;
        *current = Some(connection.clone());
        let before = self.made.fetch_add(1, Ordering::Relaxed);
        self.counters.reconnects.add(usize::from(before > 0));
        Ok((connection, before + 1))
    }

    /// Forgets the connection with this number, unless it has been replaced already.
    pub async fn broken(&self, number: u64) {
        let mut current = self.current.lock().await;
        if self.made.load(Ordering::Relaxed) == number {
            *current = None;
        }
    }

    /// Does something that may be done twice, on a connection that is made again as often as needed, until it
    /// succeeds. It never gives up: what waits here is safe in Redis, and a stop drops the future.
    pub async fn repeat<T, F>(&self, what: &'static str, action: impl Fn(C) -> F) -> T
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.connection().await {
                Ok((connection, number)) => match action(connection).await {
                    Ok(value) => return value,
                    Err(error) => {
                        if breaks_connection(&error) {
                            self.broken(number).await;
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            let wait = backoff.next_wait();
            // The first failure is often one broken connection and over at once.
            if backoff.attempts() > 1
                && let Some(unlogged) = self.warnings.permit()
            {
                let (connection, attempts) = (self.name, backoff.attempts());
                warn!(connection, attempts, unlogged, "could not {what}, trying again: {error}");
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether an error means that the connection is of no use any more. Read-only: after a failover the
/// old address may lead to a replica, and a new connection finds the primary.
#[must_use]
pub fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || error.is_timeout() || error.code() == Some("READONLY")
}

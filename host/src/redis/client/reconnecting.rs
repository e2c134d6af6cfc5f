//! A connection that reconnects after a failure. This file knows no commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::RedisError;
use tokio::sync::Mutex;
use tracing::warn;

use super::backoff::Backoff;
use super::connector::{Connector, LibraryConnection};
use crate::counters::Counters;
use crate::throttle::Throttle;

/// A kind of connection that many tasks can share. Clones share the connection.
pub trait Connect: Clone + Send {
    /// Opens a connection.
    ///
    /// # Errors
    /// Errors of the network or the server.
    fn connect(connector: &Connector) -> impl Future<Output = Result<Self, RedisError>> + Send;
}

impl Connect for LibraryConnection {
    async fn connect(connector: &Connector) -> Result<LibraryConnection, RedisError> {
        connector.connect().await
    }
}

/// A connection that is opened on demand and opened again after a failure, shared by many tasks.
#[derive(Debug)]
pub struct Reconnecting<C = LibraryConnection> {
    name: &'static str,
    connector: Connector,
    counters: Arc<Counters>,
    current: Mutex<Option<C>>,
    /// Number of times that the connection was opened; 1 is the first.
    made: AtomicU64,
    /// Bounds log lines, for all tasks that share the connection.
    warnings: Throttle,
}

impl<C: Connect> Reconnecting<C> {
    /// A connection for the purpose `name`. This call opens nothing.
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

    /// The connection, opened on demand.
    ///
    /// # Errors
    /// When the connection cannot be opened.
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

    /// Drops the connection with this number, unless it is already replaced.
    pub async fn broken(&self, number: u64) {
        let mut current = self.current.lock().await;
        if self.made.load(Ordering::Relaxed) == number {
            *current = None;
        }
    }

    /// Repeats an operation until it succeeds, on a connection that is opened again as often as needed. The operation
    /// must be safe to repeat. The call never gives up: the data of a waiting caller is safe in Redis, and a stop drops
    /// the future.
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
            // The first failure is often a single broken connection, which the next attempt replaces.
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

/// Whether an error means that the connection cannot be used any more. A read-only error counts: after a failover the
/// old address may lead to a replica, and a new connection finds the primary.
#[must_use]
pub fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || error.is_timeout() || error.code() == Some("READONLY")
}

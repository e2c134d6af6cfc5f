//! One connection to Redis for the reads and commands of all clients. A client that waits for Redis does not delay others.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;

use crate::dead_letters::DeadLetters;
use crate::group::Group;
use crate::http::answer::Problem;
use crate::redis::RedisError;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::look::prepare;

/// Opens the connection on demand, and another one after a failure.
pub(super) struct Redis {
    group: Arc<Group>,
    connection: Mutex<Option<LibraryConnection>>,
}

impl Redis {
    pub(super) fn new(group: Arc<Group>) -> Redis {
        Redis { group, connection: Mutex::default() }
    }

    /// Asks Redis. An idle connection may have been cut, and a restarted server has forgotten the scripts: so a failure on a
    /// kept connection is followed by one attempt on a new one. The question may come twice then.
    pub(super) async fn ask<T, F: Future<Output = Result<T, RedisError>>>(
        &self,
        question: impl Fn(LibraryConnection) -> F,
    ) -> Result<T, Problem> {
        let kept = self.kept().clone();
        if let Some(connection) = kept
            && let Ok(answer) = question(connection).await
        {
            return Ok(answer);
        }
        let asked = async {
            let mut connection = self.group.connector.connect().await?;
            prepare(&mut connection).await?;
            let answer = question(connection.clone()).await?;
            *self.kept() = Some(connection);
            Ok(answer)
        };
        asked.await.map_err(|error: RedisError| {
            *self.kept() = None;
            let address = self.group.connector.address();
            let text = format!("cannot do this with Redis at {address} at present: {error}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    /// The same for a question about dead letters.
    pub(super) async fn letters<T, F: Future<Output = Result<T, RedisError>>>(
        &self,
        question: impl Fn(DeadLetters) -> F,
    ) -> Result<T, Problem> {
        self.ask(|connection| question(DeadLetters::new(connection, self.group.keys.clone()))).await
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<LibraryConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

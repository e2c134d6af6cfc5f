//! A connection that many tasks share: commands are sent one after the other, and replies arrive in the same order.
//! This file knows no commands.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use redis::RedisError;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::connection::{Connection, Input, ended, timed_out};
use super::connector::{Connector, RESPONSE_TIMEOUT};
use super::reconnecting::Connect;
use super::resp::{Commands, Replies, malformed};
use super::transport::Transport;

/// Maximum number of waiting bytes for which further commands are collected into one write.
const OUTPUT_BYTES: usize = 1 << 20;

/// A connection that many tasks share. The connection ends with its last clone.
#[derive(Clone, Debug)]
pub struct SharedConnection {
    /// Bounded by the number of tasks, because each task waits for its replies.
    requests: mpsc::UnboundedSender<Request>,
    server: Arc<str>,
}

#[derive(Debug)]
struct Request {
    commands: Commands,
    answer: oneshot::Sender<Bytes>,
}

impl Connect for SharedConnection {
    async fn connect(connector: &Connector) -> Result<SharedConnection, RedisError> {
        let mut connection = Connection::open(connector).await?;
        let server = connection.server().await?;
        let (input, output) = connection.split();
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Carrier { input, output, pending: Vec::new(), written: 0, asked: VecDeque::new() }.run(receiver));
        Ok(SharedConnection { requests, server })
    }
}

impl SharedConnection {
    /// Identity of the server at the other end.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends commands and returns their replies, in order.
    ///
    /// # Errors
    /// Errors of the network, or a timeout. Errors of the server are in the replies.
    pub(in crate::redis) async fn ask(&self, commands: Commands) -> Result<Bytes, RedisError> {
        if commands.is_empty() {
            return Ok(Bytes::new());
        }
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { commands, answer }).map_err(|_| ended())?;
        match timeout(RESPONSE_TIMEOUT, answered).await {
            Ok(answer) => answer.map_err(|_| ended()),
            Err(_) => Err(timed_out("no reply", RESPONSE_TIMEOUT)),
        }
    }
}

/// The task that transfers commands and replies.
struct Carrier {
    input: Input,
    output: WriteHalf<Transport>,
    /// Bytes to write, and the number of bytes already written.
    pending: Vec<u8>,
    written: usize,
    /// Waiting tasks in order, with the number of expected replies.
    asked: VecDeque<(usize, oneshot::Sender<Bytes>)>,
}

impl Carrier {
    /// Runs until the connection fails or all senders are gone. Waiting tasks then get an error instead of replies.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        // Progress of the replies for the first waiting task.
        let mut expected = Replies::expected(0);
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(request) = request else { return };
                    if self.asked.is_empty() {
                        expected = Replies::expected(request.commands.len());
                    }
                    self.add(request);
                    while self.pending.len() < OUTPUT_BYTES && let Ok(request) = requests.try_recv() {
                        self.add(request);
                    }
                }
                written = self.output.write(&self.pending[self.written..]), if self.written < self.pending.len() => {
                    let Ok(written) = written else { return };
                    self.written += written;
                    if self.written == self.pending.len() {
                        self.pending.clear();
                        self.pending.shrink_to(4 * OUTPUT_BYTES);
                        self.written = 0;
                        if self.output.flush().await.is_err() {
                            return;
                        }
                    }
                }
                read = self.input.read() => {
                    if read.is_err() {
                        return;
                    }
                    while !self.asked.is_empty() {
                        let replies = match self.input.take(&mut expected) {
                            Ok(replies) => replies,
                            Err(error) => return warn!("closing a connection to Redis: {error}"),
                        };
                        let Some(replies) = replies else { break };
                        if let Some((_, answer)) = self.asked.pop_front() {
                            // Sending fails if the waiting task was dropped.
                            let _ = answer.send(replies);
                        }
                        expected = Replies::expected(self.asked.front().map_or(0, |(replies, _)| *replies));
                    }
                    // What nobody asked for would be taken for the reply to the next request.
                    if self.asked.is_empty() && !self.input.arrived().is_empty() {
                        return warn!("closing a connection to Redis: {}", malformed());
                    }
                }
            }
        }
    }

    fn add(&mut self, request: Request) {
        self.pending.extend_from_slice(request.commands.bytes());
        self.asked.push_back((request.commands.len(), request.answer));
    }
}

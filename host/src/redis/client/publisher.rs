//! Publishes on a channel, many messages at a time. This file knows pipelines and replies, and no contents of messages.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult};

use super::connector::Connector;

/// Numbers of subscribers of the published messages, from the replies to `PUBLISH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that Redis accepted.
    pub messages: u64,
    /// Messages without a subscriber.
    pub unheard: u64,
    /// Sum of the subscribers of all messages.
    pub sum: u64,
    /// Minimum number of subscribers of a message.
    pub min: u64,
    /// Maximum number of subscribers of a message.
    pub max: u64,
}

impl Received {
    fn add(&mut self, receivers: u64) {
        self.min = if self.messages == 0 { receivers } else { self.min.min(receivers) };
        self.max = self.max.max(receivers);
        self.messages += 1;
        self.sum += receivers;
        self.unheard += u64::from(receivers == 0);
    }
}

type Replies = Pin<Box<dyn Future<Output = RedisResult<Vec<u64>>> + Send>>;

/// Publishes on one channel. Two pipelines are under way at a time: one is encoded while Redis executes the other.
pub struct Publisher {
    connection: MultiplexedConnection,
    channel: String,
    under_way: Option<Pin<Box<MaybeDone<Replies>>>>,
    received: Received,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("channel", &self.channel)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects to publish on `channel`.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn connect(connector: &Connector, channel: &str) -> Result<Publisher, RedisError> {
        let connection = connector.connect_to_primary().await?;
        Ok(Publisher { connection, channel: channel.into(), under_way: None, received: Received::default() })
    }

    /// Sends messages in one pipeline, in order, and waits for the replies to the previous pipeline.
    ///
    /// # Errors
    /// When Redis refuses a message, or the connection breaks. Some messages may be published then.
    pub async fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(messages.len());
        for message in messages {
            pipeline.cmd("PUBLISH").arg(&self.channel).arg(message.as_slice());
        }
        let mut connection = self.connection.clone();
        let replies: Replies = Box::pin(async move { pipeline.query_async(&mut connection).await });
        let mut next = Box::pin(maybe_done(replies));
        // After one poll the pipeline is in the connection's queue, behind the previous one.
        poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_ready())).await;
        let before = self.under_way.replace(next);
        self.count(before).await
    }

    /// Waits for the replies to everything that was sent.
    ///
    /// # Errors
    /// Like [`Publisher::send`].
    pub async fn flush(&mut self) -> Result<(), RedisError> {
        let last = self.under_way.take();
        self.count(last).await
    }

    /// The numbers for all messages with a reply so far.
    #[must_use]
    pub fn received(&self) -> Received {
        self.received
    }

    async fn count(&mut self, replies: Option<Pin<Box<MaybeDone<Replies>>>>) -> Result<(), RedisError> {
        let Some(mut replies) = replies else { return Ok(()) };
        replies.as_mut().await;
        // The output exists, because the replies were just awaited.
        if let Some(replies) = replies.as_mut().take_output() {
            replies?.into_iter().for_each(|receivers| self.received.add(receivers));
        }
        Ok(())
    }
}

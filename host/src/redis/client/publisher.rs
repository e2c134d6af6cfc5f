//! Publishing on a channel, many messages at a time.
//! It knows pipelines and their replies, and nothing of what the messages are.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult};

use super::connector::Connector;

/// How many subscribers the messages that Redis took have had, from the replies to `PUBLISH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that Redis took.
    pub messages: u64,
    /// Messages that nobody received.
    pub unheard: u64,
    /// Receptions together.
    pub sum: u64,
    /// Fewest subscribers that a message had.
    pub min: u64,
    /// Most subscribers that a message had.
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

/// Publishes on one channel. Two pipelines are under way at a time: one is encoded while Redis works on the other.
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
    /// Whatever the network or the server says.
    pub async fn connect(connector: &Connector, channel: &str) -> Result<Publisher, RedisError> {
        let connection = connector.connect().await?;
        Ok(Publisher { connection, channel: channel.into(), under_way: None, received: Received::default() })
    }

    /// Sends messages in one pipeline, in order, and waits for the replies to the one before.
    ///
    /// # Errors
    /// When Redis refused a message, or the connection broke: some messages may have been published then.
    pub async fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(messages.len());
        for message in messages {
            pipeline.cmd("PUBLISH").arg(&self.channel).arg(message.as_slice());
        }
        let mut connection = self.connection.clone();
        let replies: Replies = Box::pin(async move { pipeline.query_async(&mut connection).await });
        let mut next = Box::pin(maybe_done(replies));
        // Polled once, it is in the connection's queue, behind the one before.
        poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_ready())).await;
        let before = self.under_way.replace(next);
        self.count(before).await
    }

    /// Waits until everything that was sent has been answered.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn flush(&mut self) -> Result<(), RedisError> {
        let last = self.under_way.take();
        self.count(last).await
    }

    /// What is known of the messages answered so far.
    #[must_use]
    pub fn received(&self) -> Received {
        self.received
    }

    async fn count(&mut self, replies: Option<Pin<Box<MaybeDone<Replies>>>>) -> Result<(), RedisError> {
        let Some(mut replies) = replies else { return Ok(()) };
        replies.as_mut().await;
        // There is one, because it has just been waited for.
        if let Some(replies) = replies.as_mut().take_output() {
            replies?.into_iter().for_each(|receivers| self.received.add(receivers));
        }
        Ok(())
    }
}

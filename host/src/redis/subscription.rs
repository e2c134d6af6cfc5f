//! What is published on the channel, in chunks, and a sign of life when nothing is.

use futures_util::StreamExt as _;
use futures_util::stream::ReadyChunks;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisError};

use super::connection::Connector;

/// Messages taken from the connection at once, at most.
const CHUNK_MESSAGES: usize = 1024;

/// A confirmed subscription on a connection of its own.
pub struct Subscription {
    sink: PubSubSink,
    chunks: ReadyChunks<PubSubStream>,
}

/// Messages that had arrived by the time somebody looked.
pub struct Chunk(Vec<Msg>);

impl Chunk {
    /// Messages, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Their payloads, as they were published.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Msg::get_payload_bytes)
    }
}

/// Asks the server for a sign of life on the subscription's own connection.
pub struct Pinger(PubSubSink);

impl Pinger {
    /// Returns when the server has answered.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        self.0.ping::<redis::Value>().await.map(drop)
    }
}

impl Subscription {
    /// What has arrived, as soon as something has. `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.chunks.next().await.map(Chunk)
    }

    /// A pinger for this connection.
    #[must_use]
    pub fn pinger(&self) -> Pinger {
        Pinger(self.sink.clone())
    }
}

/// Subscribes to a channel on a new connection.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn subscribe(connector: &Connector, channel: &str) -> Result<Subscription, RedisError> {
    let (mut sink, stream) = connector.connect_pubsub().await?.split();
    sink.subscribe(channel).await?;
    Ok(Subscription { sink, chunks: stream.ready_chunks(CHUNK_MESSAGES) })
}

//! Publishes on the channel like users: pipelined `PUBLISH`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Redis;
use super::records::CHANNEL;

/// Messages in one pipeline.
const BATCH: usize = 1_000;
/// Pace of a steady publisher.
const TICK: Duration = Duration::from_millis(10);

/// The text of a message with this id and these further properties.
pub fn message(id: &str, mut properties: Value) -> String {
    let object = properties.as_object_mut().expect("properties are an object");
    let mut all = serde_json::Map::new();
    all.insert("message_id".into(), json!(id));
    all.append(object);
    Value::Object(all).to_string()
}

/// A connection that publishes.
pub struct Publisher {
    connection: redis::Connection,
}

impl Publisher {
    pub fn new(redis: &Redis) -> Publisher {
        Publisher { connection: redis.connect() }
    }

    /// Publishes one message; gives how many subscribers received it.
    pub fn publish(&mut self, payload: impl AsRef<[u8]>) -> usize {
        self.publish_all([payload])
    }

    /// Publishes all of them as fast as Redis takes them; gives the smallest number of subscribers that
    /// received a message.
    pub fn publish_all<P: AsRef<[u8]>>(&mut self, payloads: impl IntoIterator<Item = P>) -> usize {
        let mut payloads = payloads.into_iter().peekable();
        let mut fewest = usize::MAX;
        while payloads.peek().is_some() {
            let mut pipeline = redis::pipe();
            for payload in payloads.by_ref().take(BATCH) {
                pipeline.cmd("PUBLISH").arg(CHANNEL).arg(payload.as_ref());
            }
            let receivers: Vec<usize> = pipeline.query(&mut self.connection).expect("PUBLISH");
            fewest = receivers.into_iter().fold(fewest, usize::min);
        }
        fewest
    }
}

/// A publisher in the background at a steady rate. Its messages have the ids `t-0`, `t-1`, ….
pub struct Traffic {
    first: usize,
    stop: Arc<AtomicBool>,
    published: Arc<AtomicUsize>,
    /// Ends with the smallest number of subscribers that received a message.
    thread: Option<JoinHandle<usize>>,
}

impl Traffic {
    /// Starts publishing: so many messages a second, each with these properties.
    pub fn start(redis: &Redis, per_second: usize, properties: Value) -> Traffic {
        Traffic::start_at(0, redis, per_second, properties)
    }

    /// Starts publishing with the id of this number.
    pub fn start_at(first: usize, redis: &Redis, per_second: usize, properties: Value) -> Traffic {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut publisher = Publisher::new(redis);
        let (stopped, counter) = (stop.clone(), published.clone());
        let thread = thread::spawn(move || {
            let (start, mut fewest) = (Instant::now(), usize::MAX);
            while !stopped.load(Ordering::Relaxed) {
                let done = counter.load(Ordering::Relaxed);
                let due = (start.elapsed().as_micros() * per_second as u128 / 1_000_000) as usize;
                let batch = (done..due.max(done)).map(|n| message(&Traffic::id(first + n), properties.clone()));
                fewest = fewest.min(publisher.publish_all(batch));
                counter.store(due.max(done), Ordering::Relaxed);
                thread::sleep(TICK);
            }
            fewest
        });
        Traffic { first, stop, published, thread: Some(thread) }
    }

    fn id(number: usize) -> String {
        format!("t-{number}")
    }

    /// Messages published by now.
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been published.
    pub fn wait_for_more(&self, count: usize) {
        let goal = self.published() + count;
        super::wait_until("more traffic", || self.published() >= goal);
    }

    /// Stops, requires that every message had a subscriber, and returns all ids.
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a publisher finishes once");
        let fewest = thread.join().expect("the publisher runs to its end");
        assert!(fewest > 0, "a message was published while nobody was subscribed: the test is wrong");
        (self.first..self.first + self.published()).map(Traffic::id).collect()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

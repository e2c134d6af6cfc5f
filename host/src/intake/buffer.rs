//! Memory between the socket and Redis: what was received and is not yet in the inbox.
//! It is bounded; it counts what it refuses or forgets, and it knows nothing of leases or connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a chunk costs beside its payloads: bookkeeping per message.
const MESSAGE_OVERHEAD_BYTES: usize = size_of::<usize>();

/// A buffer of which more than this part is taken is filling up.
const FILLING_DIVISOR: usize = 4;

/// Messages in the order they were received.
#[derive(Debug)]
pub struct Buffer {
    chunks: VecDeque<Chunk>,
    /// Messages of the first chunk that have been taken already.
    taken: usize,
    messages: usize,
    bytes: usize,
    bytes_max: usize,
}

/// Messages received at once, in one piece of memory.
#[derive(Debug)]
struct Chunk {
    payloads: Vec<u8>,
    ends: Vec<usize>,
    received: Instant,
}

impl Chunk {
    fn cost(&self) -> usize {
        self.payloads.len() + self.ends.len() * MESSAGE_OVERHEAD_BYTES
    }

    fn payload(&self, index: usize) -> &[u8] {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.payloads[begin..self.ends[index]]
    }
}

impl Buffer {
    /// An empty buffer for so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Buffer {
        Buffer { chunks: VecDeque::new(), taken: 0, messages: 0, bytes: 0, bytes_max }
    }

    /// Adds messages received at once and returns how many did not fit and are shed.
    pub fn push<'a>(&mut self, payloads: impl Iterator<Item = &'a [u8]>, received: Instant) -> usize {
        let mut chunk = Chunk { payloads: Vec::new(), ends: Vec::new(), received };
        let mut shed = 0;
        for payload in payloads {
            let cost = chunk.cost() + payload.len() + MESSAGE_OVERHEAD_BYTES;
            if self.bytes + cost > self.bytes_max {
                shed += 1;
                continue;
            }
            chunk.payloads.extend_from_slice(payload);
            chunk.ends.push(chunk.payloads.len());
        }
        if !chunk.ends.is_empty() {
            chunk.payloads.shrink_to_fit();
            self.messages += chunk.ends.len();
            self.bytes += chunk.cost();
            self.chunks.push_back(chunk);
        }
        shed
    }

    /// Messages waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// When the oldest waiting message was received.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.chunks.front().map(|chunk| chunk.received)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether it is filling up.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.bytes > self.bytes_max / FILLING_DIVISOR
    }

    /// The waiting messages, oldest first. They stay until [`Buffer::consume`].
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().flat_map(|chunk| (0..chunk.ends.len()).map(|index| chunk.payload(index))).skip(self.taken)
    }

    /// Removes the oldest so many messages.
    pub fn consume(&mut self, messages: usize) {
        self.messages -= messages;
        self.taken += messages;
        while let Some(first) = self.chunks.front() {
            if self.taken < first.ends.len() {
                break;
            }
            self.taken -= first.ends.len();
            self.forget_first();
        }
    }

    /// Forgets what is older than `age_max` or lies beyond the newest `bytes_max` bytes.
    /// Returns how many messages went that were younger than `age_max`.
    pub fn forget_old(&mut self, now: Instant, age_max: Duration, bytes_max: usize) -> usize {
        let mut young = 0;
        while let Some(first) = self.chunks.front() {
            let old = now.duration_since(first.received) > age_max;
            if !old && self.bytes <= bytes_max {
                break;
            }
            let messages = first.ends.len() - self.taken;
            self.messages -= messages;
            self.taken = 0;
            if !old {
                young += messages;
            }
            self.forget_first();
        }
        young
    }

    fn forget_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.cost();
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(buffer: &Buffer) -> Vec<&str> {
        buffer.iter().map(|payload| std::str::from_utf8(payload).unwrap()).collect()
    }

    fn push(buffer: &mut Buffer, payloads: &[&str], received: Instant) -> usize {
        buffer.push(payloads.iter().map(|payload| payload.as_bytes()), received)
    }

    #[test]
    fn messages_leave_in_order_across_chunks() {
        let mut buffer = Buffer::new(1000);
        let now = Instant::now();
        push(&mut buffer, &["a", "", "c"], now);
        push(&mut buffer, &["d"], now);
        assert_eq!(texts(&buffer), ["a", "", "c", "d"]);
        buffer.consume(2);
        assert_eq!(texts(&buffer), ["c", "d"]);
        push(&mut buffer, &["e"], now);
        buffer.consume(2);
        assert_eq!((texts(&buffer), buffer.len()), (vec!["e"], 1));
        buffer.consume(1);
        assert!(buffer.is_empty());
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn it_is_filling_once_more_than_a_quarter_is_taken() {
        let mut buffer = Buffer::new(8 * (10 + MESSAGE_OVERHEAD_BYTES));
        let ten = "0123456789";
        push(&mut buffer, &[ten, ten], Instant::now());
        assert!(!buffer.is_filling());
        push(&mut buffer, &[ten], Instant::now());
        assert!(buffer.is_filling());
        buffer.consume(3);
        assert!(!buffer.is_filling());
    }

    #[test]
    fn what_does_not_fit_is_shed_and_counted() {
        let mut buffer = Buffer::new(2 * (10 + MESSAGE_OVERHEAD_BYTES));
        let ten = "0123456789";
        assert_eq!(push(&mut buffer, &[ten, ten, ten], Instant::now()), 1);
        assert_eq!(push(&mut buffer, &["x"], Instant::now()), 1);
        buffer.consume(2);
        assert_eq!(push(&mut buffer, &["x"], Instant::now()), 0);
    }

    #[test]
    fn a_replay_buffer_forgets_by_age_and_by_size() {
        let mut buffer = Buffer::new(10_000);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        push(&mut buffer, &["old", "old too"], start);
        push(&mut buffer, &["young"], start + 9 * second);
        assert_eq!(buffer.forget_old(start + 11 * second, 10 * second, 10_000), 0);
        assert_eq!((texts(&buffer), buffer.oldest()), (vec!["young"], Some(start + 9 * second)));
        push(&mut buffer, &["younger"], start + 10 * second);
        assert_eq!(buffer.forget_old(start + 11 * second, 10 * second, 20), 1);
        assert_eq!(texts(&buffer), ["younger"]);
    }
}

//! The load, and the process that publishes it: a plain socket and commands written by hand, so that the publisher uses
//! as little of the machine as possible.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use host::redis::embedded::Embedded;

/// The text of a message before its id.
pub const BEFORE_ID: &[u8] = b"{\"message_id\": \"";

/// Length of an id.
pub const ID_BYTES: usize = 36;

/// The text between id and padding of a longer message.
pub const BEFORE_PADDING: &[u8] = b"\",\"padding\":\"";

/// Length of a message without padding.
pub const SMALL_BYTES: u32 = 54;

/// Number of bytes passed to the system at a time.
const WRITE_BYTES: usize = 64 << 10;

/// Rate in bytes a second of a publisher that must not flood its subscribers: several times the processing rate of any
/// subject, and slow enough that a subscriber may pause for a tenth of a second without being disconnected.
const STEADY_BYTES_PER_SECOND: f64 = 200e6;

/// Messages to publish.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of messages.
    pub messages: u64,
    /// Length of each message, without the order.
    pub bytes: u32,
    /// Further properties, which are orders for the plugin: `,"do":"wait"`.
    pub order: Order,
    /// Number of the first message, which is part of its id.
    pub first: u64,
    /// Publish as fast as the publisher can, even if long messages come faster than a subscriber can read them.
    pub flood: bool,
}

/// The order of a message to the plugin of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No order: the message fits any plugin.
    None,
    /// Wait for this number of milliseconds.
    WaitMs(u32),
    /// One message in a hundred waits for this number of milliseconds.
    SomeWaitMs(u32),
    /// Compute this number of steps, in thousands.
    Count(u32),
}

impl Order {
    /// Whether the message with these scattered bits waits.
    fn waits(self, scattered: u64) -> bool {
        match self {
            Order::WaitMs(_) => true,
            Order::SomeWaitMs(_) => scattered.is_multiple_of(100),
            Order::None | Order::Count(_) => false,
        }
    }

    fn properties(self, scattered: u64) -> String {
        match self {
            Order::SomeWaitMs(_) if !self.waits(scattered) => String::new(),
            Order::None => String::new(),
            Order::WaitMs(ms) | Order::SomeWaitMs(ms) => format!(r#","do":"wait","ms":{ms}"#),
            Order::Count(thousands) => format!(r#","do":"count","thousands":{thousands}"#),
        }
    }
}

impl Load {
    /// Small messages without orders.
    pub fn small(messages: u64) -> Load {
        Load { messages, bytes: SMALL_BYTES, order: Order::None, first: 0, flood: false }
    }

    /// Messages of this length.
    pub fn of(messages: u64, bytes: u32) -> Load {
        Load { bytes, ..Load::small(messages) }
    }

    /// Number of messages that wait.
    pub fn slow(&self) -> u64 {
        (self.first..self.first + self.messages).filter(|number| self.order.waits(scattered(*number))).count() as u64
    }

    /// The message with this number.
    pub fn message(&self, number: u64) -> Vec<u8> {
        let scattered = scattered(number);
        let mut message = BEFORE_ID.to_vec();
        let _ = write!(message, "{scattered:08x}-0000-4000-8000-{number:012x}");
        if self.bytes > SMALL_BYTES {
            message.extend_from_slice(BEFORE_PADDING);
            message.resize(self.bytes as usize - 2, b'x');
        }
        message.push(b'"');
        message.extend_from_slice(self.order.properties(scattered).as_bytes());
        message.push(b'}');
        message
    }

    /// Starts a process that publishes the load at once, for this number of subscribers. [`published`] reads its
    /// output.
    pub fn publish(&self, server: &Embedded, subscribers: u32) -> Result<Child> {
        let (kind, amount) = match self.order {
            Order::None => (0, 0),
            Order::WaitMs(ms) => (1, ms),
            Order::Count(thousands) => (2, thousands),
            Order::SomeWaitMs(ms) => (3, ms),
        };
        let numbers = [
            u64::from(server.port()),
            u64::from(subscribers),
            self.messages,
            self.bytes.into(),
            self.first,
            kind,
            amount.into(),
            self.flood.into(),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--publish").args(numbers.map(|number| number.to_string())).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the publisher")
    }
}

/// Ids with the same beginning would be neighbours in memory, and real ids are not.
fn scattered(number: u64) -> u64 {
    (number ^ 0x9e37_79b9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// The result of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Seconds until Redis had replied for every message.
    pub seconds: f64,
    /// Number of messages that missed a subscriber.
    pub unheard: u64,
}

impl Published {
    /// The same, or an error if a message missed a subscriber.
    pub fn by_all(self) -> Result<Published> {
        ensure!(self.unheard == 0, "{} messages were published when a subscriber was cut off", self.unheard);
        Ok(self)
    }
}

/// Waits for the end of a publisher.
pub fn published(publisher: &mut Child) -> Result<Published> {
    let mut said = String::new();
    publisher.stdout.take().context("the publisher's output is piped")?.read_to_string(&mut said)?;
    ensure!(publisher.wait()?.success(), "the publisher failed");
    let (seconds, unheard) = said.trim().split_once(' ').with_context(|| format!("the publisher said {said:?}"))?;
    Ok(Published { seconds: seconds.parse()?, unheard: unheard.parse()? })
}

/// The id of a message from [`Load::message`].
pub fn id(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[BEFORE_ID.len()..BEFORE_ID.len() + ID_BYTES]).into_owned()
}

/// The number of the message with this id.
pub fn number(id: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(id.get(ID_BYTES - 12..)?).ok()?, 16).ok()
}

/// The command that publishes `message`.
pub fn encode(message: &[u8], commands: &mut Vec<u8>) {
    let mut length = String::new();
    let _ = write!(length, "*3\r\n$7\r\nPUBLISH\r\n$18\r\nmessages:published\r\n${}\r\n", message.len());
    commands.extend_from_slice(length.as_bytes());
    commands.extend_from_slice(message);
    commands.extend_from_slice(b"\r\n");
}

/// The publisher's process. The numbers are those of [`Load::publish`].
pub fn run(numbers: &[u64]) -> Result<()> {
    let &[port, subscribers, messages, bytes, first, kind, amount, flood] = numbers else {
        bail!("a publisher takes 8 numbers");
    };
    let amount = u32::try_from(amount)?;
    let order = match kind {
        0 => Order::None,
        1 => Order::WaitMs(amount),
        3 => Order::SomeWaitMs(amount),
        _ => Order::Count(amount),
    };
    let load = Load { messages, bytes: u32::try_from(bytes)?, order, first, flood: flood != 0 };
    let mut redis = TcpStream::connect(("127.0.0.1", u16::try_from(port)?)).context("the publisher cannot connect")?;
    redis.set_nodelay(true)?;
    let mut replies = redis.try_clone()?;
    let unheard = thread::spawn(move || unheard(&mut replies, messages, subscribers));
    let start = Instant::now();
    let mut commands = Vec::with_capacity(2 * WRITE_BYTES);
    let mut written = 0.0;
    for number in first..first + messages {
        encode(&load.message(number), &mut commands);
        if commands.len() >= WRITE_BYTES {
            redis.write_all(&commands)?;
            written += commands.len() as f64;
            commands.clear();
            if !load.flood {
                let due = start + Duration::from_secs_f64(written / STEADY_BYTES_PER_SECOND);
                sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    }
    redis.write_all(&commands)?;
    let unheard = unheard.join().map_err(|_| anyhow!("the publisher's reader ended"))??;
    println!("{} {unheard}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Reads the replies. Returns the number of messages with another number of subscribers, which is below ten.
pub fn unheard(replies: &mut TcpStream, messages: u64, subscribers: u64) -> Result<u64> {
    let expected = format!(":{subscribers}\r\n").into_bytes();
    let digit = (1, expected[1]);
    let mut chunk = vec![0; WRITE_BYTES];
    let (mut place, mut left, mut unheard) = (0, messages * expected.len() as u64, 0);
    while left > 0 {
        let length = replies.read(&mut chunk)?;
        ensure!(length > 0, "Redis closed the publisher's connection");
        for byte in &chunk[..length] {
            unheard += u64::from(place == digit.0 && *byte != digit.1);
            place = (place + 1) % expected.len();
        }
        left -= length as u64;
    }
    Ok(unheard)
}

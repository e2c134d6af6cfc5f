//! What a campaign consists of before anything happens to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// Something that not every campaign has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// A second host, in whose place nothing happens.
    Another,
    /// A Redis that keeps its data.
    Aof,
    /// A Redis that keeps nothing.
    NoAof,
    /// A replica.
    Replica,
    /// A dedup window that is shorter than what happens.
    ShortWindow,
    /// Hosts whose clocks are wrong.
    Skew,
    /// A run of several minutes.
    Time,
}

/// The parts of one campaign.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary.
    pub program: PathBuf,
    pub hosts: usize,
    pub consumers: usize,
    pub aof: bool,
    pub replica: bool,
    pub dedup_window: Duration,
    /// The clocks of some hosts are an hour off.
    pub skew: bool,
    /// Some messages trap, fail, wait or come back.
    pub mixed: bool,
    /// Publishers publish some ids again.
    pub copies: bool,
    /// Of all publishers.
    pub messages_per_second: u32,
    pub publishers: u32,
    pub message_bytes: usize,
    /// Time in which faults begin.
    pub seconds: u32,
    /// Part of a long run.
    pub long: bool,
}

const WINDOW: Duration = Duration::from_secs(120);

/// The shortest that the host accepts beside its other settings.
const SHORT_WINDOW: Duration = Duration::from_secs(10);

impl Setup {
    /// What this random source comes to. Campaigns with neighbouring seeds are of different kinds.
    pub fn draw(seed: u64, random: &mut StdRng, program: PathBuf, seconds: u32, long: bool) -> Setup {
        let (replica, short) = (seed % 3 == 1, seed % 3 == 2);
        let setup = Setup {
            program,
            hosts: *pick(random, &[1, 2, 2, 3, 3, 3, 3, 4]),
            consumers: random.random_range(1..=6),
            aof: short || random.random_bool(0.5),
            replica,
            dedup_window: if short { SHORT_WINDOW } else { WINDOW },
            skew: seed / 3 % 2 == 1,
            mixed: random.random_bool(0.4),
            copies: false,
            messages_per_second: *pick(random, &[400, 1_500, 3_000, 3_000]),
            publishers: random.random_range(1..=2),
            message_bytes: *pick(random, &[60, 60, 200, 1_000]),
            seconds,
            long,
        };
        setup.consistent()
    }

    /// The same with what a fault needs.
    pub fn with(mut self, needs: Needs) -> Setup {
        match needs {
            Needs::Nothing => {}
            Needs::Another => self.hosts = self.hosts.max(3),
            Needs::Aof => (self.aof, self.replica) = (true, false),
            Needs::NoAof => (self.aof, self.replica) = (false, false),
            Needs::Replica => self.replica = true,
            Needs::ShortWindow => (self.aof, self.replica, self.dedup_window) = (true, false, SHORT_WINDOW),
            Needs::Skew => self.skew = true,
            Needs::Time => self.long = true,
        }
        self.consistent()
    }

    /// Whether a fault with these needs can happen in it.
    pub fn fits(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Another => self.hosts > 1,
            Needs::Aof => self.aof && !self.replica,
            Needs::NoAof => !self.aof && !self.replica,
            Needs::Replica => self.replica,
            Needs::ShortWindow => self.aof && !self.replica && self.dedup_window == SHORT_WINDOW,
            Needs::Skew => self.skew,
            Needs::Time => self.long,
        }
    }

    fn consistent(mut self) -> Setup {
        // A copy must come within the window, however long Redis stands still meanwhile.
        self.copies = self.dedup_window == WINDOW;
        self
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} hosts with {} consumers, {} messages/s of {} bytes from {} publishers, window {:?}",
            self.hosts,
            self.consumers,
            self.messages_per_second,
            self.message_bytes,
            self.publishers,
            self.dedup_window
        )?;
        let parts = [
            (self.aof, "AOF"),
            (self.replica, "replica"),
            (self.skew, "wrong clocks"),
            (self.mixed, "messages that fail"),
            (self.copies, "copies"),
        ];
        parts.iter().filter(|(is, _)| *is).try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

/// One of these by chance.
pub fn pick<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}

//! Sources of messages for `host publish`. This file knows neither Redis nor a clock.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, stdin};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use uuid::{Builder, Uuid, fmt::Hyphenated};

use crate::config::PropertyPath;
use crate::printable::escaped;

/// Size at which a batch is sent even if it is not full.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Longest line of a file; far beyond the default limit of a host.
const LINE_BYTES_MAX: usize = 64 << 20;

/// First lines of a file that must be JSON objects, unless the lines are raw: enough to recognize a file of another kind.
const CHECKED_LINES: u64 = 10;

/// Characters of a wrong line in an error.
const SHOWN_CHARS_MAX: usize = 40;

/// A byte order mark.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Maximum number of lines that the reader passes on at a time.
const GROUP_LINES_MAX: usize = 1_000;

/// Number of latest ids from which a repeated id is chosen. Recent ids lie within any sensible dedup window.
const REPEATABLE_IDS: usize = 10_000;

/// A message source.
#[derive(Debug)]
pub(in crate::cli) enum Source {
    /// Generated messages.
    Generated(Box<Generator>),
    /// Lines of a file, read by a separate thread.
    Lines {
        /// Groups of lines from the reading thread.
        groups: mpsc::Receiver<Result<Vec<Vec<u8>>>>,
        /// Lines of a group that are not published yet.
        waiting: VecDeque<Vec<u8>>,
    },
}

impl Source {
    /// The lines of the file at `path`, or of standard input if the path is `-`. The first ones must be JSON objects, unless
    /// the lines are raw.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn lines(path: &Path, is_raw: bool) -> Result<Source> {
        // The thread reads one group while the task publishes another group.
        let (sender, groups) = mpsc::channel(1);
        // A thread and not a task: a read of standard input that waits for the user must not delay the exit.
        if path == Path::new("-") {
            std::thread::spawn(move || read_lines(stdin(), "standard input", is_raw, &sender));
        } else {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name} to publish its lines"))?;
            std::thread::spawn(move || read_lines(file, &name, is_raw, &sender));
        }
        Ok(Source::Lines { groups, waiting: VecDeque::new() })
    }

    /// All generated ids, if the generator keeps ids.
    #[must_use]
    pub(in crate::cli) fn into_ids(self) -> Vec<Uuid> {
        match self {
            Source::Generated(generator) => generator.all.unwrap_or_default(),
            Source::Lines { .. } => Vec::new(),
        }
    }

    /// Appends 1 to `wanted` messages to `batch` and returns the number of repeated ids among them; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self, batch: &mut Vec<Vec<u8>>, wanted: usize) -> Result<Option<u64>> {
        match self {
            Source::Generated(generator) => Ok(Some(generator.fill(batch, wanted))),
            Source::Lines { groups, waiting } => {
                if waiting.is_empty() {
                    let Some(group) = groups.recv().await else { return Ok(None) };
                    waiting.extend(group?);
                }
                batch.extend(waiting.drain(..wanted.min(waiting.len())));
                Ok(Some(0))
            }
        }
    }
}

impl From<Generator> for Source {
    fn from(generator: Generator) -> Self {
        Source::Generated(Box::new(generator))
    }
}

/// Passes on the lines of `input` until the input ends or the receiver is gone.
fn read_lines(input: impl Read, name: &str, is_raw: bool, sender: &mpsc::Sender<Result<Vec<Vec<u8>>>>) {
    let mut reader = BufReader::with_capacity(1 << 16, input);
    let mut number = 0;
    loop {
        let before = number;
        let group = read_group(&mut reader, &mut number);
        let group = group.with_context(|| format!("cannot read line {number} of {name}"));
        let group = group.and_then(|lines| match is_raw || before >= CHECKED_LINES {
            true => Ok(lines),
            false => check_lines(&lines, name).map(|()| lines),
        });
        let ended = group.as_ref().map_or(true, Vec::is_empty);
        let unwanted = !matches!(&group, Ok(lines) if lines.is_empty()) && sender.blocking_send(group).is_err();
        if ended || unwanted {
            return;
        }
    }
}

/// Refuses a file of another kind, such as a compressed one or a table, each line of which would become a dead letter.
fn check_lines(lines: &[Vec<u8>], name: &str) -> Result<()> {
    for line in lines.iter().take(usize::try_from(CHECKED_LINES)?) {
        if let Err(error) = serde_json::from_slice::<Map<String, Value>>(line) {
            let beginning: String = escaped(&String::from_utf8_lossy(line)).chars().take(SHOWN_CHARS_MAX).collect();
            bail!(
                "the line of {name} that begins with {beginning:?} is no JSON object ({error}), so no host could process it; \
                 name a file with one JSON object a line, or publish its lines as they are with --raw"
            );
        }
    }
    Ok(())
}

/// The next lines without line ends; an empty group at the end of the input. Returns before a read that might wait, so
/// that a typed line is published at once. Empty lines are skipped.
fn read_group(reader: &mut BufReader<impl Read>, number: &mut u64) -> Result<Vec<Vec<u8>>> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while group.len() < GROUP_LINES_MAX && bytes < BATCH_BYTES_MAX && (group.is_empty() || !reader.buffer().is_empty())
    {
        *number += 1;
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_BYTES_MAX)? + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() > LINE_BYTES_MAX {
            bail!(io::Error::other(format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20)));
        }
        // Some editors write a byte order mark at the start of a file. The mark is not part of the first line.
        if *number == 1 && line.starts_with(MARK) {
            line.drain(..MARK.len());
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        if !line.is_empty() {
            bytes += line.len();
            group.push(line);
        }
    }
    Ok(group)
}

/// Begins the padding of a generated message.
const PADDING: &str = ",\"padding\":\"";

/// Generates messages: an id, and padding if a length is given.
#[derive(Debug)]
pub(in crate::cli) struct Generator {
    random: SmallRng,
    /// What stands before and behind the id, without the last brace.
    around_id: [String; 2],
    payload_bytes: Option<usize>,
    duplicates_percent: u64,
    made: u64,
    /// Ids that may be repeated.
    ids: Vec<Uuid>,
    /// All generated ids, if the generator keeps ids.
    all: Option<Vec<Uuid>>,
}

impl Generator {
    /// A generator of messages with `payload_bytes` each and their ids in this property. The given percentage, evenly spread,
    /// repeats an earlier id.
    #[must_use]
    pub fn new(id_property: &PropertyPath, payload_bytes: Option<u32>, duplicates_percent: u8) -> Generator {
        let names = id_property.names();
        let before: String = names.iter().map(|name| format!("{{{}:", Value::from(name.as_str()))).collect();
        Generator {
            random: SmallRng::from_rng(&mut rand::rng()),
            around_id: [before + "\"", format!("\"{}", "}".repeat(names.len() - 1))],
            payload_bytes: payload_bytes.map(|bytes| bytes as usize),
            duplicates_percent: duplicates_percent.into(),
            made: 0,
            ids: Vec::new(),
            all: None,
        }
    }

    /// Length of the shortest message that has room for the padding property.
    #[must_use]
    pub fn padded_bytes_min(&self) -> usize {
        let around: usize = self.around_id.iter().map(String::len).sum();
        around + Hyphenated::LENGTH + PADDING.len() + 2
    }

    /// Keeps all ids, 16 bytes each, for [`Source::into_ids`].
    #[must_use]
    pub(in crate::cli) fn keeping_ids(self) -> Generator {
        Generator { all: Some(Vec::new()), ..self }
    }

    /// Appends 1 to `wanted` messages and returns the number of repeated ids among them.
    pub fn fill(&mut self, batch: &mut Vec<Vec<u8>>, wanted: usize) -> u64 {
        let mut repeats = 0;
        let mut bytes = 0;
        for _ in 0..wanted {
            let (id, repeated) = self.next_id();
            let message = self.message(id);
            repeats += u64::from(repeated);
            bytes += message.len();
            batch.push(message);
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        repeats
    }

    /// An id, and whether the id is a repeated one.
    fn next_id(&mut self) -> (Uuid, bool) {
        let repeats_by = |messages: u64| messages * self.duplicates_percent / 100;
        let repeat = repeats_by(self.made + 1) > repeats_by(self.made);
        self.made += 1;
        // The share is below 100 %, so the first message never repeats.
        if repeat && !self.ids.is_empty() {
            return (self.ids[self.random.random_range(0..self.ids.len())], true);
        }
        let id = Builder::from_random_bytes(self.random.random()).into_uuid();
        self.all.iter_mut().for_each(|all| all.push(id));
        if self.duplicates_percent > 0 {
            if self.ids.len() < REPEATABLE_IDS {
                self.ids.push(id);
            } else {
                let place = self.random.random_range(0..REPEATABLE_IDS);
                self.ids[place] = id;
            }
        }
        (id, false)
    }

    fn message(&self, id: Uuid) -> Vec<u8> {
        let mut text = [0; Hyphenated::LENGTH];
        let mut message = Vec::with_capacity(self.payload_bytes.unwrap_or(64));
        message.extend_from_slice(self.around_id[0].as_bytes());
        message.extend_from_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
        message.extend_from_slice(self.around_id[1].as_bytes());
        if let Some(length) = self.payload_bytes {
            message.extend_from_slice(PADDING.as_bytes());
            message.resize(length.saturating_sub(2), b'x');
            message.push(b'"');
        }
        message.push(b'}');
        message
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Cursor;

    use super::*;
    use crate::cli::publish::PAYLOAD_BYTES_MIN;

    fn generator(payload_bytes: Option<u32>, duplicates_percent: u8) -> Generator {
        Generator::new(&PropertyPath::read("message_id").unwrap(), payload_bytes, duplicates_percent)
    }

    #[test]
    fn the_id_is_where_the_property_says() {
        let mut batch = Vec::new();
        let mut generator = Generator::new(&PropertyPath::read("/a\"b/0/id").unwrap(), Some(100), 0);
        assert_eq!(generator.padded_bytes_min(), 73);
        generator.fill(&mut batch, 1);
        let value: Value = serde_json::from_slice(&batch[0]).unwrap();
        assert_eq!(batch[0].len(), 100);
        assert!(Uuid::parse_str(value["a\"b"]["0"]["id"].as_str().unwrap()).is_ok());
    }

    fn id_of(message: &[u8]) -> String {
        let value: Value = serde_json::from_slice(message).unwrap();
        value["message_id"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_message_is_json_with_an_id_and_has_the_length_asked_for() {
        for length in [PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MIN + 1, 1_000] {
            let mut batch = Vec::new();
            generator(Some(length), 0).fill(&mut batch, 1);
            assert_eq!(batch[0].len(), length as usize);
            assert_eq!(Uuid::parse_str(&id_of(&batch[0])).unwrap().get_version_num(), 4);
        }
    }

    #[test]
    fn the_share_of_repeats_is_exact_and_each_repeats_an_earlier_id() {
        let mut batch = Vec::new();
        let repeats = generator(None, 30).fill(&mut batch, 20_000);
        assert_eq!(repeats, 6_000);
        let mut seen = HashSet::new();
        let again = batch.iter().filter(|message| !seen.insert(id_of(message))).count();
        assert_eq!(again, 6_000);
    }

    #[test]
    fn a_batch_of_long_messages_ends_early() {
        let mut batch = Vec::new();
        generator(Some(1 << 20), 0).fill(&mut batch, 1_000);
        assert_eq!(batch.len(), 4);
    }

    #[test]
    fn lines_lose_their_ends_and_empty_ones_are_left_out() {
        let mut reader = BufReader::new(Cursor::new("{\"a\":1}\r\n\n{\"b\":2}\nnot json"));
        let group = read_group(&mut reader, &mut 0).unwrap();
        assert_eq!(group, [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec(), b"not json".to_vec()]);
        assert!(read_group(&mut reader, &mut 0).unwrap().is_empty());
    }

    #[test]
    fn a_byte_order_mark_is_taken_from_the_start_of_the_file_only() {
        let mut reader = BufReader::new(Cursor::new("\u{feff}{}\n\u{feff}{}"));
        let group = read_group(&mut reader, &mut 0).unwrap();
        assert_eq!(group, [b"{}".to_vec(), "\u{feff}{}".as_bytes().to_vec()]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut reader = BufReader::new(io::repeat(b'x'));
        let error = read_group(&mut reader, &mut 0).unwrap_err();
        assert!(error.to_string().contains("longer than 64 MiB"), "{error}");
    }
}

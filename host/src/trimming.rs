//! Says when results are trimmed that a reader of the output had not read. Only with a bound on an output, and never on the path of a
//! message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use tracing::{info, warn};

use crate::config::Config;
use crate::group::Group;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::look::Stream;
use crate::redis::store::readers::{Reader, readers};
use crate::standing::State;
use crate::time::entry_id;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Shortest time between two lines about one reader.
const QUIET: Duration = Duration::from_secs(60);

/// The outputs with a bound.
#[must_use]
pub fn bounded(config: &Config) -> Vec<String> {
    let main = (&config.keys.output, config.output.length_max);
    let named = config.outputs.iter().map(|output| (&output.key, output.length_max));
    [main].into_iter().chain(named).filter(|(_, length_max)| *length_max > 0).map(|(key, _)| key.clone()).collect()
}

/// Looks for ever; returns when there is nothing to look at, or no right to look.
pub async fn run(group: Arc<Group>, outputs: Vec<String>) {
    let mut losses: HashMap<String, Losses> = HashMap::new();
    let mut connection = None;
    while !outputs.is_empty() {
        tokio::time::sleep(LOOK).await;
        // One host of the group says it.
        if group.standing.place().state != State::Active {
            losses.clear();
            continue;
        }
        match look(&group, &mut connection, &outputs, &mut losses).await {
            Err(error) if error.code() == Some("NOPERM") => {
                info!(
                    "what readers of the outputs have not read when it is trimmed is not watched, without the rights +xinfo|stream and +xinfo|groups"
                );
                return;
            }
            // Other parts of the host say that Redis is away.
            Err(_) => connection = None,
            Ok(()) => {}
        }
    }
}

async fn look(
    group: &Group,
    kept: &mut Option<LibraryConnection>,
    outputs: &[String],
    losses: &mut HashMap<String, Losses>,
) -> Result<(), RedisError> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(group.connector.connect().await?),
    };
    for output in outputs {
        let (stream, readers) = readers(connection, output).await?;
        let losses = losses.entry(output.clone()).or_default();
        for (name, unread) in losses.update(&stream, &readers, Instant::now()) {
            warn!(
                stream = output,
                group = name,
                unread,
                "trimming has removed results that this group of readers had not read; let it read faster, or raise the bound of the \
                 output (--max-output-length, or max_length of a named output)"
            );
        }
    }
    Ok(())
}

/// What was removed from one stream, and how much of that the readers had not read.
#[derive(Debug, Default)]
struct Losses {
    /// Entries that had been removed at the last look.
    removed: Option<u64>,
    /// By reader: entries that no line has told of, and when the last line was.
    untold: HashMap<String, (u64, Option<Instant>)>,
}

impl Losses {
    /// Adds what was lost since the last look. Returns the readers about which a line is due, with the number of entries.
    fn update(&mut self, stream: &Stream, readers: &[Reader], now: Instant) -> Vec<(String, u64)> {
        let removed = stream.added.saturating_sub(stream.length);
        // What was removed before the first look may be known already.
        let since = removed.saturating_sub(self.removed.replace(removed).unwrap_or(removed));
        // A stream that was emptied begins behind its last entry.
        let first = stream.first.as_deref().and_then(entry_id);
        self.untold.retain(|name, _| readers.iter().any(|reader| reader.name == *name));
        let mut due = Vec::new();
        for reader in readers {
            let is_behind = entry_id(&reader.last).zip(first).is_some_and(|(last, first)| last < first);
            // What the reader was given before it was removed is not lost.
            let unread = reader.read.map_or(since, |read| since.min(removed.saturating_sub(read)));
            let (untold, told) = self.untold.entry(reader.name.clone()).or_default();
            *untold += if is_behind { unread } else { 0 };
            if *untold > 0 && told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET) {
                *told = Some(now);
                due.push((reader.name.clone(), std::mem::take(untold)));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(added: u64, length: u64) -> Stream {
        Stream { length, added, first: Some(format!("{}-0", added - length + 1)), last: format!("{added}-0") }
    }

    fn reader(name: &str, read: u64) -> Reader {
        Reader { name: name.to_owned(), last: format!("{read}-0"), read: Some(read) }
    }

    #[test]
    fn what_a_reader_had_not_read_is_told_and_nothing_else() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        assert_eq!(losses.update(&stream(100, 100), &[reader("a", 0), reader("b", 0)], now), []);
        // 50 are removed, and 20 of them were read.
        let both = [reader("a", 20), reader("b", 50)];
        assert_eq!(losses.update(&stream(150, 100), &both, now), [("a".to_owned(), 30)]);
    }

    #[test]
    fn there_is_a_line_a_minute_about_a_reader() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        let one = [reader("a", 0)];
        losses.update(&stream(100, 100), &one, now);
        assert_eq!(losses.update(&stream(101, 100), &one, now), [("a".to_owned(), 1)]);
        assert_eq!(losses.update(&stream(105, 100), &one, now + QUIET / 2), []);
        assert_eq!(losses.update(&stream(110, 100), &one, now + QUIET), [("a".to_owned(), 9)]);
        assert_eq!(losses.update(&stream(110, 100), &one, now + QUIET * 2), []);
    }

    #[test]
    fn what_was_removed_before_the_first_look_is_not_told() {
        let (mut losses, now) = (Losses::default(), Instant::now());
        let unknown = Reader { read: None, ..reader("a", 0) };
        assert_eq!(losses.update(&stream(110, 100), std::slice::from_ref(&unknown), now), []);
        assert_eq!(losses.update(&stream(113, 100), &[unknown], now), [("a".to_owned(), 3)]);
    }
}

//! A builder of stream entries, flat in one buffer, so that a result needs no allocation of its own.

use crate::redis::client::resp::Commands;

/// Memory that is kept for the next entries at most.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Entries for one stream. Each entry is a list of fields and values in turn.
#[derive(Debug, Default)]
pub struct Entries {
    bytes: Vec<u8>,
    /// End of each value in `bytes`.
    ends: Vec<usize>,
    /// Number of values of each finished entry.
    counts: Vec<usize>,
    /// Number of values in finished entries.
    finished: usize,
}

impl Entries {
    /// Adds a field to the unfinished entry.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.push(name.as_bytes());
        self.push(value.as_ref());
    }

    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    /// Finishes the entry.
    pub fn finish(&mut self) {
        self.counts.push(self.ends.len() - self.finished);
        self.finished = self.ends.len();
    }

    /// Drops the unfinished entry, and all finished entries beyond the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.finished -= self.counts.drain(len..).sum::<usize>();
        self.ends.truncate(self.finished);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Number of finished entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there is no finished entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Drops all entries and keeps the memory, unless it is a lot.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.ends.clear();
        self.counts.clear();
        self.finished = 0;
    }

    /// Number of values of each finished entry.
    pub fn iter_sizes(&self) -> impl Iterator<Item = usize> {
        self.counts.iter().copied()
    }

    /// The values as text, for tests.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> Vec<Vec<String>> {
        self.iter().map(|values| values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()).collect()
    }

    /// The values of each finished entry.
    pub(crate) fn iter(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]> + Clone> {
        let mut first = 0;
        self.counts.iter().map(move |count| {
            let range = first..first + count;
            first = range.end;
            range.map(|index| {
                let begin = if index == 0 { 0 } else { self.ends[index - 1] };
                &self.bytes[begin..self.ends[index]]
            })
        })
    }

    /// Adds an `XADD` to this stream for each entry, with a bound on the stream's length unless the bound is 0.
    pub(super) fn write_appends(&self, commands: &mut Commands, stream: &str, length_max: u64) {
        for (values, count) in self.iter().zip(&self.counts) {
            let bound = length_max > 0;
            commands.begin(3 + count + if bound { 3 } else { 0 });
            commands.word("XADD");
            commands.word(stream);
            if bound {
                commands.word("MAXLEN");
                commands.word("~");
                commands.number(length_max);
            }
            commands.word("*");
            for value in values {
                commands.word(value);
            }
        }
    }

    /// Number of arguments that [`Entries::write_to`] adds.
    pub(super) fn arguments(&self) -> usize {
        1 + self.counts.len() + self.finished
    }

    /// Adds the entries as arguments of a script: the number of entries, then for each entry the number of values and
    /// the values.
    pub(super) fn write_to(&self, commands: &mut Commands) {
        commands.number(self.counts.len() as u64);
        for (values, count) in self.iter().zip(&self.counts) {
            commands.number(*count as u64);
            for value in values {
                commands.word(value);
            }
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_truncated_leaves_no_trace() {
        let mut entries = Entries::default();
        entries.field("a", "1");
        entries.finish();
        entries.field("b", "2");
        entries.finish();
        entries.field("c", "3");
        entries.truncate(1);
        entries.field("d", "");
        entries.finish();
        assert_eq!(entries.texts(), [["a", "1"], ["d", ""]]);
        entries.truncate(0);
        assert!(entries.is_empty());
    }
}

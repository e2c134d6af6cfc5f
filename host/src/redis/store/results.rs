//! The results of a delivery, by the output to which they go. This file knows no names: an output has a number.

use super::entries::Entries;

/// Entries for the main output and for the named ones.
#[derive(Debug, Default)]
pub struct Results {
    /// For the main output.
    pub main: Entries,
    /// For the named outputs, by the number of the output in the configuration. As long as the highest number so far.
    named: Vec<Entries>,
}

/// A point to which results can be taken back.
#[derive(Debug)]
pub struct Mark {
    main: usize,
    named: Vec<usize>,
}

impl Results {
    /// The entries for an output, `None` for the main one.
    pub fn of(&mut self, output: Option<usize>) -> &mut Entries {
        let Some(number) = output else { return &mut self.main };
        if self.named.len() <= number {
            self.named.resize_with(number + 1, Entries::default);
        }
        &mut self.named[number]
    }

    /// The named outputs that have entries, with their numbers.
    pub fn named(&self) -> impl Iterator<Item = (usize, &Entries)> {
        self.named.iter().enumerate().filter(|(_, entries)| !entries.is_empty())
    }

    /// Number of entries for all outputs together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.main.len() + self.named.iter().map(Entries::len).sum::<usize>()
    }

    /// Number of bytes in all entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.main.bytes() + self.named.iter().map(Entries::bytes).sum::<usize>()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.main.clear();
        self.named.iter_mut().for_each(Entries::clear);
    }

    /// What there is now. No memory is taken unless a named output has been used.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { main: self.main.len(), named: self.named.iter().map(Entries::len).collect() }
    }

    /// Drops unfinished entries, and everything that was added after the mark.
    pub fn back_to(&mut self, mark: &Mark) {
        self.main.truncate(mark.main);
        for (number, entries) in self.named.iter_mut().enumerate() {
            entries.truncate(mark.named.get(number).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(results: &mut Results, output: Option<usize>) {
        let entries = results.of(output);
        entries.field("a", "1");
        entries.finish();
    }

    #[test]
    fn results_are_taken_back_in_every_output() {
        let mut results = Results::default();
        [None, Some(2)].into_iter().for_each(|output| add(&mut results, output));
        let mark = results.mark();
        [None, Some(0), Some(2), Some(5)].into_iter().for_each(|output| add(&mut results, output));
        results.of(Some(7)).field("half", "an entry");
        assert_eq!(results.len(), 6);
        results.back_to(&mark);
        assert_eq!(results.len(), 2);
        assert_eq!(results.named().map(|(number, entries)| (number, entries.len())).collect::<Vec<_>>(), [(2, 1)]);
        results.clear();
        assert!(results.is_empty() && results.named().next().is_none());
    }
}

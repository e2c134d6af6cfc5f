//! The rows of each view: what they say and how they are sorted. This file knows no terminal.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::screen::View;
use crate::cli::text::{age, grouped, line, rate, short_digest};
use crate::observe::status::{GroupStatus, Host};

/// Placeholder for what is not known.
const UNKNOWN: &str = "-";

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Columns of the screen; 0 takes what is left.
    pub(super) width: u16,
    pub(super) is_number: bool,
}

/// What a row is sorted by: numbers by size with the largest first, texts in order.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Text(String),
    /// What is not known comes last.
    Number(Option<f64>),
}

/// A row: a text and a sorting key for each column.
pub(super) type Row = Vec<(String, Key)>;

/// The part of a table that is shown.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// The column that decides the order.
    pub(super) sorted: usize,
    pub(super) is_reversed: bool,
    /// Rows in front of those that are shown, and behind them.
    pub(super) above: usize,
    pub(super) below: usize,
}

impl Table {
    /// Sorts by a column. Rows that are equal in it keep their order.
    pub(super) fn sort(&mut self, column: usize, is_reversed: bool) {
        self.sorted = column.min(self.columns.len().saturating_sub(1));
        self.is_reversed = is_reversed;
        let at = self.sorted;
        self.rows.sort_by(|one, other| match (one.get(at), other.get(at)) {
            (Some((_, one)), Some((_, other))) => one.compare(other),
            _ => Ordering::Equal,
        });
        if is_reversed {
            self.rows.reverse();
        }
    }
}

impl Key {
    fn compare(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Text(one), Key::Text(other)) => one.cmp(other),
            (Key::Number(one), Key::Number(other)) => {
                let value = |number: &Option<f64>| number.unwrap_or(f64::NEG_INFINITY);
                value(other).total_cmp(&value(one))
            }
            (Key::Text(_), Key::Number(_)) => Ordering::Less,
            (Key::Number(_), Key::Text(_)) => Ordering::Greater,
        }
    }
}

const fn text(name: &'static str, width: u16) -> Column {
    Column { name, width, is_number: false }
}

const fn number(name: &'static str, width: u16) -> Column {
    Column { name, width, is_number: true }
}

const HOSTS: [Column; 8] = [
    text("HOST", 0),
    text("VERSION", 8),
    number("BEAT", 5),
    text("INTAKE", 7),
    number("CONS", 5),
    number("MSG/S", 8),
    number("PROCESSED", 11),
    number("LAG", 5),
];

/// Only where there is room for it.
const HOST_PLUGIN: Column = text("PLUGIN", 30);

const CONSUMERS: [Column; 3] = [text("CONSUMER", 0), number("MSG/S", 9), number("PROCESSED", 15)];

const VERSIONS: [Column; 5] =
    [text("PLUGIN", 14), text("STATE", 12), number("HOSTS", 6), text("SINCE", 26), text("GENERATIONS", 0)];

const DEAD_LETTERS: [Column; 3] = [text("REASON", 0), number("DEAD LETTERS", 14), number("SHARE", 7)];

const OUTPUTS: [Column; 4] = [text("OUTPUT", 20), text("STREAM", 0), number("RESULTS", 14), number("EVER", 14)];

/// Number of columns by which a view can be sorted.
pub(super) fn sortable(view: View) -> usize {
    match view {
        View::Hosts => HOSTS.len(),
        View::Consumers => CONSUMERS.len(),
        View::Versions => VERSIONS.len(),
        View::DeadLetters => DEAD_LETTERS.len(),
        View::Outputs => OUTPUTS.len(),
    }
}

/// All rows of a view.
pub(super) fn table(status: &GroupStatus, view: View, is_wide: bool) -> Table {
    let (columns, rows) = match view {
        View::Hosts => {
            let plugin = is_wide.then_some(HOST_PLUGIN);
            let rows = status.hosts.iter().map(|one| host(one, is_wide)).collect();
            (HOSTS.into_iter().chain(plugin).collect(), rows)
        }
        View::Consumers => (CONSUMERS.to_vec(), consumers(status)),
        View::Versions => (VERSIONS.to_vec(), versions(status)),
        View::DeadLetters => (DEAD_LETTERS.to_vec(), dead_letters(status)),
        View::Outputs => (OUTPUTS.to_vec(), outputs(status)),
    };
    Table { columns, rows, ..Table::default() }
}

fn word(word: &str) -> (String, Key) {
    let word = line(word.as_bytes());
    (word.clone(), Key::Text(word))
}

#[expect(clippy::cast_precision_loss, reason = "an order needs no more than 52 bits")]
fn count(count: Option<u64>) -> (String, Key) {
    (count.map_or_else(|| UNKNOWN.to_owned(), grouped), Key::Number(count.map(|count| count as f64)))
}

fn per_second(number: Option<f64>) -> (String, Key) {
    (number.map_or_else(|| UNKNOWN.to_owned(), rate), Key::Number(number))
}

fn host(host: &Host, is_wide: bool) -> Row {
    let beat = host.heartbeat_age_ms;
    let plugin =
        host.plugin.as_ref().filter(|_| is_wide).map(|plugin| {
            word(&format!("{} {} {}", plugin.generation, short_digest(&plugin.digest), plugin.standing()))
        });
    let row = [
        word(&host.id),
        word(host.version.as_deref().unwrap_or(UNKNOWN)),
        (beat.map_or_else(|| UNKNOWN.to_owned(), age), count(beat).1),
        word(host.intake.as_deref().unwrap_or(UNKNOWN)),
        count(Some(host.consumers + host.remote_consumers)),
        per_second(host.messages_per_second),
        count(host.processed),
        count(host.position_lag),
    ];
    row.into_iter().chain(plugin).collect()
}

fn consumers(status: &GroupStatus) -> Vec<Row> {
    let row = |consumer: &crate::observe::status::Consumer| {
        // In the order of the numbers: 2 before 10.
        let (host, number) = consumer.id.rsplit_once('/').unwrap_or((&consumer.id, ""));
        let id = (word(&consumer.id).0, Key::Text(format!("{host}/{number:0>8}")));
        vec![id, per_second(consumer.messages_per_second), count(consumer.processed)]
    };
    status.consumers.iter().map(row).collect()
}

/// The hosts that use one version of the plugin in one state.
#[derive(Debug, Default)]
struct InUse<'a> {
    hosts: u64,
    /// When the last of them began with it.
    since: Option<&'a str>,
    generations: BTreeSet<u64>,
}

fn versions(status: &GroupStatus) -> Vec<Row> {
    let mut versions: BTreeMap<(&str, &str), InUse<'_>> = BTreeMap::new();
    for plugin in status.hosts.iter().filter_map(|host| host.plugin.as_ref()) {
        let in_use = versions.entry((&plugin.digest, &plugin.state)).or_default();
        in_use.hosts += 1;
        in_use.since = in_use.since.max(plugin.since.as_deref());
        in_use.generations.insert(plugin.generation);
    }
    let row = |((digest, state), in_use): ((&str, &str), InUse<'_>)| {
        let generations = in_use.generations.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let since = word(in_use.since.unwrap_or(UNKNOWN));
        vec![word(short_digest(digest)), word(state), count(Some(in_use.hosts)), since, word(&generations)]
    };
    versions.into_iter().map(row).collect()
}

fn dead_letters(status: &GroupStatus) -> Vec<Row> {
    let counted = status.dead_letters.counted.max(1);
    let row = |(reason, letters): (&String, &u64)| {
        let percent = letters * 100 / counted;
        vec![word(reason), count(Some(*letters)), (format!("{percent} %"), count(Some(percent)).1)]
    };
    status.dead_letters.reasons.iter().map(row).collect()
}

fn outputs(status: &GroupStatus) -> Vec<Row> {
    let row = |output: &crate::observe::status::Output| {
        vec![word(output.name.as_str()), word(&output.key), count(Some(output.length)), count(Some(output.added))]
    };
    status.outputs.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_from_the_largest_and_the_unknown_is_last() {
        let row = |name: &str, number: Option<u64>| vec![word(name), count(number)];
        let rows = vec![row("b", Some(1)), row("c", None), row("a", Some(20))];
        let mut table = Table { columns: CONSUMERS[..2].to_vec(), rows, ..Table::default() };
        let names = |table: &Table| table.rows.iter().map(|row| row[0].0.clone()).collect::<String>();
        table.sort(1, false);
        assert_eq!(names(&table), "abc");
        table.sort(0, true);
        assert_eq!(names(&table), "cba");
    }
}

//! A table of a few figures for each subject, with their ratios to the first subject's.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::table::{Figure, cell};

/// One kind of figure.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name in JSON, with the unit.
    pub key: &'static str,
    /// Its heading, with the unit.
    pub title: &'static str,
    /// Digits after the point.
    pub digits: usize,
}

/// What was measured of each subject: for each column a value of every round.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

impl Table {
    /// An empty table; the other subjects are compared with the first.
    pub fn new(columns: &[Column], subjects: impl IntoIterator<Item = String>) -> Table {
        let rows = subjects.into_iter().map(|name| (name, vec![Vec::new(); columns.len()])).collect();
        Table { columns: columns.to_vec(), rows }
    }

    /// Adds the values of one round of one subject.
    pub fn add(&mut self, subject: usize, values: &[f64]) {
        for (all, value) in self.rows[subject].1.iter_mut().zip(values) {
            all.push(*value);
        }
    }

    fn figure(&self, row: usize, column: usize) -> Option<Figure> {
        Figure::of(&self.rows[row].1[column], &self.rows[0].1[column])
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let name_width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = format!("{:name_width$}", "");
        for column in &self.columns {
            let _ = write!(text, " {:^36}", column.title);
        }
        let _ = write!(text, "\n{:name_width$}", "");
        for _ in &self.columns {
            let _ = write!(text, " {:>10} {:>17} {:>7}", "median", "range", "× first");
        }
        text.push('\n');
        for (row, (name, _)) in self.rows.iter().enumerate() {
            let _ = write!(text, "{name:name_width$}");
            for (index, column) in self.columns.iter().enumerate() {
                let _ = write!(text, " {}", cell(self.figure(row, index), column.digits, 10, 17));
            }
            text.push('\n');
        }
        text
    }

    /// The table for programs.
    pub fn json(&self) -> Value {
        let row = |(row, (name, _)): (usize, &(String, Vec<Vec<f64>>))| {
            let mut object = Map::from_iter([("name".to_owned(), json!(name))]);
            for (index, column) in self.columns.iter().enumerate() {
                object.insert(column.key.to_owned(), Figure::json(self.figure(row, index), "first_ratio"));
            }
            Value::Object(object)
        };
        self.rows.iter().enumerate().map(row).collect()
    }
}

//! A table of a few figures for each subject: the median of the rounds, the lowest and the highest value, and the ratio
//! of the median to that of another subject.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// One kind of figure.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name in JSON, with the unit.
    pub key: &'static str,
    /// Heading, with the unit.
    pub title: &'static str,
    /// Number of digits after the point.
    pub digits: usize,
}

/// The measurements of each subject: for each column a value of every round.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// For each column the column of the compared figure.
    compared: Vec<usize>,
    /// Name of the subject to which ratios refer.
    base: &'static str,
}

#[derive(Debug)]
struct Row {
    name: String,
    /// Values of each column.
    values: Vec<Vec<f64>>,
    /// The row for the ratio, if any.
    base: Option<usize>,
}

/// Median of the rounds, lowest and highest value, and ratio to another median.
#[derive(Clone, Copy, Debug)]
struct Figure {
    median: f64,
    min: f64,
    max: f64,
    ratio: Option<f64>,
}

impl Table {
    /// An empty table; the other subjects are compared with the first.
    pub fn new(columns: &[Column], subjects: impl IntoIterator<Item = String>) -> Table {
        let row = |name| Row { name, values: vec![Vec::new(); columns.len()], base: Some(0) };
        let rows = subjects.into_iter().map(row).collect();
        Table { columns: columns.to_vec(), rows, compared: (0..columns.len()).collect(), base: "first" }
    }

    /// A table whose ratios refer to the subject with this name.
    pub fn with_base(self, base: &'static str) -> Table {
        Table { base, ..self }
    }

    /// A table in which each subject is compared with the subject named here, or with none.
    pub fn compared_with(mut self, bases: impl IntoIterator<Item = Option<usize>>) -> Table {
        for (row, base) in self.rows.iter_mut().zip(bases) {
            row.base = base;
        }
        self
    }

    /// A table in which one column's figures are compared with another column's.
    pub fn column_compared_with(mut self, column: &str, other: &str) -> Table {
        let (column, other) = (self.column(column), self.column(other));
        self.compared[column] = other;
        self
    }

    /// Adds the values of one round of one subject. NaN means that a value is not available.
    pub fn add(&mut self, subject: usize, values: &[f64]) {
        for (all, value) in self.rows[subject].values.iter_mut().zip(values) {
            all.extend(Some(*value).filter(|value| !value.is_nan()));
        }
    }

    /// The median of a subject's figure; NaN if there is none.
    pub fn median(&self, subject: usize, column: &str) -> f64 {
        median(&self.rows[subject].values[self.column(column)]).unwrap_or(f64::NAN)
    }

    /// The highest value of a subject's figure; NaN if there is none.
    pub fn highest(&self, subject: usize, column: &str) -> f64 {
        self.rows[subject].values[self.column(column)].iter().copied().fold(f64::NAN, f64::max)
    }

    /// The ratio of a subject's figure; NaN if there is none.
    pub fn ratio(&self, subject: usize, column: &str) -> f64 {
        self.figure(subject, self.column(column)).and_then(|figure| figure.ratio).unwrap_or(f64::NAN)
    }

    /// The names of the subjects.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.name.as_str())
    }

    fn column(&self, key: &str) -> usize {
        self.columns.iter().position(|column| column.key == key).expect("the part knows its own columns")
    }

    fn figure(&self, row: usize, column: usize) -> Option<Figure> {
        let Row { values, base, .. } = &self.rows[row];
        let values = &values[column];
        let median = median(values)?;
        let base = base.and_then(|base| self::median(&self.rows[base].values[self.compared[column]]));
        Some(Figure {
            median,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            // There is no ratio to zero.
            ratio: base.map(|base| median / base).filter(|ratio| ratio.is_finite()),
        })
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let name_width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let (mut titles, mut headings) = (" ".repeat(name_width), " ".repeat(name_width));
        let mut lines: Vec<String> = self.rows.iter().map(|row| format!("{:name_width$}", row.name)).collect();
        for (index, column) in self.columns.iter().enumerate() {
            let mut cells = vec![("median".to_owned(), "range".to_owned(), self.ratio_title())];
            cells.extend((0..self.rows.len()).map(|row| self.cell(row, index, column.digits)));
            let width = |get: &dyn Fn(&(String, String, String)) -> usize| cells.iter().map(get).max().unwrap_or(0);
            let (wide, wider) = (width(&|cell| cell.0.chars().count()), width(&|cell| cell.1.chars().count()));
            let last = width(&|cell| cell.2.chars().count());
            // A title longer than the columns below it widens the first of the three.
            let wide = wide.max(column.title.chars().count().saturating_sub(wider + last + 2));
            let _ = write!(titles, "   {:<1$}", column.title, wide + wider + last + 2);
            for (line, (median, range, ratio)) in std::iter::once(&mut headings).chain(&mut lines).zip(&cells) {
                let _ = write!(line, "   {median:>wide$} {range:>wider$} {ratio:>last$}");
            }
        }
        let lines = [titles, headings].into_iter().chain(lines);
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The table for a document: medians, with the ratios in brackets.
    pub fn markdown(&self) -> String {
        let ratios = self.rows.iter().any(|row| row.base.is_some());
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let note = if ratios { format!("({})", self.ratio_title()) } else { String::new() };
        let mut text = format!("| {note} | {} |\n|{}\n", titles.join(" | "), " --- |".repeat(titles.len() + 1));
        for (row, Row { name, .. }) in self.rows.iter().enumerate() {
            let _ = write!(text, "| {name} |");
            for (index, column) in self.columns.iter().enumerate() {
                let (median, _, ratio) = self.cell(row, index, column.digits);
                let ratio = if ratio.is_empty() { ratio } else { format!(" ({ratio})") };
                let _ = write!(text, " {median}{ratio} |");
            }
            text.push('\n');
        }
        text
    }

    /// The table for programs.
    pub fn json(&self) -> Value {
        let row = |(row, Row { name, .. }): (usize, &Row)| {
            let mut object = Map::from_iter([("name".to_owned(), json!(name))]);
            for (index, column) in self.columns.iter().enumerate() {
                let figure = self.figure(row, index).map_or(Value::Null, |Figure { median, min, max, ratio }| {
                    json!({ "median": median, "min": min, "max": max, format!("{}_ratio", self.base): ratio })
                });
                object.insert(column.key.to_owned(), figure);
            }
            Value::Object(object)
        };
        self.rows.iter().enumerate().map(row).collect()
    }

    fn ratio_title(&self) -> String {
        if self.rows.iter().all(|row| row.base.is_none()) { String::new() } else { format!("× {}", self.base) }
    }

    /// Median, range and ratio as text.
    fn cell(&self, row: usize, column: usize, digits: usize) -> (String, String, String) {
        let Some(Figure { median, min, max, ratio }) = self.figure(row, column) else {
            return ("-".into(), "-".into(), String::new());
        };
        let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        (format!("{median:.digits$}"), format!("{min:.digits$}–{max:.digits$}"), ratio)
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

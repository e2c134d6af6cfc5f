//! The findings of a part: its tables, and the figures with a target.

use std::fmt;

use serde_json::{Value, json};

use crate::columns::Table;

/// The findings of a part.
#[derive(Debug)]
pub struct Findings {
    /// Tables, each with a title that may be empty.
    pub tables: Vec<(String, Table)>,
    /// Figures with their targets.
    pub reached: Vec<Reached>,
    /// Violations: the benchmark ends with an error.
    pub wrong: Vec<String>,
}

impl From<Table> for Findings {
    fn from(table: Table) -> Findings {
        Findings { tables: vec![(String::new(), table)], reached: Vec::new(), wrong: Vec::new() }
    }
}

impl Findings {
    /// Adds a figure.
    pub fn reaching(mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: Target) -> Findings {
        self.reached.push(Reached { figure: figure.into(), value, unit, target });
        self
    }

    /// The findings as JSON.
    pub fn json(&self) -> Value {
        let tables: Vec<Value> =
            self.tables.iter().map(|(title, table)| json!({ "title": title, "rows": table.json() })).collect();
        let reached: Vec<Value> = self.reached.iter().map(Reached::json).collect();
        json!({ "tables": tables, "reached": reached })
    }
}

/// A figure with its target. The reader compares them: on a busy machine any target is missed.
#[derive(Debug)]
pub struct Reached {
    figure: String,
    value: f64,
    unit: &'static str,
    target: Target,
}

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

impl Reached {
    /// Figure, value and target as text.
    pub fn cells(&self) -> (&str, String, String) {
        let Reached { figure, value, unit, target } = self;
        // Ratios need digits, counts do not.
        let digits = if value.abs() >= 20.0 || *value == 0.0 { 0 } else { 2 };
        (figure, format!("{value:.digits$} {unit}"), target.to_string())
    }

    fn json(&self) -> Value {
        let Reached { figure, value, unit, target } = self;
        json!({ "figure": figure, "value": value, "unit": unit, "target": target.to_string() })
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figure, value, target) = self.cells();
        write!(f, "{figure}: {value} (target {target})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtMost(bound) => write!(f, "≤ {bound}"),
            Target::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

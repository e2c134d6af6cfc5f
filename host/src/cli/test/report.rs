//! The report of cases: a line for each case, the differences of a failed case, and a summary.

use std::io;
use std::time::Duration;

use indicatif::BinaryBytes;

use crate::cases::Tried;
use crate::cases::case::Case;
use crate::cases::outcome::{Difference, shown};
use crate::cli::{Failure, log, print};
use crate::config::PluginLimits;

/// Maximum number of differences shown for a case; a completely different result has very many.
const DIFFERENCES_MAX: usize = 20;

/// The word in front of a failure, as wide as the other words.
const FAILED: &str = "FAILED ";

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Prints each case when it is done, and collects the figures for the summary.
pub(in crate::cli) struct Report {
    coloured: bool,
    /// Whether a case that passed is printed.
    shows_passed: bool,
    memory_limit_bytes: usize,
    /// Times of the cases for which the plugin was called, with the index of the case.
    times: Vec<(Duration, usize)>,
    cases: usize,
    memory_bytes_max: usize,
    memory_bytes_last: usize,
    passed: usize,
    failed: usize,
    blessed: usize,
}

impl Report {
    pub(super) fn new(limits: &PluginLimits) -> Report {
        Report {
            coloured: log::colours(&io::stdout()),
            shows_passed: true,
            memory_limit_bytes: limits.memory_bytes_max,
            times: Vec::new(),
            cases: 0,
            memory_bytes_max: 0,
            memory_bytes_last: 0,
            passed: 0,
            failed: 0,
            blessed: 0,
        }
    }

    /// A report that prints only the cases that failed.
    pub(in crate::cli) fn of_failures(limits: &PluginLimits) -> Report {
        Report { shows_passed: false, ..Report::new(limits) }
    }

    /// Prints one case.
    pub(super) fn case(&mut self, case: &Case, tried: &Tried, verdict: &Verdict<'_>) -> Result<(), Failure> {
        let (word, colour) = match verdict {
            Verdict::Passed => ("ok     ", GREEN),
            Verdict::Failed(_) => (FAILED, RED),
            Verdict::Blessed(_) => ("blessed", YELLOW),
        };
        let memory = match tried.memory_bytes {
            0 => "-".to_owned(),
            bytes => BinaryBytes(bytes as u64).to_string(),
        };
        let mut text = format!(
            "{} {:>8} {:>11}  {case}\n",
            self.paint(word, colour),
            tried.time.map_or_else(|| "-".to_owned(), duration),
            memory
        );
        if let Verdict::Failed(differences) | Verdict::Blessed(differences) = verdict {
            for Difference { path, expected, got } in differences.iter().take(DIFFERENCES_MAX) {
                let (expected, got) = (self.paint(&shown(expected), GREEN), self.paint(&shown(got), RED));
                text += &format!("          {path}\n            expected {expected}\n            got      {got}\n");
            }
            if differences.len() > DIFFERENCES_MAX {
                text += &format!("          and {} more\n", differences.len() - DIFFERENCES_MAX);
            }
        }
        *match verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed(_) => &mut self.failed,
            Verdict::Blessed(_) => &mut self.blessed,
        } += 1;
        self.times.extend(tried.time.map(|time| (time, self.cases)));
        self.cases += 1;
        self.memory_bytes_max = self.memory_bytes_max.max(tried.memory_bytes);
        self.memory_bytes_last = tried.memory_bytes;
        if !self.shows_passed && matches!(verdict, Verdict::Passed) { Ok(()) } else { print(text.as_bytes()) }
    }

    /// Prints the summary. `cases` are the printed cases, in the same order.
    pub(super) fn summary(&self, cases: &[Case]) -> Result<(), Failure> {
        let mut counts = vec![self.paint(&format!("{} passed", self.passed), GREEN)];
        if self.failed > 0 {
            counts.push(self.paint(&format!("{} failed", self.failed), RED));
        }
        if self.blessed > 0 {
            counts.push(self.paint(&format!("{} blessed", self.blessed), YELLOW));
        }
        let mut text = format!("\n{}\n", counts.join(", "));
        if let Some((p50, max, slowest)) = self.figures() {
            text += &format!("time    p50 {p50}, max {max} ({})\n", cases[slowest]);
        }
        text += &format!(
            "memory  {} after the last message, at most {} after any message, limit {}\n",
            BinaryBytes(self.memory_bytes_last as u64),
            BinaryBytes(self.memory_bytes_max as u64),
            BinaryBytes(self.memory_limit_bytes as u64)
        );
        print(text.as_bytes())
    }

    /// Everything in one line, with more words at its end.
    pub(in crate::cli) fn line(&self, more: &str) -> String {
        let word = if self.failed == 0 { self.paint("ok     ", GREEN) } else { failed_word() };
        let counts = match self.failed {
            0 => format!("{} cases passed", self.passed),
            failed => format!("{failed} of {} cases failed", self.cases),
        };
        let times = self.figures().map(|(p50, max, _)| format!(", p50 {p50}, max {max}")).unwrap_or_default();
        format!("{word} {counts}{times}{more}")
    }

    /// Times of the cases, p50 and maximum, and the index of the slowest case.
    fn figures(&self) -> Option<(String, String, usize)> {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let (max, slowest) = sorted.last()?;
        let (p50, _) = sorted[(sorted.len() - 1) / 2];
        Some((duration(p50), duration(*max), *slowest))
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        paint(self.coloured, text, colour)
    }
}

fn paint(coloured: bool, text: &str, colour: &str) -> String {
    if coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The word in front of a failure.
pub(in crate::cli) fn failed_word() -> String {
    paint(log::colours(&io::stdout()), FAILED, RED)
}

/// Verdict of a case.
pub(super) enum Verdict<'a> {
    Passed,
    Failed(&'a [Difference]),
    /// The actual outcome, with these differences, becomes the expected outcome.
    Blessed(&'a [Difference]),
}

/// A time with about three digits.
pub(in crate::cli) fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds >= 0.001 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_few_digits() {
        let shown =
            [0, 83, 999, 1_234, 12_345, 999_400, 1_234_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(shown, ["0 µs", "83 µs", "999 µs", "1.2 ms", "12 ms", "999 ms", "1.23 s"]);
    }
}

//! What is shown: the machine, and for each subject the median of the rounds, its spread and its ratio to the floor.

use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::run::{Measured, Subject};

/// Where the numbers come from.
#[derive(Debug)]
pub struct Machine {
    cpu: String,
    cores: usize,
    system: String,
    server: String,
    load: String,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Result<Machine> {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let server = host::redis::embedded::Embedded::start()?;
        let mut redis = redis::Client::open(server.url())?.get_connection()?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut redis)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(Machine {
            cpu: model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            system: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| std::env::consts::OS.into(), |release| format!("Linux {}", release.trim())),
            server: version.context("Redis tells no version")?.trim().to_owned(),
            load: load().unwrap_or_else(|| "unknown".into()),
        })
    }
}

impl Machine {
    /// For programs.
    pub fn json(&self) -> Value {
        let Machine { cpu, cores, system, server, load } = self;
        json!({ "cpu": cpu, "cores": cores, "system": system, "redis": server, "load": load })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, system, server, load } = self;
        write!(f, "{cores} cores of {cpu}, {system}, Redis {server}, load at the start: {load}")
    }
}

/// Load averages over 1, 5 and 15 minutes. What else runs on the machine makes the numbers worse.
pub fn load() -> Option<String> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    Some(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Median of the rounds with the lowest and the highest, and the ratio of the median to one of the floor's.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    median: f64,
    min: f64,
    max: f64,
    ratio: f64,
}

impl Figure {
    /// The figure of these values, beside those of the floor; `None` without values.
    pub fn of(values: &[f64], floor: &[f64]) -> Option<Figure> {
        let median = median(values)?;
        Some(Figure {
            median,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ratio: median / self::median(floor)?,
        })
    }

    /// For programs, with the ratio under this name.
    pub fn json(figure: Option<Figure>, ratio_name: &str) -> Value {
        figure.map_or(
            Value::Null,
            |Figure { median, min, max, ratio }| json!({ "median": median, "min": min, "max": max, ratio_name: ratio }),
        )
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

/// One subject's figures.
#[derive(Debug)]
pub struct Line {
    name: String,
    messages_per_second: Option<Figure>,
    redis_us: Option<Figure>,
    process_us: Option<Figure>,
}

/// The figures of each subject; the first one is the floor. CPU time of a process is told as a ratio to the CPU time of
/// the floor's Redis too: that is what a message costs at least, wherever it is spent.
pub fn lines(subjects: &[Subject], measured: &[Vec<Measured>]) -> Vec<Line> {
    let values = |index: usize, get: &dyn Fn(&Measured) -> Option<f64>| -> Vec<f64> {
        measured[index].iter().filter_map(get).collect()
    };
    let rate = |one: &Measured| Some(one.messages_per_second);
    let redis_us = |one: &Measured| Some(one.redis_us);
    let line = |(index, subject): (usize, &Subject)| Line {
        name: subject.to_string(),
        messages_per_second: Figure::of(&values(index, &rate), &values(0, &rate)),
        redis_us: Figure::of(&values(index, &redis_us), &values(0, &redis_us)),
        process_us: Figure::of(&values(index, &|one| one.process_us), &values(0, &redis_us)),
    };
    subjects.iter().enumerate().map(line).collect()
}

/// The table.
pub fn text(lines: &[Line]) -> String {
    let mut text =
        format!("{:<19} {:^36} {:^32} {:^32}\n", "", "messages/s", "Redis CPU, µs/message", "its own CPU, µs/message");
    let columns = |width: usize, wide: usize| format!("{:>width$} {:>wide$} {:>7}", "median", "range", "× floor");
    let _ = writeln!(text, "{:<19} {} {} {}", "", columns(10, 17), columns(8, 15), columns(8, 15));
    for line in lines {
        let rate = cell(line.messages_per_second, 0, 10, 17);
        let _ = writeln!(
            text,
            "{:<19} {rate} {} {}",
            line.name,
            cell(line.redis_us, 2, 8, 15),
            cell(line.process_us, 2, 8, 15)
        );
    }
    text
}

/// Median, range and ratio, in columns.
pub fn cell(figure: Option<Figure>, digits: usize, width: usize, wide: usize) -> String {
    let Some(Figure { median, min, max, ratio }) = figure else {
        return format!("{:>width$} {:>wide$} {:>7}", "-", "-", "-");
    };
    let range = format!("{min:.digits$}–{max:.digits$}");
    // There is no ratio to a first subject that has nothing of it.
    let ratio = if ratio.is_finite() { format!("{ratio:.2}") } else { "-".into() };
    format!("{median:>width$.digits$} {range:>wide$} {ratio:>7}")
}

/// The figures for programs.
pub fn json(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        json!({
            "name": line.name,
            "messages_per_second": Figure::json(line.messages_per_second, "floor_ratio"),
            "redis_us_per_message": Figure::json(line.redis_us, "floor_ratio"),
            "process_us_per_message": Figure::json(line.process_us, "floor_ratio"),
        })
    };
    lines.iter().map(line).collect()
}

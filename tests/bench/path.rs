//! What the host costs beside bare Redis.
//!
//! The floor does what no implementation can leave out, and nothing else: it receives what is published, claims each
//! id with `SET … NX PX` and appends one entry with `XADD`. The host then does all of its work with one to ten
//! consumers. Floor and hosts take turns over several rounds, each with a Redis of its own, so that a machine that is
//! slower for a while is slower for all of them.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::run::{self, Measured, Subject};
use crate::table::{self, Line};
use crate::{Args, progress_bar};

/// Measures each subject `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Vec<Line>> {
    let subjects: Vec<Subject> =
        std::iter::once(Subject::Floor).chain(args.consumers.iter().map(|n| Subject::Host { consumers: *n })).collect();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); subjects.len()];
    let bar = progress_bar(u64::from(rounds) * subjects.len() as u64)?;
    for round in 1..=rounds {
        for (subject, results) in subjects.iter().zip(&mut measured) {
            bar.set_message(format!("path, round {round}, {subject}"));
            let result = run::measure(subject, args.messages, plugin);
            results.push(result.with_context(|| format!("{subject}, round {round}"))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table::lines(&subjects, &measured))
}

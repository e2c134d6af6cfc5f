//! What is wrong with a group, and what is worth knowing. This file only judges a status that is complete.

use std::collections::BTreeSet;
use std::time::Duration;

use super::status::{Finding, GroupStatus, Host};

/// Share of the server's memory limit from which on it counts as full, and from which on there is a warning.
const MEMORY_FULL_PERCENT: u64 = 99;
const MEMORY_WARN_PERCENT: u64 = 80;

/// Age of the oldest delivery above which there is a warning.
const OLDEST_MAX: Duration = Duration::from_secs(60);

/// Adds problems and warnings to a status.
pub(super) fn judge(status: &mut GroupStatus) {
    status.problems = problems(status);
    status.warnings = warnings(status);
    status.healthy = status.problems.is_empty();
}

fn problems(status: &GroupStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    if status.hosts.is_empty() {
        let output = &status.group.output;
        found.push(finding("no-hosts", format!("no host of the group {output} is alive")));
    } else if status.group.active_intake.is_none() {
        let text = "no host has an active intake, so that nobody appends published messages to the inbox".to_owned();
        found.push(finding("no-active-intake", text));
    }
    for host in &status.hosts {
        if host.plugin.as_ref().is_some_and(|plugin| plugin.state == "failing") {
            let id = &host.id;
            found.push(finding("failing", format!("the plugin of {id} fails nearly everything, so its messages wait")));
        }
    }
    if memory_percent(status) >= MEMORY_FULL_PERCENT {
        let text = "Redis is full: it uses its whole maxmemory; trim streams, or raise the limit".to_owned();
        found.push(finding("redis-full", text));
    }
    found
}

fn warnings(status: &GroupStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    let hosts = &status.hosts;
    let percent = memory_percent(status);
    if (MEMORY_WARN_PERCENT..MEMORY_FULL_PERCENT).contains(&percent) {
        found.push(finding("redis-memory", format!("Redis uses {percent} % of its maxmemory")));
    }
    let versions: BTreeSet<&str> = hosts.iter().filter_map(|host| host.version.as_deref()).collect();
    if versions.len() > 1 {
        found.push(finding("versions-differ", format!("the hosts run different versions: {}", join(&versions))));
    }
    let digests: BTreeSet<&str> = hosts.iter().filter_map(|host| Some(short(&host.plugin.as_ref()?.digest))).collect();
    if digests.len() > 1 {
        found.push(finding("plugins-differ", format!("the hosts use different plugins: {}", join(&digests))));
    }
    for host in hosts {
        warnings_of(host, &mut found);
    }
    if let Some(age_ms) = status.inbox.oldest_age_ms
        && Duration::from_millis(age_ms) > OLDEST_MAX
    {
        let age = humantime::format_duration(Duration::from_secs(age_ms / 1_000));
        found.push(finding("inbox-old", format!("the oldest delivery in the inbox is {age} old")));
    }
    if let Some(shed @ 1..) = status.totals.shed {
        found.push(finding("shed", format!("the hosts have shed {shed} messages since they started")));
    }
    found
}

fn warnings_of(host: &Host, found: &mut Vec<Finding>) {
    let id = &host.id;
    if let Some(intake @ ("deaf" | "owing")) = host.intake.as_deref() {
        found.push(finding("deaf", format!("the intake of {id} is {intake}: it hears nothing from the channel")));
    }
    if host.paused == Some(true) {
        found.push(finding("paused", format!("{id} is paused by a command: it takes no messages to process")));
    }
    if host.plugin.as_ref().is_some_and(|plugin| plugin.state == "rolled-back") {
        found.push(finding("rolled-back", format!("{id} has rolled back its plugin")));
    }
    let Some(plugin) = &host.plugin else { return };
    if let Some(compared) = &plugin.compared {
        if compared.slow {
            let percent = compared.time_percent;
            let text = format!("the version in use on {id} takes {percent} % of the time of the version before");
            found.push(finding("slow-version", text));
        }
        if compared.leaking {
            let bytes = compared.growth_bytes;
            let text = format!("the memory of the version in use on {id} grows by {bytes} bytes with each message");
            found.push(finding("growing-version", text));
        }
    }
    if let Some(waiting) = &plugin.waiting {
        found.push(finding("waiting", format!("on {id} {waiting}")));
    }
    if let Some(verdict) = &plugin.verdict {
        found.push(finding(
            "rolled-back-elsewhere",
            format!("the version in use on {id} was rolled back elsewhere: {verdict}"),
        ));
    }
}

fn finding(code: &'static str, text: String) -> Finding {
    Finding { code, text }
}

fn memory_percent(status: &GroupStatus) -> u64 {
    let (used, limit) = (status.redis.memory_bytes, status.redis.memory_bytes_max);
    // A limit of 0 is no limit.
    used.saturating_mul(100).checked_div(limit).unwrap_or(0)
}

/// The part of a digest that people compare.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn join(parts: &BTreeSet<&str>) -> String {
    parts.iter().copied().collect::<Vec<_>>().join(", ")
}

//! The state of a group on one page, for people.

use crate::cli::text::{Cell, Paint, age, columns, cut, grouped, line, rate, short_digest, size};
use crate::observe::status::{Consumer, DeadLetterCounts, GroupStatus, Host, Inbox, Output, Retries};

/// Consumers on the page, at most. `--json` names all.
const CONSUMERS_MAX: usize = 20;

/// Characters of the id of a host or a consumer.
const ID_CHARS_MAX: usize = 48;

/// Placeholder for what is not known.
const UNKNOWN: &str = "-";

/// The whole page.
pub(super) fn page(status: &GroupStatus, with_colours: bool) -> String {
    let mut text = headline(status, with_colours);
    text.push_str(&findings(status, with_colours));
    text.push('\n');
    text.push_str(&columns(&figures(status), with_colours));
    if !status.hosts.is_empty() {
        text.push('\n');
        text.push_str(&columns(&hosts(&status.hosts), with_colours));
    }
    if !status.consumers.is_empty() {
        text.push('\n');
        text.push_str(&columns(&consumers(&status.consumers), with_colours));
        let more = status.consumers.len().saturating_sub(CONSUMERS_MAX);
        if more > 0 {
            let more = format!("and {} more; --json names all\n", grouped(more as u64));
            text.push_str(&Paint::Dim.on(&more, with_colours));
        }
    }
    text
}

fn headline(status: &GroupStatus, with_colours: bool) -> String {
    let (word, paint) = if status.healthy { ("healthy", Paint::Green) } else { ("NOT WORKING", Paint::Red) };
    let channel = status.group.channel.as_deref().map(|channel| format!(" on channel {}", line(channel.as_bytes())));
    let group = format!("group {}{}", line(status.group.output.as_bytes()), channel.unwrap_or_default());
    let server = format!("{} at {}", status.redis.server, status.redis.address);
    format!(
        "{}: {}  ({server}, {})\n",
        Paint::Bold.on(&group, with_colours),
        paint.on(word, with_colours),
        status.timestamp
    )
}

fn findings(status: &GroupStatus, with_colours: bool) -> String {
    let problems = status.problems.iter().map(|problem| (Paint::Red, "problem", problem));
    let warnings = status.warnings.iter().map(|warning| (Paint::Yellow, "warning", warning));
    let lines = problems.chain(warnings);
    lines
        .map(|(paint, word, finding)| format!("{}: {}\n", paint.on(word, with_colours), line(finding.text.as_bytes())))
        .collect()
}

fn figures(status: &GroupStatus) -> Vec<Vec<Cell>> {
    let totals = &status.totals;
    let known = |number: Option<u64>| number.map_or_else(|| UNKNOWN.to_owned(), grouped);
    let per_second = totals.messages_per_second.map_or_else(|| UNKNOWN.to_owned(), rate);
    let gaps = match (totals.gaps, totals.gap_ms) {
        (Some(gaps @ 1..), Some(ms)) => format!("{} ({} together)", grouped(gaps), age(ms)),
        (gaps, _) => known(gaps),
    };
    let memory = match status.redis.memory_bytes_max {
        0 => size(status.redis.memory_bytes),
        limit => format!("{} of {}", size(status.redis.memory_bytes), size(limit)),
    };
    let elsewhere = match totals.remote_consumers {
        0 => String::new(),
        remote => format!(", {} of them remote", grouped(remote)),
    };
    let mut rows = vec![
        row("messages/s", per_second),
        row("hosts", format!("{}, with {} consumers{elsewhere}", grouped(totals.hosts), grouped(totals.consumers))),
        row("inbox", inbox(&status.inbox)),
        row("position lag", known(totals.position_lag)),
        row("retries", retries(&status.retries)),
        row("dead letters", dead_letters(&status.dead_letters)),
        row("shed, gaps", format!("{}, {gaps}", known(totals.shed))),
    ];
    let trimmed = [("results", totals.results_trimmed), ("dead letters", totals.dead_letters_trimmed)];
    let trimmed = trimmed.into_iter().filter_map(|(what, number)| Some((what, number.filter(|number| *number > 0)?)));
    let trimmed: Vec<String> = trimmed.map(|(what, number)| format!("{} {what}", grouped(number))).collect();
    if !trimmed.is_empty() {
        rows.push(row("trimmed", trimmed.join(", ")));
    }
    rows.extend(status.outputs.iter().map(output));
    rows.push(row("Redis memory", memory));
    rows
}

fn row(name: impl Into<String>, value: impl Into<String>) -> Vec<Cell> {
    vec![Cell::text(name), Cell::text(value)]
}

fn inbox(inbox: &Inbox) -> String {
    let Inbox { length, in_progress, waiting, oldest_age_ms } = inbox;
    if *length == 0 {
        return "empty".to_owned();
    }
    let (length, in_progress, waiting) = (grouped(*length), grouped(*in_progress), grouped(*waiting));
    let oldest = oldest_age_ms.map(|ms| format!("; the oldest is {} old", age(ms))).unwrap_or_default();
    format!("{length} deliveries: {in_progress} in progress, {waiting} waiting{oldest}")
}

pub(in crate::cli) fn retries(retries: &Retries) -> String {
    match retries.next_due_in_ms {
        Some(0) => format!("{} waiting; the next is due", grouped(retries.waiting)),
        Some(ms) => format!("{} waiting; the next in {}", grouped(retries.waiting), age(ms)),
        None => grouped(retries.waiting),
    }
}

pub(in crate::cli) fn dead_letters(letters: &DeadLetterCounts) -> String {
    let DeadLetterCounts { length, counted, reasons, .. } = letters;
    if *length == 0 {
        return "0".to_owned();
    }
    let mut reasons: Vec<(&String, &u64)> = reasons.iter().collect();
    reasons.sort_by_key(|(_, letters)| std::cmp::Reverse(**letters));
    let named = |(reason, letters): &(&String, &u64)| format!("{} {}", line(reason.as_bytes()), grouped(**letters));
    let named = reasons.iter().map(named).collect::<Vec<_>>().join(", ");
    let some = if counted < length { format!("; of the newest {}", grouped(*counted)) } else { String::new() };
    format!("{}: {named}{some}", grouped(*length))
}

fn output(output: &Output) -> Vec<Cell> {
    let (name, key) = (output.name.as_str(), line(output.key.as_bytes()));
    row(
        format!("output {name}"),
        format!("{} results in {key}, {} ever", grouped(output.length), grouped(output.added)),
    )
}

fn heads(heads: &[&str]) -> Vec<Cell> {
    let is_number = |head: &&str| matches!(*head, "BEAT" | "CONSUMERS" | "MESSAGES/S" | "PROCESSED" | "LAG");
    let cell = |head: &&str| if is_number(head) { Cell::number(*head) } else { Cell::text(*head) };
    heads.iter().map(|head| cell(head).paint(Paint::Dim)).collect()
}

fn hosts(hosts: &[Host]) -> Vec<Vec<Cell>> {
    let head = heads(&["HOST", "VERSION", "BEAT", "INTAKE", "CONSUMERS", "MESSAGES/S", "PROCESSED", "LAG", "PLUGIN"]);
    [head].into_iter().chain(hosts.iter().map(host)).collect()
}

fn host(host: &Host) -> Vec<Cell> {
    let text = |text: &Option<String>| line(text.as_deref().unwrap_or(UNKNOWN).as_bytes());
    let number = |number: Option<u64>| Cell::number(number.map_or_else(|| UNKNOWN.to_owned(), grouped));
    let intake = match host.intake.as_deref() {
        Some("active") => Paint::Green,
        Some("deaf" | "owing") => Paint::Red,
        _ => Paint::Plain,
    };
    let plugin = host.plugin.as_ref().map_or_else(
        || UNKNOWN.to_owned(),
        |plugin| format!("{} {} ({})", plugin.generation, short_digest(&plugin.digest), plugin.standing()),
    );
    vec![
        Cell::text(cut(line(host.id.as_bytes()), ID_CHARS_MAX)),
        Cell::text(text(&host.version)),
        Cell::number(host.heartbeat_age_ms.map_or_else(|| UNKNOWN.to_owned(), age)),
        Cell::text(text(&host.intake)).paint(intake),
        Cell::number(grouped(host.consumers + host.remote_consumers)),
        Cell::number(host.messages_per_second.map_or_else(|| UNKNOWN.to_owned(), rate)),
        number(host.processed),
        number(host.position_lag),
        Cell::text(line(plugin.as_bytes())),
    ]
}

fn consumers(consumers: &[Consumer]) -> Vec<Vec<Cell>> {
    let head = heads(&["CONSUMER", "MESSAGES/S", "PROCESSED"]);
    let name = |consumer: &Consumer| {
        let id = cut(line(consumer.id.as_bytes()), ID_CHARS_MAX);
        // By its address, a remote consumer does not tell at which host it is.
        if consumer.remote {
            format!("{id} (remote, at {})", cut(line(consumer.host.as_bytes()), ID_CHARS_MAX))
        } else {
            id
        }
    };
    let row = |consumer: &Consumer| {
        vec![
            Cell::text(name(consumer)),
            Cell::number(consumer.messages_per_second.map_or_else(|| UNKNOWN.to_owned(), rate)),
            Cell::number(consumer.processed.map_or_else(|| UNKNOWN.to_owned(), grouped)),
        ]
    };
    [head].into_iter().chain(consumers.iter().take(CONSUMERS_MAX).map(row)).collect()
}

//! `/metrics` in the text format of OpenMetrics: what this host counts and measures, and one look at its group. Values are read
//! when somebody asks; this file keeps none.

mod families;
mod process;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use self::families::Families;
use self::process::Process;
use super::Service;
use super::answer::Problem;
use crate::message::Reason;
use crate::observe::status::GroupStatus;
use crate::standing;
use crate::version;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures. Without Redis, those of the group are left out.
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let group = service.look.group().await.ok();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { service, group }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written").into_response(),
    }
}

/// The values of one answer.
#[derive(Debug)]
struct Scrape {
    service: Arc<Service>,
    /// `None` when Redis does not answer.
    group: Option<Arc<GroupStatus>>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut families = Families::new(encoder);
        self.messages(&mut families)?;
        self.intake(&mut families)?;
        self.plugin(&mut families)?;
        self.process(&mut families)?;
        self.group(&mut families)
    }
}

/// Each name is in the handbook, in the chapter on operating.
impl Scrape {
    fn messages(&self, families: &mut Families<'_>) -> std::fmt::Result {
        let counters = &self.service.group.counters;
        let outcomes = [
            ("emitted", &counters.emitted),
            ("dropped", &counters.dropped),
            ("rejected", &counters.rejected),
            ("retried", &counters.retried),
            ("failed", &counters.failed),
            ("duplicate", &counters.duplicates),
        ];
        let outcomes = outcomes.map(|(name, counter)| (name, counter.get()));
        families.counters("host_messages", "Messages by what became of them, at each attempt", "outcome", &outcomes)?;
        let reasons = Reason::ALL.map(|reason| (reason.as_str(), counters.dead_letters_by_reason.get(reason)));
        families.counters("host_dead_letters_written", "Messages that this host gave up", "reason", &reasons)?;
        let trimmed = &counters.trimmed;
        let help = "Dead letters that this host removed, because there were more than are kept";
        families.counter("host_dead_letters_trimmed", help, trimmed.dead_letters.get())?;
        let help = "Results that this host removed, because a stream was longer than its bound";
        families.counter("host_results_trimmed", help, trimmed.results.get())?;
        let help = "Deliveries that this host processed again, because the plugin's state was not as it had been read";
        families.counter("host_state_conflicts", help, counters.state_conflicts.get())?;
        if let Some(measured) = &self.service.group.measured {
            let latency = measured.latency.read();
            let help = "Time of messages in the inbox until their outcome was written";
            families.seconds_histogram("host_message_latency", help, &latency)?;
            let calls = measured.calls();
            let times: Vec<_> = calls.iter().map(|calls| (calls.digest.clone(), calls.times.clone())).collect();
            let help = "Time of the calls of the plugin, of one call in 16";
            families.seconds_histograms("host_plugin_call", help, "digest", &times)?;
            let busy: Vec<_> = calls.into_iter().map(|calls| (calls.digest, calls.busy.as_secs_f64())).collect();
            let help = "Time in which calls of the plugin were on a thread";
            families.seconds_counters("host_plugin_busy", help, "digest", &busy)?;
        }
        Ok(())
    }

    fn intake(&self, families: &mut Families<'_>) -> std::fmt::Result {
        let (counters, standing) = (&self.service.group.counters, &self.service.group.standing);
        let help = "Messages received from the channel, as active intake or standby";
        families.counter("host_received_messages", help, counters.received.get())?;
        families.counter("host_shed_messages", "Messages for which there was no room", counters.shed.get())?;
        families.counter("host_gaps", "Times without a subscribed host", counters.gaps.get())?;
        families.seconds_counter(
            "host_gap",
            "Length of the times without a subscribed host",
            seconds(counters.gap_ms.get()),
        )?;
        families.counter("host_reconnects", "Connections opened again after a failure", counters.reconnects.get())?;
        let help = "Messages heard and not known to be in the inbox";
        families.gauge("host_position_lag_messages", help, standing.lag())?;
        let present = standing.place().state;
        let states = [standing::State::Active, standing::State::Standby, standing::State::Owing, standing::State::Deaf];
        let states = states.map(|state| (state.to_string(), u64::from(state == present)));
        families.gauges("host_intake_state", "State of the intake: 1 for the present one", "state", &states)
    }

    fn plugin(&self, families: &mut Families<'_>) -> std::fmt::Result {
        let status = self.service.versions.status();
        families.gauge("host_consumers", "Consumers of this host", u64::from(status.consumers))?;
        let usage = self.service.versions.current().plugin.usage().clone();
        families.gauge("host_instances", "Instances of the plugin", usage.instances())?;
        families.bytes_gauge("host_instances_memory", "Memory of the instances of the plugin", usage.memory_bytes())?;
        families.counter("host_plugin_swaps", "Changes of the version in use, with rollbacks", status.swaps)?;
        families.counter("host_plugin_refusals", "Versions and configurations that were refused", status.refusals)?;
        families.counter("host_plugin_rollbacks", "Rollbacks to the version before", status.rollbacks)?;
        let failing = u64::from(status.state == version::State::Failing);
        families.gauge("host_plugin_failing", "Whether the plugin fails nearly everything", failing)?;
        let version = [("digest", status.digest.clone()), ("generation", status.generation.to_string())];
        families.info("host_plugin", "The version of the plugin in use", &version)
    }

    fn process(&self, families: &mut Families<'_>) -> std::fmt::Result {
        let traces = self.service.group.traces.as_deref();
        let spans = [
            ("sent", traces.map_or(0, |traces| traces.sent.get())),
            ("lost", traces.map_or(0, |traces| traces.lost.get())),
        ];
        families.counters("host_trace_spans", "Spans of traces by what became of them", "result", &spans)?;
        let build = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        families.info("host_build", "The version of the program", &build)?;
        let busy = self.service.busy_time().as_secs_f64();
        families.seconds_counter(
            "host_consumer_threads_busy",
            "Time in which the threads of the consumers worked",
            busy,
        )?;
        let Process { cpu, resident_bytes } = Process::now();
        families.seconds_counter("host_process_cpu", "CPU time of all threads of this process", cpu.as_secs_f64())?;
        match resident_bytes {
            Some(bytes) => families.bytes_gauge("host_process_resident_memory", "Memory of this process", bytes),
            None => Ok(()),
        }
    }

    fn group(&self, families: &mut Families<'_>) -> std::fmt::Result {
        let help = "Whether Redis has told the state of the group";
        families.gauge("host_redis_up", help, u64::from(self.group.is_some()))?;
        // Old figures would look like present ones.
        let Some(group) = &self.group else { return Ok(()) };
        families.gauge("host_group_hosts", "Hosts of the group that are alive", group.totals.hosts)?;
        families.gauge("host_group_consumers", "Consumers of the group that are alive", group.totals.consumers)?;
        families.gauge("host_inbox_entries", "Deliveries in the inbox of the group", group.inbox.length)?;
        let age = seconds(group.inbox.oldest_age_ms.unwrap_or(0));
        families.seconds_gauge("host_inbox_oldest_age", "Age of the oldest delivery in the inbox", age)?;
        families.gauge("host_retries_waiting", "Messages that wait for another attempt", group.retries.waiting)?;
        families.gauge("host_dead_letters", "Messages among the dead letters", group.dead_letters.length)
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

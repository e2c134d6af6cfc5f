//! Writes families of metrics: a description, and a sample for each value of a label. This file knows no metric. Counters get
//! `_total` and infos `_info` at the end of their names, and times and sizes get their unit.

use std::borrow::Borrow;
use std::fmt::Result;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::measured::Observed;

/// The families of one answer, in the order in which they are written.
#[derive(Debug)]
pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Families<'a> {
        Families(encoder)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    /// A counter for each value of a label.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(of, value)| {
            family.encode_family(&[(label, *of)])?.encode_counter::<NoLabelSet, u64, f64>(value, None)
        })
    }

    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, seconds: f64) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)
    }

    /// A counter for each value of a label.
    pub(super) fn seconds_counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(impl Borrow<str>, f64)],
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        values.iter().try_for_each(|(of, seconds)| {
            family.encode_family(&[(label, of.borrow())])?.encode_counter::<NoLabelSet, f64, f64>(seconds, None)
        })
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A gauge for each value of a label.
    pub(super) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(String, u64)]) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.iter().try_for_each(|(of, value)| family.encode_family(&[(label, of.as_str())])?.encode_gauge(value))
    }

    pub(super) fn seconds_gauge(&mut self, name: &str, help: &str, seconds: f64) -> Result {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&seconds)
    }

    pub(super) fn bytes_gauge(&mut self, name: &str, help: &str, bytes: u64) -> Result {
        self.0.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?.encode_gauge(&bytes)
    }

    /// Facts as labels.
    pub(super) fn info<const FACTS: usize>(
        &mut self,
        name: &str,
        help: &str,
        facts: &[(&'static str, String); FACTS],
    ) -> Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(facts)
    }

    pub(super) fn seconds_histogram(&mut self, name: &str, help: &str, observed: &Observed) -> Result {
        histogram(&mut self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?, observed)
    }

    /// A histogram for each value of a label.
    pub(super) fn seconds_histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: &[(impl Borrow<str>, Observed)],
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        all.iter()
            .try_for_each(|(of, observed)| histogram(&mut family.encode_family(&[(label, of.borrow())])?, observed))
    }
}

fn histogram(encoder: &mut MetricEncoder<'_>, observed: &Observed) -> Result {
    let count = observed.buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(observed.sum, count, &observed.buckets, None)
}

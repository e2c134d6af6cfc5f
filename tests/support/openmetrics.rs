//! A strict reader of the text format of OpenMetrics 1.0: it refuses whatever the specification does not allow.

use std::collections::{BTreeMap, BTreeSet};

use super::http::Request;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub type Labels = BTreeMap<String, String>;

/// All families of one answer, by name.
#[derive(Clone, Debug, Default)]
pub struct Exposition(pub BTreeMap<String, Family>);

/// A metric family: its type, and its samples in order.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub kind: String,
    pub unit: Option<String>,
    pub help: String,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// Scrapes with this request.
pub fn scrape(address: std::net::SocketAddr, request: Request) -> Exposition {
    let answer = request.send(address);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(CONTENT_TYPE)), "{}", answer.text());
    read(&answer.text())
}

/// Reads a whole answer.
pub fn read(text: &str) -> Exposition {
    let body = text.strip_suffix("# EOF\n").expect("an end");
    let mut exposition = Exposition::default();
    let mut current = String::new();
    for line in body.lines() {
        assert!(!line.is_empty() && !line.contains('\r') && line.trim() == line, "{line:?}");
        if let Some(metadata) = line.strip_prefix("# ") {
            let (kind, rest) = metadata.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (name, text) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            exposition.describe(&mut current, kind, name, text);
        } else {
            let sample = sample(line);
            let family = exposition.0.get_mut(&current).unwrap_or_else(|| panic!("no family for {line}"));
            family.check_sample(&current, &sample);
            family.samples.push(sample);
        }
    }
    exposition.0.iter().for_each(|(name, family)| family.check(name));
    exposition
}

impl Exposition {
    fn describe(&mut self, current: &mut String, kind: &str, name: &str, text: &str) {
        assert!(is_name(name), "{name}");
        if name != current {
            assert!(!self.0.contains_key(name), "{name} is in two places");
            name.clone_into(current);
        }
        let family = self.0.entry(name.to_owned()).or_default();
        assert!(family.samples.is_empty(), "{name}: the description comes before the samples");
        let place = match kind {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => family.unit.get_or_insert_default(),
            _ => panic!("# {kind} {name}"),
        };
        assert!(place.is_empty(), "{name}: two lines {kind}");
        text.clone_into(place);
    }

    /// The family and the name of its samples without `_bucket` and the like: as a query names it.
    pub fn metrics(&self) -> BTreeMap<String, &Family> {
        let suffix = |family: &Family| match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        self.0.iter().map(|(name, family)| (format!("{name}{}", suffix(family)), family)).collect()
    }

    /// The samples with this name.
    pub fn samples(&self, name: &str) -> Vec<&Sample> {
        self.0.values().flat_map(|family| &family.samples).filter(|sample| sample.name == name).collect()
    }

    /// The value of the only sample with this name and these labels, among others.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut samples = self.samples(name);
        samples.retain(|sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
        });
        let [sample] = samples[..] else { panic!("{name}{labels:?}: {samples:?}") };
        sample.value
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).iter().map(|sample| sample.value).sum()
    }
}

impl Family {
    /// The names of the labels, without those that the type brings.
    pub fn labels(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .flat_map(|sample| sample.labels.keys())
            .map(String::as_str)
            .filter(|name| *name != "le")
            .collect()
    }

    fn check_sample(&self, family: &str, sample: &Sample) {
        let suffix = sample.name.strip_prefix(family).unwrap_or_else(|| panic!("{sample:?} in {family}"));
        let allowed: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("{family}: the type {kind:?}"),
        };
        assert!(allowed.contains(&suffix), "{sample:?} in a {}", self.kind);
        assert!(sample.labels.contains_key("le") == (suffix == "_bucket"), "{sample:?}");
        if self.kind != "gauge" {
            assert!(sample.value >= 0.0, "{sample:?}");
        }
        if self.kind == "info" {
            assert!((sample.value - 1.0).abs() < f64::EPSILON, "{sample:?}");
        }
        let is_same = |other: &Sample| other.name == sample.name && other.labels == sample.labels;
        assert!(!self.samples.iter().any(is_same), "{sample:?} comes twice");
    }

    fn check(&self, name: &str) {
        assert!(!self.kind.is_empty() && !self.help.is_empty(), "{name} has a type and a description");
        assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}: the suffix is not part of the name");
        if let Some(unit) = &self.unit {
            assert!(name.ends_with(&format!("_{unit}")), "{name} has the unit {unit}");
        }
        for unit in ["seconds", "bytes"] {
            assert_eq!(name.ends_with(&format!("_{unit}")), self.unit.as_deref() == Some(unit), "{name}");
        }
        if self.kind == "histogram" {
            self.check_histograms(name);
        }
    }

    fn check_histograms(&self, name: &str) {
        let part = |suffix: &str| {
            let name = format!("{name}_{suffix}");
            self.samples.iter().filter(move |sample| sample.name == name)
        };
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in part("bucket") {
            let mut labels = sample.labels.clone();
            let le = labels.remove("le").expect("a bound");
            let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().expect("a number") };
            assert!(le == "+Inf" || le.contains(['.', 'e']), "{name}: a bound is a float: {le}");
            buckets.entry(labels).or_default().push((bound, sample.value));
        }
        for (labels, buckets) in &buckets {
            let rises = |(one, other): (&(f64, f64), &(f64, f64))| one.0 < other.0 && one.1 <= other.1;
            assert!(buckets.iter().zip(&buckets[1..]).all(rises), "{name}{labels:?}: {buckets:?}");
            let (last, count) = buckets[buckets.len() - 1];
            assert!(last.is_infinite(), "{name}{labels:?}: {buckets:?}");
            let of = |suffix| part(suffix).find(|sample| sample.labels == *labels).map(|sample| sample.value);
            assert_eq!(of("count"), Some(count), "{name}{labels:?}");
            assert!(of("sum").is_some(), "{name}{labels:?}");
        }
        assert_eq!((part("sum").count(), part("count").count()), (buckets.len(), buckets.len()), "{name}");
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
}

/// `name{label="value",…} number`, without a time and without an exemplar.
fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest, line),
        None => (Labels::new(), rest),
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!value.contains(' '), "{line}");
    let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(!value.is_nan(), "{line}");
    Sample { name: name.to_owned(), labels, value }
}

/// The labels up to the closing brace, and what follows.
fn labels<'a>(mut rest: &'a str, line: &str) -> (Labels, &'a str) {
    let mut labels = Labels::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(name), "{line}");
        let (value, after) = quoted(after, line);
        assert!(labels.insert(name.to_owned(), value).is_none(), "{line}: {name} comes twice");
        rest = match after.split_at(1) {
            (",", after) => after,
            ("}", after) => return (labels, after),
            _ => panic!("{line}"),
        };
    }
}

/// A value up to its closing quote, and what follows.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((place, char)) = chars.next() {
        match char {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => panic!("an unknown escape: {line}"),
            }),
            char => value.push(char),
        }
    }
    panic!("a value without an end: {line}")
}

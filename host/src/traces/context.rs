//! The trace of a message: read from its `traceparent`, or derived from the message. A pure function, so that every host comes to
//! the same answer.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::message::json;

/// Length of a `traceparent` of version 00: version, trace, parent and flags, in hexadecimal digits, with hyphens between them.
const TRACEPARENT_CHARS: usize = 55;

/// Where the parts of a `traceparent` are.
const VERSION: Range<usize> = 0..2;
const TRACE: Range<usize> = 3..35;
const PARENT: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;

/// The flag of a publisher that traces the message itself.
const SAMPLED: u8 = 1;

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The id of a span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

macro_rules! id {
    ($type:ident, $bytes:literal) => {
        impl From<[u8; $bytes]> for $type {
            fn from(bytes: [u8; $bytes]) -> $type {
                $type(bytes)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl $type {
            /// Reads lower-case hexadecimal digits. An id of zeros is none.
            fn read(text: &str) -> Option<$type> {
                let mut bytes = [0; $bytes];
                for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    *byte = hex(digits)?;
                }
                (text.len() == 2 * $bytes && bytes != [0; $bytes]).then_some($type(bytes))
            }
        }
    };
}
id!(TraceId, 16);
id!(SpanId, 8);

/// A byte of two lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let [high, low] = digits else { return None };
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// What a trace is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The message id.
    pub message_id: &'a str,
    /// The published JSON text.
    pub body: &'a str,
    /// Token of the message's claim. Another message with the same id, later, has another token.
    pub token: &'a str,
}

/// The trace of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The id.
    pub id: TraceId,
    /// The publisher's span.
    pub parent: Option<SpanId>,
    /// Whether there are spans of the message.
    pub is_sampled: bool,
}

impl Trace {
    /// Reads a `traceparent` as the W3C defines it; `None` for any other text.
    fn read(text: &str) -> Option<Trace> {
        let part = |range: Range<usize>| text.get(range);
        let version = hex(part(VERSION)?.as_bytes())?;
        // Later versions may have more parts.
        let is_whole = match version {
            0 => text.len() == TRACEPARENT_CHARS,
            0xff => false,
            _ => text.get(TRACEPARENT_CHARS..)?.is_empty() || text[TRACEPARENT_CHARS..].starts_with('-'),
        };
        let has_hyphens = [VERSION.end, TRACE.end, PARENT.end].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
        let (id, parent) = (TraceId::read(part(TRACE)?)?, SpanId::read(part(PARENT)?)?);
        let is_sampled = hex(part(FLAGS)?.as_bytes())? & SAMPLED != 0;
        (is_whole && has_hyphens).then_some(Trace { id, parent: Some(parent), is_sampled })
    }
}

/// Ids of the spans that other hosts name as parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stems {
    pub(super) heard: SpanId,
    pub(super) appended: SpanId,
}

/// Decides which messages are traced.
#[derive(Debug)]
pub(super) struct Sampling {
    property: String,
    /// The property's name in JSON without escapes, to look for in a text.
    needle: String,
    /// Sampled are traces whose number is below it.
    below: u64,
    group: String,
    /// Where the sums of this group begin.
    seed: u64,
}

impl Sampling {
    pub(super) fn new(property: &str, ratio: f64, group: &str) -> Sampling {
        Sampling {
            property: property.to_owned(),
            needle: serde_json::Value::from(property).to_string(),
            below: below(ratio),
            group: group.to_owned(),
            seed: sum(STEP, group),
        }
    }

    /// The trace of a message that has a `traceparent` or is sampled.
    pub(super) fn trace(&self, origin: Origin<'_>) -> Option<Trace> {
        // Most bodies need not be parsed. A name that is written with escapes is not found, by any host.
        if origin.body.contains(&self.needle)
            && let Some(trace) = self.property_of(origin.body).and_then(|text| Trace::read(&text))
        {
            return Some(trace);
        }
        let low = mixed(sum(sum(self.seed, origin.message_id), origin.token));
        // As samplers of OpenTelemetry decide by the id of the trace.
        if low >> 1 >= self.below {
            return None;
        }
        let [high, ..] = self.eights(u128::from(low), origin);
        let id = u128::from(u64::from_be_bytes(high)) << 64 | u128::from(low);
        Some(Trace { id: TraceId(id.to_be_bytes()), parent: None, is_sampled: true })
    }

    /// The stems of a message in its trace. Several messages may be in one.
    pub(super) fn stems(&self, trace: Trace, origin: Origin<'_>) -> Stems {
        let [_, heard, appended] = self.eights(u128::from_be_bytes(trace.id.0), origin);
        Stems { heard: SpanId(heard), appended: SpanId(appended) }
    }

    /// Three numbers that no other message has.
    fn eights(&self, start: u128, origin: Origin<'_>) -> [[u8; 8]; 3] {
        let mut hash = Sha256::new();
        hash.update(start.to_be_bytes());
        for part in [self.group.as_str(), origin.message_id, origin.token] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let eight = |from: usize| std::array::from_fn(|at| digest[from + at]);
        [eight(0), eight(8), eight(16)]
    }

    /// The text of the property, the last one if there are several.
    fn property_of(&self, body: &str) -> Option<String> {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let raw = deserializer.deserialize_map(Property(&self.property)).ok()??;
        if raw.starts_with('"') { json::decode(raw).ok().map(Cow::into_owned) } else { None }
    }
}

/// Finds a property of an object.
struct Property<'p>(&'p str);

impl<'de> Visitor<'de> for Property<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // Raw, because the parser rejects half of a surrogate pair.
        while let Some(name) = map.next_key::<&RawValue>()? {
            if json::decode(name.get()).as_deref() == Ok(self.0) {
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// An odd number without a pattern, so that zeros change the hash as well.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Continues a hash with a text and its length, eight bytes at a time. The sampling needs a hash that is quick for each message, and
/// the same in all versions and on all machines.
fn sum(start: u64, text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut sum = start;
    for word in words {
        sum = mixed(sum ^ u64::from_le_bytes(*word)).wrapping_add(STEP);
    }
    mixed(sum ^ u64::from_le_bytes(last)).wrapping_add(text.len() as u64)
}

/// The same number with all bits mixed (the last step of MurmurHash3), so that any share of the numbers is a share of the messages.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}

/// The bound of a share, among numbers of 63 bits.
fn below(ratio: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
    let below = (ratio.clamp(0.0, 1.0) * 2f64.powi(63)) as u64;
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN_ID: &str = "00f067aa0ba902b7";

    fn sampling(ratio: f64) -> Sampling {
        Sampling::new("traceparent", ratio, "messages:processed")
    }

    fn of(body: &str) -> Option<(String, Option<String>, bool)> {
        let trace = sampling(0.0).trace(Origin { message_id: "m", body, token: "5-a" })?;
        Some((trace.id.to_string(), trace.parent.map(|parent| parent.to_string()), trace.is_sampled))
    }

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let with = |value: &str| format!(r#"{{"message_id":"m","traceparent":"{value}"}}"#);
        let expected = |is_sampled| Some((TRACE_ID.to_owned(), Some(SPAN_ID.to_owned()), is_sampled));
        for (value, is_sampled) in [
            (format!("00-{TRACE_ID}-{SPAN_ID}-01"), true),
            (format!("00-{TRACE_ID}-{SPAN_ID}-00"), false),
            (format!("00-{TRACE_ID}-{SPAN_ID}-03"), true),
            (format!("00-{TRACE_ID}-{SPAN_ID}-fe"), false),
            (format!("cc-{TRACE_ID}-{SPAN_ID}-01"), true),
            (format!("cc-{TRACE_ID}-{SPAN_ID}-01-more"), true),
            (format!("\\u0030\\u0030-{TRACE_ID}-{SPAN_ID}-01"), true),
        ] {
            assert_eq!(of(&with(&value)), expected(is_sampled), "{value}");
        }
        for value in [
            String::new(),
            format!("00-{TRACE_ID}-{SPAN_ID}"),
            format!("00-{TRACE_ID}-{SPAN_ID}-1"),
            format!("00-{TRACE_ID}-{SPAN_ID}-01-"),
            format!("00-{TRACE_ID}-{SPAN_ID}-011"),
            format!("cc-{TRACE_ID}-{SPAN_ID}-011"),
            format!("ff-{TRACE_ID}-{SPAN_ID}-01"),
            format!("00_{TRACE_ID}-{SPAN_ID}-01"),
            format!("00-{TRACE_ID}_{SPAN_ID}-01"),
            format!("00-{TRACE_ID}-{SPAN_ID}_01"),
            format!("00-{}-{SPAN_ID}-01", "0".repeat(32)),
            format!("00-{TRACE_ID}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN_ID}-01", TRACE_ID.to_uppercase()),
            format!("00-{}-{SPAN_ID}-01", TRACE_ID.replace('4', "g")),
            format!("00-{TRACE_ID}-{SPAN_ID}-0x"),
            format!("00-{}é-{SPAN_ID}-01", &TRACE_ID[..30]),
            format!("\\ud800-{TRACE_ID}-{SPAN_ID}-01"),
            "0".repeat(5_000),
        ] {
            assert_eq!(of(&with(&value)), None, "{value}");
        }
        for value in ["7", "null", "true", "[]", "{}", r#"["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]"#]
        {
            assert_eq!(of(&format!(r#"{{"message_id":"m","traceparent":{value}}}"#)), None, "{value}");
        }
    }

    #[test]
    fn only_a_property_of_the_message_itself_counts() {
        let good = format!("00-{TRACE_ID}-{SPAN_ID}-01");
        assert_eq!(of(&format!(r#"{{"x":{{"traceparent":"{good}"}}}}"#)), None);
        assert_eq!(of(&format!(r#"{{"x":"\"traceparent\"","y":"{good}"}}"#)), None);
        assert!(of(&format!(r#"{{"\ud800":"\ud800","traceparent":"{good}"}}"#)).is_some());
        assert!(of(&format!(r#"{{"traceparent":7,"traceparent":"{good}"}}"#)).is_some(), "the last one counts");
    }

    #[test]
    fn the_share_of_sampled_messages_is_the_ratio() {
        for (ratio, expected) in [(0.0, 0..=0), (0.01, 800..=1_200), (0.5, 49_000..=51_000), (1.0, 100_000..=100_000)] {
            let sampling = sampling(ratio);
            let is_sampled = |number: &u32| {
                let message_id = &format!("order-{number}");
                sampling.trace(Origin { message_id, body: "{}", token: "1700000000000-00c0ffee1" }).is_some()
            };
            let sampled = (0..100_000).filter(is_sampled).count();
            assert!(expected.contains(&sampled), "{ratio}: {sampled}");
        }
    }

    #[test]
    fn ids_are_the_same_in_every_host_and_version() {
        let origin = Origin { message_id: "m", body: "{}", token: "1700000000000-00c0ffee1" };
        let trace = sampling(1.0).trace(origin).expect("all are sampled");
        let Stems { heard, appended } = sampling(1.0).stems(trace, origin);
        let ids = [trace.id.to_string(), heard.to_string(), appended.to_string()];
        assert_eq!(ids, ["50b1ae5e338f5ea814ca796f9d580888", "04136c20ebdc5609", "b3cb7746e87e5f93"]);
        let other = Origin { token: "1700000000001-00c0ffee1", ..origin };
        let later = sampling(1.0).trace(other).expect("all are sampled");
        assert_ne!((later.id, sampling(1.0).stems(trace, other)), (trace.id, Stems { heard, appended }));
        let others = Sampling::new("traceparent", 1.0, "orders").trace(origin).expect("all are sampled");
        assert_ne!(others.id, trace.id);
    }
}

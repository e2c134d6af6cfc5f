//! Messages that wait before they are processed: the time is in a property of the message. This file reads the time; it lets
//! nothing wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::property::{Property, find};
use super::{Reason, Refusal, json, refuse};
use crate::config::{MessageConfig, PropertyPath};

/// Which properties hold such a time, and how far ahead it may be.
#[derive(Clone, Debug)]
pub struct Delays {
    at: Option<PropertyPath>,
    after: Option<PropertyPath>,
    max: Duration,
}

impl Delays {
    /// As they are configured; `None` when no property is named, and nothing is to be looked for.
    #[must_use]
    pub fn configured(config: &MessageConfig) -> Option<Delays> {
        let (at, after) = (config.deliver_at_property.clone(), config.deliver_after_property.clone());
        (at.is_some() || after.is_some()).then_some(Delays { at, after, max: config.deliver_delay_max })
    }

    /// When a message is due that was received at `received_ms`, both in ms since 1970. `None`: the message names no time.
    ///
    /// # Errors
    /// A [`Refusal`] when the time cannot be read, or is too far ahead.
    pub fn due_ms(&self, body: &str, received_ms: u64) -> Result<Option<u64>, Refusal> {
        let (at, after) = (look(body, self.at.as_ref())?, look(body, self.after.as_ref())?);
        let (path, due_ms) = match (at, after) {
            (None, None) => return Ok(None),
            (Some((at, _)), Some((after, _))) => {
                return Err(bad(format!("the message has both {at} and {after}; it must have one of them")));
            }
            (Some((path, json)), None) => (
                path,
                instant_ms(json).ok_or_else(|| {
                    bad(format!(
                        "{path} is {}; it must be a time such as \"2026-04-05T17:30:00Z\" or a number of ms since 1970",
                        shown(json)
                    ))
                })?,
            ),
            (None, Some((path, json))) => (
                path,
                received_ms.saturating_add(span_ms(json).ok_or_else(|| {
                    bad(format!(
                        "{path} is {}; it must be a length of time such as \"10m\" or a number of ms",
                        shown(json)
                    ))
                })?),
            ),
        };
        if due_ms.saturating_sub(received_ms) > millis(self.max) {
            let max = humantime::format_duration(self.max);
            return Err(bad(format!("{path} is more than {max} ahead; --max-deliver-delay is the limit")));
        }
        Ok(Some(due_ms))
    }
}

fn bad(sentence: String) -> Refusal {
    refuse(Reason::BadDelay, sentence)
}

/// Path and JSON of a property that the message has, and that is not null.
fn look<'a>(body: &'a str, path: Option<&'a PropertyPath>) -> Result<Option<(&'a str, &'a str)>, Refusal> {
    let Some(path) = path else { return Ok(None) };
    let name = path.as_str();
    match find(body, path) {
        Ok(Property::Once("null") | Property::Absent) | Err(_) => Ok(None),
        Ok(Property::Once(json)) => Ok(Some((name, json))),
        Ok(Property::Ambiguous) => Err(bad(format!("the message has the property {name} more than once"))),
    }
}

/// A value for a sentence, cut if it is long.
fn shown(json: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    match json.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &json[..end]),
        None => json.to_owned(),
    }
}

/// A time in ms since 1970; one before that is 0.
fn instant_ms(json: &str) -> Option<u64> {
    if json.starts_with('"') {
        let text = json::decode(json).ok()?;
        return rfc3339_ms(&text);
    }
    json.parse::<i64>().ok().map(|ms| ms.max(0).cast_unsigned())
}

/// RFC 3339 with any offset from UTC.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(&text).ok().map(unix_ms);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |digits: &str, max: u64| -> Option<u64> {
        let is_number = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|number| is_number && *number <= max)
    };
    let offset_length = Duration::from_secs(60 * (60 * number(hours, 23)? + number(minutes, 59)?));
    let local: SystemTime = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let utc = match offset.as_bytes().first()? {
        b'+' => local.checked_sub(offset_length)?,
        b'-' => local.checked_add(offset_length)?,
        _ => return None,
    };
    Some(unix_ms(utc))
}

/// A length of time in ms: a text with a unit, or a number.
fn span_ms(json: &str) -> Option<u64> {
    if json.starts_with('"') {
        return humantime::parse_duration(&json::decode(json).ok()?).ok().map(millis);
    }
    json.parse().ok()
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const RECEIVED_MS: u64 = 1_775_410_000_000;

    fn delays() -> Delays {
        let path = |text| Some(PropertyPath::read(text).unwrap());
        let message = MessageConfig {
            deliver_at_property: path("deliver_at"),
            deliver_after_property: path("meta.after"),
            ..Config::default().message
        };
        Delays::configured(&message).unwrap()
    }

    fn due(body: &str) -> Result<Option<u64>, String> {
        delays().due_ms(body, RECEIVED_MS).map_err(|refusal| {
            assert_eq!(refusal.reason, Reason::BadDelay);
            refusal.sentence
        })
    }

    #[test]
    fn without_a_property_nothing_is_looked_for() {
        assert!(Delays::configured(&Config::default().message).is_none());
    }

    #[test]
    fn a_time_is_a_text_or_a_number_of_ms() {
        for (body, due_ms) in [
            ("{}", None),
            (r#"{"deliver_at":null,"meta":{"after":null}}"#, None),
            (r#"{"deliver_at":1775410000123}"#, Some(1_775_410_000_123)),
            (r#"{"deliver_at":-1}"#, Some(0)),
            (r#"{"deliver_at":"2026-04-05T17:26:40Z"}"#, Some(1_775_410_000_000)),
            (r#"{"deliver_at":"2026-04-05t17:26:40.5z"}"#, Some(1_775_410_000_500)),
            (r#"{"deliver_at":"2026-04-05T19:26:40.25+02:00"}"#, Some(1_775_410_000_250)),
            (r#"{"deliver_at":"2026-04-05T11:56:40-05:30"}"#, Some(1_775_410_000_000)),
            (r#"{"meta":{"after":0}}"#, Some(RECEIVED_MS)),
            (r#"{"meta":{"after":1500}}"#, Some(RECEIVED_MS + 1_500)),
            (r#"{"meta":{"after":"1h 30m"}}"#, Some(RECEIVED_MS + 5_400_000)),
            (r#"{"meta":{"after":"30d"}}"#, Some(RECEIVED_MS + 30 * 86_400_000)),
        ] {
            assert_eq!(due(body), Ok(due_ms), "{body}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_and_named() {
        for (body, words) in [
            (r#"{"deliver_at":"tomorrow"}"#, r#"deliver_at is "tomorrow"; it must be a time such as"#),
            (r#"{"deliver_at":"1969-12-31T23:59:59Z"}"#, "it must be a time"),
            (r#"{"deliver_at":"2026-04-05"}"#, "it must be a time"),
            (r#"{"deliver_at":"2026-04-05T17:26:40"}"#, "it must be a time"),
            (r#"{"deliver_at":"2026-04-05T17:26:40+2:00"}"#, "it must be a time"),
            (r#"{"deliver_at":"2026-04-05T17:26:40é"}"#, "it must be a time"),
            (r#"{"deliver_at":1.5}"#, "deliver_at is 1.5;"),
            (r#"{"deliver_at":true}"#, "deliver_at is true;"),
            (r#"{"deliver_at":1,"deliver_at":1}"#, "deliver_at more than once"),
            (r#"{"meta":{"after":"10"}}"#, r#"meta.after is "10"; it must be a length of time such as "10m""#),
            (r#"{"meta":{"after":-1}}"#, "meta.after is -1;"),
            (r#"{"meta":{"after":"-5s"}}"#, "it must be a length of time"),
            (r#"{"meta":{"after":{}}}"#, "meta.after is {};"),
            (r#"{"meta":{"after":1},"deliver_at":1}"#, "both deliver_at and meta.after"),
            (r#"{"meta":{"after":"31d"}}"#, "meta.after is more than 30days ahead; --max-deliver-delay is the limit"),
            (r#"{"deliver_at":9999999999999}"#, "deliver_at is more than 30days ahead"),
            (r#"{"meta":{"after":18446744073709551615}}"#, "ahead"),
        ] {
            let refusal = due(body).expect_err(body);
            assert!(refusal.contains(words), "{body}: {refusal}");
        }
        let long = due(&format!(r#"{{"deliver_at":"{}"}}"#, "é".repeat(1_000))).expect_err("too long");
        assert!(long.len() < 250 && long.contains('…'), "{long}");
    }
}

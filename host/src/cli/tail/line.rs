//! One outcome as one line, for people or for programs.

use serde_json::{Map, Value, json};

use crate::cli::text::{Paint, age, cut, line};
use crate::observe::status::OutputName;
use crate::observe::tail::{Event, Outcome};
use crate::time::{rfc3339, unix_ms};

/// Characters of one value, and of all values together. JSON has everything.
const VALUE_CHARS_MAX: usize = 80;
const DETAIL_CHARS_MAX: usize = 240;

/// Form of a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Text { with_colours: bool },
    Json,
}

impl Form {
    /// Adds the line of an event.
    pub(super) fn write(self, event: &Event, lines: &mut Vec<u8>) {
        let text = match self {
            Form::Text { with_colours } => text(event, with_colours),
            Form::Json => json(event).to_string(),
        };
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'\n');
    }
}

fn text(event: &Event, with_colours: bool) -> String {
    let (word, paint) = match (event.outcome, &event.output) {
        (Outcome::Result, Some(OutputName::Named(name))) => (format!("result {name}"), Paint::Green),
        (Outcome::Result, _) => ("result".to_owned(), Paint::Green),
        (Outcome::DeadLetter, _) => ("dead letter".to_owned(), Paint::Red),
        (Outcome::Retry, _) => ("retry".to_owned(), Paint::Yellow),
    };
    let known = |text: &Option<String>| line(text.as_deref().unwrap_or("-").as_bytes());
    let time = Paint::Dim.on(&rfc3339(event.at), with_colours);
    let outcome = paint.on(&format!("{word:11}"), with_colours);
    let mut text = format!("{time}  {outcome}  {}", known(&event.message_id));
    if event.outcome != Outcome::Retry {
        text.push_str("  ");
        text.push_str(&Paint::Dim.on(&known(&event.consumer_id), with_colours));
    }
    let detail = detail(event);
    if !detail.is_empty() {
        text.push_str("  ");
        text.push_str(&cut(detail, DETAIL_CHARS_MAX));
    }
    text
}

fn detail(event: &Event) -> String {
    match event.outcome {
        Outcome::Retry => {
            let wait = event.due.map_or(0, |due| unix_ms(due).saturating_sub(unix_ms(event.at)));
            format!("attempt {} in {}", event.attempt.unwrap_or(0), age(wait))
        }
        Outcome::DeadLetter => {
            let field = |name| line(event.field(name).as_deref().unwrap_or("-").as_bytes());
            format!("{} after {} attempts: {}", field("reason"), field("attempts"), field("error"))
        }
        Outcome::Result => {
            let value = |(name, value): &(String, Vec<u8>)| {
                format!("{}={}", line(name.as_bytes()), cut(line(value), VALUE_CHARS_MAX))
            };
            event.fields.iter().map(value).collect::<Vec<_>>().join(" ")
        }
    }
}

fn json(event: &Event) -> Value {
    let mut object = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    add("outcome", Some(json!(event.outcome.as_str())));
    add("time", Some(json!(rfc3339(event.at))));
    add("key", Some(json!(event.key)));
    add("output", event.output.as_ref().map(|output| json!(output)));
    add("entry", event.entry.as_ref().map(|entry| json!(entry)));
    add("message_id", event.message_id.as_ref().map(|id| json!(id)));
    add("consumer_id", event.consumer_id.as_ref().map(|id| json!(id)));
    add("attempt", event.attempt.map(|attempt| json!(attempt)));
    add("due", event.due.map(|due| json!(rfc3339(due))));
    if event.outcome != Outcome::Retry {
        let text = |value: &[u8]| json!(String::from_utf8_lossy(value));
        let fields: Map<String, Value> = event.fields.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        add("fields", Some(Value::Object(fields)));
    }
    Value::Object(object)
}

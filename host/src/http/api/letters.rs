//! Dead letters: a page of them, and one of them.

#![expect(unused_qualifications, reason = "the macro of a path with parameters qualifies their type")]

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::{EntryId, Limit, Params, bad};
use crate::dead_letters::{Filter, Letter};
use crate::http::Service;
use crate::http::answer::Problem;
use crate::message::Reason;
use crate::time::{rfc3339, stamp};

/// Dead letters that one request looks at. A filter may match none of millions.
const SCAN_MAX: usize = 10_000;

/// Bytes of a payload and of an error in a list; one letter alone is shown whole.
const LISTED_BYTES_MAX: usize = 2_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersParams {
    /// How many at most.
    #[serde(default)]
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 100)]
    limit: Limit,
    /// Only letters that are older than this entry: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<EntryId>,
    /// Only letters with this reason.
    #[serde(default, deserialize_with = "reason")]
    #[param(value_type = Option<String>)]
    reason: Option<Reason>,
    /// Only letters with this message id or entry id.
    id: Option<String>,
    /// Only letters with this text in any field, the payload included.
    text: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LettersAnswer {
    /// Newest first. A long payload or error is cut.
    dead_letters: Vec<DeadLetter>,
    /// What to give as `after` for older letters; null at the end. A page with `next` may be empty: then none of the letters
    /// that were looked at matches.
    next: Option<String>,
}

/// A message that was given up. A field that the letter lacks is null.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetter {
    entry_id: String,
    message_id: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    /// When it was written, by the server's clock, RFC 3339.
    at: Option<String>,
    attempts: Option<u64>,
    /// The published payload, in the encoding that `payload_encoding` names.
    payload: Option<String>,
    /// `text` for UTF-8, `base64` for any other bytes.
    payload_encoding: Encoding,
    /// Length of the published payload. Of one that was too big, less is kept.
    payload_bytes: Option<u64>,
    /// Whether the payload or the error is shortened here; the letter alone has all that is kept.
    cut: bool,
    host_id: Option<String>,
    consumer_id: Option<String>,
    plugin_digest: Option<String>,
    plugin_generation: Option<u64>,
    /// When the message was appended first, RFC 3339.
    first_seen: Option<String>,
}

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Text,
    Base64,
}

/// A page of dead letters, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "reads", params(LettersParams), responses((status = 200, description = "a page", body = LettersAnswer)))]
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    Params(params): Params<LettersParams>,
) -> Result<Json<LettersAnswer>, Problem> {
    let filter = Filter {
        ids: params.id.into_iter().collect(),
        reasons: params.reason.into_iter().collect(),
        since: None,
        text: params.text,
    };
    let (filter, limit, after) = (&filter, params.limit.get(), params.after.as_ref().map(EntryId::as_str));
    let page = |mut letters: crate::dead_letters::DeadLetters| async move {
        letters.page(filter, after, limit, SCAN_MAX).await
    };
    let page = service.api.redis.letters(page).await?;
    let dead_letters = page.letters.iter().map(|letter| DeadLetter::of(letter, LISTED_BYTES_MAX)).collect();
    Ok(Json(LettersAnswer { dead_letters, next: page.next }))
}

/// One dead letter, whole.
#[utoipa::path(get, path = "/api/v1/dead-letters/{entry_id}", tag = "reads", params(("entry_id" = String, Path, description = "Id of the entry")), responses((status = 200, description = "the letter", body = DeadLetter), (status = 404, description = "there is none", body = Problem)))]
pub(super) async fn one(
    State(service): State<Arc<Service>>,
    Path(entry_id): Path<String>,
) -> Result<Json<DeadLetter>, Problem> {
    let entry_id = EntryId::read(&entry_id).map_err(bad)?;
    let id = entry_id.as_str();
    let get = |mut letters: crate::dead_letters::DeadLetters| async move { letters.get(id).await };
    let letter = service.api.redis.letters(get).await?;
    let letter = letter.ok_or_else(|| {
        let text = format!("there is no dead letter {id}; it may have been replayed or purged");
        Problem::new(StatusCode::NOT_FOUND, text)
    })?;
    Ok(Json(DeadLetter::of(&letter, usize::MAX)))
}

/// A reason by its name. The error lists the names.
pub(super) fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    Reason::named(&name).map(Some).ok_or_else(|| serde::de::Error::custom(no_reason(&name)))
}

pub(super) fn no_reason(name: &str) -> String {
    format!("there is no reason {name:?}; it is one of {}", Reason::ALL.map(Reason::as_str).join(", "))
}

impl DeadLetter {
    /// A letter whose payload and error have at most so many bytes.
    fn of(letter: &Letter, bytes_max: usize) -> DeadLetter {
        let text = |name: &str| letter.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let whole = letter.get("payload");
        let cut = |text: &str| text[..text.floor_char_boundary(bytes_max)].to_owned();
        let (payload, payload_encoding) = match whole.map(str::from_utf8) {
            Some(Ok(payload)) => (Some(cut(payload)), Encoding::Text),
            // A multiple of three bytes has no padding.
            Some(Err(_)) => {
                let bytes = whole.unwrap_or_default();
                (Some(base64(&bytes[..bytes.len().min(bytes_max - bytes_max % 3)])), Encoding::Base64)
            }
            None => (None, Encoding::Text),
        };
        let error = text("error");
        let is_long = |length: Option<usize>| length.is_some_and(|length| length > bytes_max);
        DeadLetter {
            entry_id: letter.entry_id.clone(),
            message_id: text("message_id"),
            reason: text("reason"),
            at: stamp(&letter.entry_id).filter(is_printable).map(rfc3339),
            attempts: number("attempts"),
            payload,
            payload_encoding,
            payload_bytes: number("payload_bytes"),
            cut: is_long(whole.map(<[u8]>::len)) || is_long(error.as_ref().map(String::len)),
            error: error.as_deref().map(cut),
            host_id: text("host_id"),
            consumer_id: text("consumer_id"),
            plugin_digest: text("plugin_digest"),
            plugin_generation: number("plugin_generation"),
            first_seen: text("first_seen"),
        }
    }
}

/// Whether a time has four digits for its year. Somebody may have written an entry with any id.
fn is_printable(time: &SystemTime) -> bool {
    time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.as_secs() < 253_402_300_800)
}

/// Base64 as in RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // The test vectors of RFC 4648.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_long_payload_is_cut_in_a_list_and_bytes_stay_bytes() {
        let letter = |payload: &[u8]| Letter {
            entry_id: "5-0".into(),
            fields: vec![("payload".into(), payload.to_vec()), ("error".into(), b"why".to_vec())],
        };
        let shown = |payload: &[u8], bytes_max| {
            let shown = DeadLetter::of(&letter(payload), bytes_max);
            (shown.payload.unwrap_or_default(), shown.cut)
        };
        assert_eq!(shown("aäö".as_bytes(), 4), ("aä".to_owned(), true));
        assert_eq!(shown("aäö".as_bytes(), 5), ("aäö".to_owned(), false));
        assert_eq!(shown(&[0xff; 8], 7), ("////////".to_owned(), true));
        assert_eq!(shown(&[0xff; 3], usize::MAX), ("////".to_owned(), false));
    }
}

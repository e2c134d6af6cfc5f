//! What clients send: parameters, read strictly. An error names the field.

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::http::answer::Problem;

/// Largest number of things in one answer.
pub(super) const LIMIT_MAX: u64 = 1_000;

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => Err(bad(format!("the parameters are wrong: {}", reason(&rejection.body_text())))),
        }
    }
}

/// What is wrong, without the library's introduction.
pub(super) fn reason(text: &str) -> &str {
    let beginnings = [
        "Failed to deserialize query string: ",
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to parse the request body as JSON: ",
    ];
    beginnings.into_iter().find_map(|beginning| text.strip_prefix(beginning)).unwrap_or(text)
}

pub(super) fn bad(error: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error)
}

/// How many things are wanted: 1 to [`LIMIT_MAX`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "u64")]
pub(super) struct Limit(usize);

impl Limit {
    pub(super) fn get(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(100)
    }
}

impl TryFrom<u64> for Limit {
    type Error = String;

    fn try_from(number: u64) -> Result<Limit, String> {
        let limit = usize::try_from(number).ok().filter(|_| (1..=LIMIT_MAX).contains(&number));
        limit.map(Limit).ok_or_else(|| format!("it must be a number from 1 to {LIMIT_MAX}"))
    }
}

/// The id of an entry of a stream: two numbers with a dash between.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, pattern = r"^\d+-\d+$", example = "1700000000000-0")]
pub(super) struct EntryId(String);

impl EntryId {
    pub(super) fn read(text: &str) -> Result<EntryId, String> {
        let is_number = |part: &str| !part.starts_with('+') && part.parse::<u64>().is_ok();
        let parts = text.split_once('-').filter(|(ms, number)| is_number(ms) && is_number(number));
        let id = parts.map(|_| EntryId(text.to_owned()));
        id.ok_or_else(|| format!("{text:?} is no entry id, which looks like 1700000000000-0"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for EntryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EntryId, D::Error> {
        EntryId::read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_id_is_two_numbers() {
        assert_eq!(EntryId::read("1700000000000-0").map(|id| id.0), Ok("1700000000000-0".to_owned()));
        for wrong in ["", "-", "1", "1-", "-1", "+1-1", "1-1-1", "a-b", "1-18446744073709551616", "(1-1"] {
            assert!(EntryId::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        assert_eq!(Limit::try_from(1_000).map(Limit::get), Ok(1_000));
        assert!(Limit::try_from(0).is_err() && Limit::try_from(1_001).is_err());
    }
}

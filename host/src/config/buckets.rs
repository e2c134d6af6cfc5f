//! The buckets of state that a plugin may use. This file knows no key and no value.

use std::time::Duration;

use super::value::{Kind, Value};

/// Maximum number of buckets.
const BUCKETS_MAX: usize = 64;
/// Maximum length of a bucket's name.
const NAME_BYTES_MAX: usize = 64;
/// Shortest time to live.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time to live.
const TTL_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// A bucket that a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct Bucket {
    /// The name by which a plugin opens the bucket.
    pub name: String,
    /// How long a key lives after the last change of its value; `None` keeps it.
    pub ttl: Option<Duration>,
}

/// The granted buckets; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd)]
pub struct Buckets(Vec<Bucket>);

impl Buckets {
    /// The bucket with this name, if it is granted.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bucket> {
        self.0.iter().find(|bucket| bucket.name == name)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, with a comma between them.
    #[must_use]
    pub fn names(&self) -> String {
        self.0.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Whether this is the name of a bucket: no colon, so that bucket and key stay apart in the name of a Redis key.
#[must_use]
pub fn is_bucket_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_valid)
}

impl Value for Buckets {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Result<Buckets, String> {
        let mut buckets: Vec<Bucket> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, ttl) = match item.split_once('=') {
                Some((name, ttl)) => (name.trim(), Some(time_to_live(ttl.trim())?)),
                None => (item, None),
            };
            if !is_bucket_name(name) {
                return Err(format!(
                    "the name of a bucket has 1 to {NAME_BYTES_MAX} lower-case letters, digits, hyphens and underscores, such as \
                     carts, with or without a time to live behind it, such as carts=7d"
                ));
            }
            if buckets.iter().any(|bucket| bucket.name == name) {
                return Err(format!("the bucket {name} is named twice"));
            }
            buckets.push(Bucket { name: name.to_owned(), ttl });
        }
        if buckets.len() > BUCKETS_MAX {
            return Err(format!("there may be {BUCKETS_MAX} buckets"));
        }
        Ok(Buckets(buckets))
    }

    fn text(&self) -> Option<String> {
        let item = |Bucket { name, ttl }: &Bucket| match ttl {
            // Without spaces, which a shell would take for the end of the argument.
            Some(ttl) => format!("{name}={}", humantime::format_duration(*ttl).to_string().replace(' ', "")),
            None => name.clone(),
        };
        let items: Vec<String> = self.0.iter().map(item).collect();
        (!items.is_empty()).then(|| items.join(","))
    }
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let ttl = Duration::parse(text).map_err(|_| "a time to live is written as 30m, 12h or 7d".to_owned())?;
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Err("a time to live must be from 1s to 3650d".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_named_with_or_without_a_time_to_live() {
        let buckets = Buckets::parse("carts, seen=1h 30m,").unwrap();
        assert_eq!(buckets.get("carts").unwrap().ttl, None);
        assert_eq!(buckets.get("seen").unwrap().ttl, Some(Duration::from_secs(5_400)));
        assert_eq!(buckets.get("other"), None);
        assert_eq!(buckets.text().unwrap(), "carts,seen=1h30m");
        assert_eq!(Buckets::parse(&buckets.text().unwrap()).unwrap(), buckets);
        assert_eq!(Buckets::default().text(), None);
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for text in ["Carts", "a:b", "a/b", "=1h", "a,a", "a=soon", "a=0s", "a=4000d", "a b", &"x".repeat(65)] {
            assert!(Buckets::parse(text).is_err(), "{text}");
        }
    }
}

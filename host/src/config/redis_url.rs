//! What a Redis URL may be, and how it is shown without its password. It opens no connection.

use redis::IntoConnectionInfo;

/// What stands where a password was.
const MASK: &str = "***";

/// The word that asks for a private Redis.
const EMBEDDED: &str = "embedded";

/// Says what is wrong with a URL, in a sentence that begins with "it".
pub(super) fn check(url: &str) -> Result<(), String> {
    const VALID: &str = "redis://[user:password@]host[:port][/db], rediss://… (TLS), \
                         unix:///path[?db=0&user=…&pass=…] or the word embedded";
    if url == EMBEDDED {
        return Ok(());
    }
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("redis" | "rediss" | "unix")) {
        return Err(format!("it must be {VALID}"));
    }
    url.into_connection_info().map(drop).map_err(|error| {
        let cause = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        format!("it is no Redis URL ({cause}); it must be {VALID}; percent-encode /, ?, #, @ and : in a password")
    })
}

/// Whether the URL is one that was masked, and so lacks its password.
pub(super) fn is_masked(url: &str) -> bool {
    url.contains(&format!(":{MASK}@")) || url.contains(&format!("pass={MASK}"))
}

/// Whether the connection is encrypted.
pub(super) fn is_tls(url: &str) -> bool {
    url.starts_with("rediss://")
}

/// The value of the setting, without its password even if it is no URL at all.
pub(super) fn shown(url: &str) -> String {
    if url.contains('@') && !url.contains("://") { MASK.to_owned() } else { masked(url) }
}

/// `text` with `***` for the password of every URL in it. Errors and logs that may name a URL pass through it.
pub fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        let end = after.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(after.len());
        shown.push_str(before);
        shown.push_str(&masked_authority_and_path(&after[..end]));
        rest = &after[end..];
    }
    shown + rest
}

/// Masks what stands behind `://`. A password with an unencoded `@` or `/` is no valid URL, but must not show either.
fn masked_authority_and_path(text: &str) -> String {
    let mut shown = text.to_owned();
    if let Some(at) = text.rfind('@')
        && let Some(colon) = text[..at].find(':')
    {
        shown.replace_range(colon + 1..at, MASK);
    }
    for name in ["?pass=", "&pass="] {
        if let Some(start) = shown.find(name) {
            let value = start + name.len();
            let end = shown[value..].find(['&', '#']).map_or(shown.len(), |length| value + length);
            shown.replace_range(value..end, MASK);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_masked_wherever_it_stands() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://u:secret@h:1/2", "redis://u:***@h:1/2"),
            ("rediss://:secret@h", "rediss://:***@h"),
            ("redis://:se/cr@et@h", "redis://:***@h"),
            ("redis://u@h", "redis://u@h"),
            ("unix:///r.sock?db=1&user=u&pass=secret", "unix:///r.sock?db=1&user=u&pass=***"),
            ("unix:///r.sock?pass=se@cret&db=1", "unix:///r.sock?pass=***&db=1"),
            ("to `redis://:secret@h` and redis://:secret@i: no", "to `redis://:***@h` and redis://:***@i: no"),
        ] {
            assert_eq!(masked(url), shown);
            assert_eq!(is_masked(&masked(url)), shown.contains(MASK));
        }
        assert_eq!(shown("redis//:secret@h"), MASK);
    }

    #[test]
    fn urls_that_redis_would_not_take_are_refused() {
        for url in ["embedded", "redis://h", "rediss://u:p@h:1/2", "unix:///r.sock?db=1&pass=p", "redis://[::1]:6379"] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in ["127.0.0.1:6379", "http://h", "redis://", "redis://h:port", "redis://h/db", "unix://", "Embedded", "redis:h"] {
            assert!(check(url).is_err(), "{url}");
        }
    }
}

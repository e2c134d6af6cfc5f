//! Validates a Redis URL, and masks its password. This file opens no connection.

use super::redis_servers::{self, SENTINEL_FORM, sentinel_scheme};

/// Replacement for a secret.
pub(super) const MASK: &str = "***";

/// The word that asks for a private Redis.
const EMBEDDED: &str = "embedded";

/// Names of a password in the query of a URL. The client library knows the first one, in a `unix://` URL; users write the others,
/// which do not work, but must not be shown either.
const PASSWORD_NAMES: [&str; 4] = ["pass", "password", "passwd", "auth"];

/// Checks a URL. The error is a sentence that begins with "it".
pub(super) fn check(url: &str) -> Result<(), String> {
    let valid = format!(
        "redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS), unix:///PATH, {SENTINEL_FORM} or the word embedded; a login goes before HOST \
         as user, colon, password, @"
    );
    if url == EMBEDDED {
        return Ok(());
    }
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("redis" | "rediss" | "unix")) && sentinel_scheme(url).is_none() {
        return Err(format!("it must be {valid}"));
    }
    if url.ends_with("#insecure") {
        return Err("it asks with #insecure for a connection that does not check the server's certificate, which is not \
                    supported; leave #insecure out and name the authority that signed the certificate with --redis-ca-file"
            .to_owned());
    }
    redis_servers::read(url).map(drop).map_err(|problem| match sentinel_scheme(url) {
        Some(_) => problem,
        None => format!("{problem}; it must be {valid}, with /, ?, #, @ and : percent-encoded"),
    })
}

/// Whether the URL was masked, and so lacks its password.
pub(super) fn is_masked(url: &str) -> bool {
    url.contains(&format!(":{MASK}@")) || PASSWORD_NAMES.iter().any(|name| url.contains(&format!("{name}={MASK}")))
}

/// Whether the connection is encrypted.
pub(super) fn is_tls(url: &str) -> bool {
    url.starts_with("rediss://") || url.starts_with("rediss+sentinel://")
}

/// The value of the setting, without its password even if it is no URL at all.
pub(super) fn shown(url: &str) -> String {
    mask_login(url)
}

/// `text` with `***` in place of the password of everything that looks like a URL. Every error and log line that may
/// contain a URL passes through this function.
pub fn masked(text: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
    let mask = |part: &str| {
        let word = part.trim_end_matches(ends_word);
        let end = &part[word.len()..];
        if is_interface(word) { part.to_owned() } else { mask_login(word) + end }
    };
    text.split_inclusive(ends_word).map(mask).collect()
}

/// Whether the word is the name of a WebAssembly interface, such as `host:plugin/processor@0.1.0`. Such a name has the
/// form of a login, but a version of exactly three numbers stands in the place of the address. No address has that
/// form.
fn is_interface(word: &str) -> bool {
    let Some((name, version)) = word.rsplit_once('@') else { return false };
    let version = version.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    // Behind `#` there is the name of a function.
    let release = version.split_once(['-', '+', '#']).map_or(version, |(release, _)| release);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    !name.contains("//") && release.split('.').count() == 3 && release.split('.').all(is_number)
}

/// Masks one word. A misspelt URL, or a password with an unencoded `@` or `/`, does not work, but its password must not
/// be shown either.
fn mask_login(word: &str) -> String {
    let mut shown = word.to_owned();
    let login = word.find("://").map_or(0, |scheme| scheme + 3);
    if let Some(at) = word.rfind('@')
        && let Some(colon) = word.get(login..at).and_then(|login| login.find(':'))
    {
        shown.replace_range(login + colon + 1..at, MASK);
    }
    // The client library uses the last value of a repeated name, so every value is masked.
    for (before, name) in ['?', '&'].into_iter().flat_map(|before| PASSWORD_NAMES.map(|name| (before, name))) {
        let (mut from, assignment) = (0, format!("{before}{name}="));
        while let Some(start) = shown[from..].find(&assignment) {
            from += start + assignment.len();
            let end = shown[from..].find(['&', '#']).map_or(shown.len(), |length| from + length);
            shown.replace_range(from..end, MASK);
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
            ("redis://h:1/0?password=secret&protocol=resp3", "redis://h:1/0?password=***&protocol=resp3"),
            ("redis://h?db=1&auth=secret#x", "redis://h?db=1&auth=***#x"),
            ("'unix:///r.sock?user=u&pass=old&pass=secret'", "'unix:///r.sock?user=u&pass=***&pass=***'"),
            ("to `redis://:secret@h` and redis://:secret@i: no", "to `redis://:***@h` and redis://:***@i: no"),
            ("redis://:secret@1.2.3", "redis://:***@1.2.3"),
            ("u:secret@127.0.0.1:6379", "u:***@127.0.0.1:6379"),
            ("redis+sentinel://u:secret@s1:1,s2:2/m/0", "redis+sentinel://u:***@s1:1,s2:2/m/0"),
            ("rediss+sentinel://u:secret@s1:1,u:secret@s2:2/m", "rediss+sentinel://u:***@s2:2/m"),
            (
                "no host:plugin/processor@0.1.0, but a:b/c@1.0.0-draft; no `a:b/c@1.0.0#d`",
                "no host:plugin/processor@0.1.0, but a:b/c@1.0.0-draft; no `a:b/c@1.0.0#d`",
            ),
        ] {
            assert_eq!(masked(url), shown);
            assert_eq!(is_masked(&masked(url)), shown.contains(MASK));
        }
        assert_eq!(masked("redis//:secret@h"), "redis//:***@h");
        assert_eq!(shown("redis://:sec 'ret@h"), "redis://:***@h");
        assert_eq!(shown("unix:///r.sock?pass=sec 'ret&db=1"), "unix:///r.sock?pass=***&db=1");
    }

    #[test]
    fn urls_that_redis_would_not_take_are_refused() {
        for url in [
            "embedded",
            "redis://h",
            "rediss://u:p@h:1/2",
            "unix:///r.sock?db=1&pass=p",
            "redis://[::1]:6379",
            "redis+sentinel://s/m",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in [
            "127.0.0.1:6379",
            "http://h",
            "redis://",
            "redis://h:port",
            "redis://h/db",
            "unix://",
            "Embedded",
            "redis:h",
        ] {
            assert!(check(url).is_err(), "{url}");
        }
    }
}

//! What a Redis URL names: one server, or Sentinels that know the primary. This file opens no connection.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// Port of a Sentinel without one in the URL.
const SENTINEL_PORT: u16 = 26379;

/// Maximum number of Sentinels in a URL.
const SENTINELS_MAX: usize = 16;

/// Form of a URL that names Sentinels.
pub(super) const SENTINEL_FORM: &str = "redis+sentinel://SENTINEL:PORT,SENTINEL:PORT/NAME/DB";

/// The servers that a URL names.
#[derive(Clone, Debug)]
pub enum Servers {
    /// One server.
    One(ConnectionAddr),
    /// Sentinels, and the name under which they know the primary.
    Sentinels {
        /// Addresses of the Sentinels, in the order of the URL.
        addresses: Vec<ConnectionAddr>,
        /// Name of the primary.
        name: String,
    },
}

/// Reads a URL: the servers, and user, password and database there.
///
/// # Errors
/// A sentence that begins with "it" and does not contain the password.
pub fn read(url: &str) -> Result<(Servers, RedisConnectionInfo), String> {
    match sentinel_scheme(url) {
        Some((scheme, rest)) => read_sentinels(scheme, rest),
        None => {
            let info = read_one(url)?;
            Ok((Servers::One(info.addr().clone()), info.redis_settings().clone()))
        }
    }
}

/// Whether the connections to the servers are encrypted.
#[must_use]
pub fn is_tls(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { .. })
}

/// The scheme of a single server in place of that of a Sentinel, and what follows the scheme; `None` for any other URL.
pub(super) fn sentinel_scheme(url: &str) -> Option<(&'static str, &str)> {
    let rest = |scheme| url.strip_prefix(scheme);
    let plain = rest("redis+sentinel://").map(|rest| ("redis", rest));
    plain.or_else(|| rest("rediss+sentinel://").map(|rest| ("rediss", rest)))
}

fn read_one(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|error| {
        let cause = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        format!("it is no Redis URL ({cause})")
    })
}

/// Everything but the list of addresses is read by the client library, so that a login means the same in every URL.
fn read_sentinels(scheme: &str, rest: &str) -> Result<(Servers, RedisConnectionInfo), String> {
    if rest.contains(['?', '#']) {
        return Err(format!(
            "it has parameters behind ? or #, which a URL of Sentinels cannot have; its form is {SENTINEL_FORM}"
        ));
    }
    let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    if login.contains(['@', '/']) {
        return Err("it must have @ and / in user and password percent-encoded, as %40 and %2F, and one login for all servers, \
                    in front of the first Sentinel"
            .to_owned());
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    // The characters that a Sentinel takes for a name.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(format!(
            "it must name the primary behind the Sentinels, with the name in `sentinel monitor NAME …` of their configuration; \
             its form is {SENTINEL_FORM}"
        ));
    }
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > SENTINELS_MAX {
        return Err(format!("it names more than {SENTINELS_MAX} Sentinels; three or five are enough"));
    }
    let mut addresses = Vec::new();
    for host in hosts {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let host = if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") };
        let info = read_one(&format!("{scheme}://{host}"));
        addresses.push(
            info.map_err(|_| format!("`{host}` is no address of a Sentinel; its form is {SENTINEL_FORM}"))?
                .addr()
                .clone(),
        );
    }
    let at = if login.is_empty() { "" } else { "@" };
    let info = read_one(&format!("{scheme}://{login}{at}primary/{database}"))?;
    Ok((Servers::Sentinels { addresses, name: name.to_owned() }, info.redis_settings().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinels(url: &str) -> (Vec<String>, String, RedisConnectionInfo) {
        match read(url) {
            Ok((Servers::Sentinels { addresses, name }, login)) => {
                (addresses.iter().map(ToString::to_string).collect(), name, login)
            }
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_url_of_sentinels_has_addresses_a_name_a_login_and_a_database() {
        let (addresses, name, login) = sentinels("redis+sentinel://us%3Aer:p%40ss@s1,[::1]:5,s3:26380/my-master.1/3");
        assert_eq!(addresses, ["s1:26379", "::1:5", "s3:26380"]);
        assert_eq!((name.as_str(), login.db()), ("my-master.1", 3));
        assert_eq!((login.username(), login.password()), (Some("us:er"), Some("p@ss")));
        let (addresses, name, login) = sentinels("rediss+sentinel://[::1]/m");
        assert_eq!((addresses, name.as_str(), login.db()), (vec!["::1:26379".to_owned()], "m", 0));
        assert_eq!((login.username(), login.password()), (None, None));
    }

    #[test]
    fn a_url_of_sentinels_that_lacks_something_says_what() {
        for (url, part) in [
            ("redis+sentinel://s1:1,s2:2", "name the primary"),
            ("redis+sentinel://s1:1/", "name the primary"),
            ("redis+sentinel://s1:1/my%20master", "name the primary"),
            ("redis+sentinel://s1:1,,s2:2/m", "no address of a Sentinel"),
            ("redis+sentinel:///m", "no address of a Sentinel"),
            ("redis+sentinel://s1:port/m", "no address of a Sentinel"),
            ("redis+sentinel://s1:1/m/db", "no Redis URL"),
            ("redis+sentinel://s1:1/m?db=1", "parameters"),
            ("redis+sentinel://u:p@s1:1,u:p@s2:2/m", "one login for all servers"),
        ] {
            let problem = read(url).expect_err(url);
            assert!(problem.contains(part) && !problem.contains(":p@"), "{url}: {problem}");
        }
    }
}

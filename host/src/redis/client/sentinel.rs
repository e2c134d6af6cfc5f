//! The primary, as Sentinels know it: found at every connection, and followed while a process runs. This file knows no commands
//! but those of the discovery.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{ConnectionAddr, ErrorKind, RedisConnectionInfo, RedisError};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::connection::{Connection, timed_out};
use super::connector::CONNECT_TIMEOUT;
use super::part::Part;
use super::resp::{Commands, Cursor, Head, malformed};
use super::tie::Tie;
use crate::config::Password;
use crate::config::redis_servers::is_tls;

/// Maximum time for one question to one Sentinel, with connection and login. Sentinels are near and small.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time for a connection to the named server. A server that does not accept one for so long is often the primary that has
/// just died, and the Sentinels soon name another one.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two questions whether the primary is still the same.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The Sentinels of one primary.
#[derive(Debug)]
pub(super) struct Sentinels {
    addresses: Vec<ConnectionAddr>,
    name: String,
    user: String,
    password: Secret,
    /// For the primary.
    login: RedisConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    /// The primary that was found last.
    found: watch::Sender<Option<Primary>>,
}

/// A primary that a Sentinel names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    /// Its address.
    pub(super) address: ConnectionAddr,
    /// Number of the configuration, one higher after every failover. For some seconds Sentinels name different servers, which may all
    /// be primaries: the highest number is right. 0 if the Sentinel does not tell.
    epoch: u64,
}

/// Where the password for the Sentinels comes from.
#[derive(Debug)]
pub(super) enum Secret {
    /// The Sentinels have no password.
    None,
    /// The password.
    Given(Password),
    /// The first line of this file, which is read for every login.
    File(PathBuf),
}

/// Why there is no connection.
enum Failure {
    /// Asking again helps as soon as a failover is over.
    Passing(String),
    /// A person has to act.
    Lasting(RedisError),
}

/// What the Sentinels have said that leads to no connection.
#[derive(Default)]
struct Heard {
    /// Sentinels that have answered.
    answers: usize,
    /// Those of them that do not know the name of the primary.
    unknown: usize,
    /// A clause for each Sentinel that has not answered, and for each server that is no working primary.
    problems: Vec<String>,
    /// Servers that were tried.
    tried: Vec<ConnectionAddr>,
    /// A server that was named by a Sentinel that has not heard of the newest failover.
    outdated: Option<Primary>,
}

impl Sentinels {
    /// The Sentinels at these addresses, for the primary of this name. `login` is for the primary, and `user` and `password` are for
    /// the Sentinels.
    pub(super) fn new(
        (addresses, name): (Vec<ConnectionAddr>, String),
        (user, password): (String, Secret),
        login: RedisConnectionInfo,
        tls: Option<Arc<ClientConfig>>,
    ) -> Sentinels {
        Sentinels { addresses, name, user, password, login, tls, found: watch::Sender::new(None) }
    }

    /// Connects to the primary. A server that the Sentinels name and that is no primary, or is away, may be replaced at any moment:
    /// then the Sentinels are asked again, with waits in between, until a connection has taken too long.
    ///
    /// # Errors
    /// What the Sentinels have said, when none led to a primary; or why the primary refused the login.
    pub(super) async fn connect(&self) -> Result<(Connection, Tie), RedisError> {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        loop {
            match self.attempt().await {
                Ok((connection, address)) => return Ok((connection, Tie::new(self.found.subscribe(), address))),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(problem)) => {
                    let wait = backoff.next_wait();
                    if start.elapsed() + wait > CONNECT_TIMEOUT {
                        return Err(io::Error::new(io::ErrorKind::NotConnected, problem).into());
                    }
                    debug!("asking the Sentinels again: {problem}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Asks whether the primary is still the same, for ever. Connections that are tied to another one end.
    pub(super) async fn follow(&self) {
        let mut turns = interval(FOLLOW_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let found = self.found.borrow().clone();
            let Some(newest) = self.newest().await else { continue };
            let is_another = found.is_none_or(|found| newest.epoch >= found.epoch && newest.address != found.address);
            // Until the new one takes connections, the old one is not given up.
            if is_another && self.connect_to(&newest.address).await.is_ok() {
                self.learn(newest);
            }
        }
    }

    /// What most of those Sentinels say that know the newest configuration.
    async fn newest(&self) -> Option<Primary> {
        let mut asked: FuturesUnordered<_> = self.addresses.iter().map(|sentinel| self.ask(sentinel)).collect();
        let mut named = Vec::new();
        while let Some(answer) = asked.next().await {
            named.extend(answer.ok().flatten());
        }
        let votes = |primary: &Primary| named.iter().filter(|named| *named == primary).count();
        named.iter().max_by_key(|primary| (primary.epoch, votes(primary))).cloned()
    }

    /// Asks all Sentinels at once, and tries what they name in the order of their answers.
    async fn attempt(&self) -> Result<(Connection, ConnectionAddr), Failure> {
        let known = self.found.borrow().as_ref().map_or(0, |found| found.epoch);
        let mut heard = Heard::default();
        let ask = async |sentinel| (sentinel, self.ask(sentinel).await);
        let mut asked: FuturesUnordered<_> = self.addresses.iter().map(ask).collect();
        while let Some((sentinel, answer)) = asked.next().await {
            heard.answers += usize::from(answer.is_ok());
            match answer {
                Ok(Some(primary)) if primary.epoch < known => heard.outdated = Some(primary),
                Ok(Some(primary)) => {
                    if let Some(connected) = self.try_one(primary, &mut heard).await? {
                        return Ok(connected);
                    }
                }
                Ok(None) => heard.unknown += 1,
                Err(error) => heard.problems.push(format!("{sentinel}: {error}")),
            }
        }
        // The Sentinels may have been set up anew, with lower numbers.
        if let Some(primary) = heard.outdated.take()
            && let Some(connected) = self.try_one(primary, &mut heard).await?
        {
            return Ok(connected);
        }
        Err(self.problem(&heard))
    }

    /// A connection, if this server is the primary.
    async fn try_one(
        &self,
        primary: Primary,
        heard: &mut Heard,
    ) -> Result<Option<(Connection, ConnectionAddr)>, Failure> {
        let address = primary.address.clone();
        if heard.tried.contains(&address) {
            return Ok(None);
        }
        match self.connect_to(&address).await {
            Ok(connection) => {
                self.learn(primary);
                return Ok(Some((connection, address)));
            }
            Err(Failure::Passing(problem)) => heard.problems.push(format!("{address}, which they name: {problem}")),
            Err(lasting) => return Err(lasting),
        }
        heard.tried.push(address);
        Ok(None)
    }

    /// Why no Sentinel has led to a primary.
    fn problem(&self, heard: &Heard) -> Failure {
        let (name, problems) = (&self.name, heard.problems.join("; "));
        let lasting = |kind, text: String| Failure::Lasting(io::Error::new(kind, text).into());
        if heard.answers == 0 {
            return lasting(io::ErrorKind::NotConnected, format!("no Sentinel has named the primary ({problems})"));
        }
        if heard.unknown == heard.answers {
            let text = format!(
                "the Sentinels know no primary `{name}`; `redis-cli -p 26379 SENTINEL MASTERS` lists the names that they know"
            );
            let rest = if problems.is_empty() { String::new() } else { format!(" ({problems})") };
            return lasting(io::ErrorKind::NotFound, text + &rest);
        }
        Failure::Passing(format!("the Sentinels have no working primary `{name}` now ({problems})"))
    }

    /// The primary, as one Sentinel knows it; `None` when it does not know the name.
    async fn ask(&self, sentinel: &ConnectionAddr) -> Result<Option<Primary>, RedisError> {
        let asked = async {
            let mut connection = Connection::at(sentinel, self.tls.as_ref(), &self.own_login()?).await?;
            let mut commands = Commands::default();
            commands.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.name.as_bytes()]);
            commands.command(&[b"SENTINEL", b"MASTER", self.name.as_bytes()]);
            let replies = connection.ask(&commands, Duration::ZERO).await?;
            let mut replies = Cursor::new(&replies, 0);
            let Some((host, port)) = address(&mut replies)? else { return Ok(None) };
            let address = match is_tls(sentinel) {
                true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
                false => ConnectionAddr::Tcp(host, port),
            };
            Ok(Some(Primary { address, epoch: epoch(&mut replies)? }))
        };
        let answer = timeout(SENTINEL_TIMEOUT, asked).await;
        answer.unwrap_or_else(|_| Err(timed_out("no answer", SENTINEL_TIMEOUT))).map_err(explained)
    }

    /// For the Sentinels.
    fn own_login(&self) -> Result<RedisConnectionInfo, RedisError> {
        let password = match &self.password {
            Secret::None => return Ok(RedisConnectionInfo::default()),
            Secret::Given(password) => password.clone(),
            Secret::File(path) => Password::from_file(path).map_err(|problem| {
                let path = path.display();
                io::Error::other(format!("cannot read the password for the Sentinels from {path}: {problem}"))
            })?,
        };
        Ok(RedisConnectionInfo::default().set_username(&self.user).set_password(password.secret()))
    }

    /// Connects to the named server, and requires that it is a primary.
    async fn connect_to(&self, address: &ConnectionAddr) -> Result<Connection, Failure> {
        let opened = async {
            let mut connection = Connection::at(address, self.tls.as_ref(), &self.login).await?;
            let part = connection.part().await?;
            Ok((connection, part))
        };
        match timeout(PRIMARY_TIMEOUT, opened).await {
            Ok(Ok((connection, Part::Primary))) => Ok(connection),
            Ok(Ok((_, Part::Replica { primary }))) => Err(Failure::Passing(format!("it is a replica of {primary}"))),
            Ok(Err(error)) if is_refused_login(&error) => Err(Failure::Lasting(error)),
            Ok(Err(error)) => Err(Failure::Passing(error.to_string())),
            Err(_) => Err(Failure::Passing(timed_out("no connection", PRIMARY_TIMEOUT).to_string())),
        }
    }

    /// Takes a server for the primary, and says in the log when it is another one than before.
    fn learn(&self, primary: Primary) {
        self.found.send_if_modified(|found| {
            if found.as_ref() == Some(&primary) {
                return false;
            }
            let (name, address) = (&self.name, &primary.address);
            match found {
                Some(before) if before.address == *address => {}
                Some(Primary { address: before, .. }) => {
                    info!(name, %address, %before, "another server is the primary now")
                }
                None => info!(name, %address, "found the primary through Sentinels"),
            }
            *found = Some(primary);
            true
        });
    }
}

/// Host and port from the reply to `SENTINEL GET-MASTER-ADDR-BY-NAME`; `None` when the name is not known.
fn address(replies: &mut Cursor<'_>) -> Result<Option<(String, u16)>, RedisError> {
    match replies.value()? {
        Head::Array(2) => {}
        Head::Nil => return Ok(None),
        _ => return Err(malformed()),
    }
    let host = String::from_utf8_lossy(replies.bulk()?).into_owned();
    let port = str::from_utf8(replies.bulk()?).ok().and_then(|port| port.parse().ok());
    Ok(Some((host, port.ok_or_else(malformed)?)))
}

/// The number of the configuration from the reply to `SENTINEL MASTER`; 0 when it is refused or lacks the number.
fn epoch(replies: &mut Cursor<'_>) -> Result<u64, RedisError> {
    let Ok(values) = replies.array() else { return Ok(0) };
    let mut epoch = 0;
    for _ in 0..values / 2 {
        let (name, value) = (replies.bulk()?, replies.bulk()?);
        if name == b"config-epoch" {
            epoch = str::from_utf8(value).ok().and_then(|value| value.parse().ok()).unwrap_or(0);
        }
    }
    Ok(epoch)
}

fn is_refused_login(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// The errors of a Sentinel that a person can do something about.
fn explained(error: RedisError) -> RedisError {
    let text = match error.code() {
        _ if is_refused_login(&error) => format!(
            "it refused the login ({error}); set --redis-sentinel-user, and the password with --redis-sentinel-password-file or \
             HOST_REDIS_SENTINEL_PASSWORD"
        ),
        Some("ERR") if error.to_string().contains("unknown command") => {
            "it is no Sentinel but a Redis server; the URL needs the addresses of Sentinels, whose usual port is 26379"
                .to_owned()
        }
        _ => return error,
    };
    io::Error::other(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_of_a_sentinel_gives_address_and_epoch() {
        let bytes =
            b"*2\r\n$2\r\n::\r\n$4\r\n6380\r\n*4\r\n$4\r\nname\r\n$1\r\nm\r\n$12\r\nconfig-epoch\r\n$2\r\n17\r\n";
        let mut replies = Cursor::new(bytes, 0);
        assert_eq!(address(&mut replies).unwrap(), Some(("::".to_owned(), 6380)));
        assert_eq!(epoch(&mut replies).unwrap(), 17);
        let mut replies = Cursor::new(b"*-1\r\n-ERR No such master with that name\r\n", 0);
        assert_eq!(address(&mut replies).unwrap(), None);
        assert_eq!(epoch(&mut replies).unwrap(), 0);
    }
}

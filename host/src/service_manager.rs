//! Tells the service manager, such as systemd, what the host does: ready, reloading, stopping, alive. This file knows the
//! manager's socket and the words of its protocol, and no part of the host.
//!
//! The protocol (`sd_notify(3)`) is one datagram for each message, to the socket that `NOTIFY_SOCKET` names. A crate for
//! that would send with blocking calls from the thread of the heartbeat, and would save twenty lines.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::timeout;
use tracing::warn;

use crate::throttle::Throttle;

/// Variable with the address of the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Longest wait for a manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager that has started this process, if there is one. The default is none, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager(Option<Arc<Link>>);

/// The way to a service manager.
#[derive(Debug)]
struct Link {
    address: SocketAddr,
    watchdog: Option<Duration>,
    failures: Throttle,
}

/// A message for the service manager.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// The host is ready, or ready again after a reload.
    Ready,
    /// The host looks at the plugin and the configuration again. [`News::Ready`] follows.
    Reloading,
    /// The host stops.
    Stopping,
    /// All parts of the host go on.
    Alive,
    /// What the host does, as one line for a person.
    Status(&'a str),
}

/// The environment names a service manager that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot tell the service manager anything, because {SOCKET}={} is not the absolute path of a socket, or @ and an abstract name: \
     {reason}",
    .socket.display()
)]
pub struct Unreachable {
    socket: OsString,
    reason: io::Error,
}

impl ServiceManager {
    /// The manager that these environment variables name.
    ///
    /// # Errors
    /// When the address of the manager's socket cannot be used.
    pub fn named_by(variable: impl Fn(&str) -> Option<OsString>) -> Result<ServiceManager, Unreachable> {
        let Some(socket) = variable(SOCKET).filter(|socket| !socket.is_empty()) else {
            return Ok(ServiceManager::default());
        };
        let address = address(&socket).map_err(|reason| Unreachable { socket, reason })?;
        let watchdog = watchdog(&variable);
        Ok(ServiceManager(Some(Arc::new(Link { address, watchdog, failures: Throttle::default() }))))
    }

    /// Whether there is a service manager.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Time without [`News::Alive`] after which the manager takes the host for hung; `None` when it does not watch.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// Sends these messages in one datagram. A failure is logged, and the host goes on.
    pub async fn tell(&self, news: &[News<'_>]) {
        let Some(link) = &self.0 else { return };
        let text: Vec<String> = news.iter().map(|news| news.text()).collect();
        let error = match timeout(SEND_TIMEOUT, link.send(&text.join("\n"))).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it has read nothing for {SEND_TIMEOUT:?}"),
        };
        if let Some(unlogged) = link.failures.permit() {
            warn!(unlogged, "cannot tell the service manager at {SOCKET} what the host does: {error}");
        }
    }
}

impl Link {
    /// A socket for each message, as `sd_notify` does it: a manager that was replaced is found by its name.
    async fn send(&self, text: &str) -> io::Result<()> {
        let socket = net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        UnixDatagram::from_std(socket)?.send(text.as_bytes()).await.map(drop)
    }
}

impl News<'_> {
    fn text(self) -> String {
        match self {
            News::Ready => "READY=1".to_owned(),
            // The time tells the manager which of its requests for a reload this is.
            News::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()),
            News::Stopping => "STOPPING=1".to_owned(),
            News::Alive => "WATCHDOG=1".to_owned(),
            News::Status(line) => format!("STATUS={}", line.replace('\n', " ")),
        }
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(socket),
        [b'@', name @ ..] => abstract_address(name),
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// The watchdog's time, unless the variables are meant for another process, which this one inherited them from.
fn watchdog(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
    let is_for_another =
        variable("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(std::process::id().into());
    number("WATCHDOG_USEC").filter(|us| *us > 0 && !is_for_another).map(Duration::from_micros)
}

/// Microseconds on the clock that service managers compare with.
fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

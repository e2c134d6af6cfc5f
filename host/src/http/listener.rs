//! Accepts connections and serves them, with bounds on their number and on the time that a client may take. This file knows
//! no path.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::patience::Patient;
use super::{HttpError, tls};
use crate::config::HttpConfig;
use crate::throttle::Throttle;

/// Longest time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait after an error on accepting, such as too many open files.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Maximum size of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Size of the system's buffer for what a client has not taken. The system gives megabytes otherwise, for each connection, and a
/// client that takes little would seem to take nothing for long: the system tells only when a third of the buffer is free.
const SEND_BUFFER_BYTES: u32 = 64 << 10;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A bound socket with its limits.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
    /// Longest time for the head of a request, for an idle connection between two requests, and for a client that takes nothing.
    patience: Duration,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr, config: &HttpConfig) -> Result<Listener, HttpError> {
        let failed = |error| HttpError::Address { address, error };
        let tls = tls::acceptor(config)?;
        let socket = listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let connections = Arc::new(Semaphore::new(config.connections_max as usize));
        Ok(Listener { socket, address, tls, connections, patience: config.timeout })
    }

    /// The address with the port that the system has chosen, if the settings name port 0.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until `stop` becomes true; answers in progress may then take `farewell`.
    pub(super) async fn run(self, router: Router, mut stop: watch::Receiver<bool>, farewell: Duration) {
        let graceful = GracefulShutdown::new();
        tokio::select! {
            () = self.accept(router, &graceful) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if timeout(farewell, graceful.shutdown()).await.is_err() {
            debug!("some answers were not complete within {farewell:?}");
        }
    }

    async fn accept(&self, router: Router, graceful: &GracefulShutdown) {
        let socket = self.socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return warn!("cannot listen for HTTP: {error}"),
        };
        let refused = Throttle::default();
        loop {
            // An error is impossible, because nobody closes the semaphore.
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer, permit, &router, graceful),
                Err(error) => {
                    if let Some(unlogged) = refused.permit() {
                        warn!(unlogged, "cannot accept an HTTP connection: {error}");
                    }
                    tokio::time::sleep(ACCEPT_WAIT).await;
                }
            }
        }
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        router: &Router,
        graceful: &GracefulShutdown,
    ) {
        let (router, watcher, tls, patience) = (router.clone(), graceful.watcher(), self.tls.clone(), self.patience);
        tokio::spawn(async move {
            let _permit = permit;
            // Answers are small writes, which Nagle's algorithm would delay. Without it they are late, not wrong.
            let _ = stream.set_nodelay(true);
            let (stream, talk) = (Patient::new(stream, patience), Talk { peer, router, patience, watcher });
            let Some(tls) = tls else { return talk.over(stream).await };
            match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => talk.over(stream).await,
                Ok(Err(error)) => debug!(%peer, "no TLS connection: {error}"),
                Err(_) => debug!(%peer, "no TLS connection within {HANDSHAKE_TIMEOUT:?}"),
            }
        });
    }
}

/// A socket whose connections have a small buffer.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // So that a host can start again while connections of the one before it end.
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// What a connection is served with.
struct Talk {
    peer: SocketAddr,
    router: Router,
    patience: Duration,
    watcher: Watcher,
}

impl Talk {
    async fn over<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Talk { peer, router, patience, watcher } = self;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(with_peer(router, peer)));
        if let Err(error) = watcher.watch(connection).await {
            debug!(%peer, "an HTTP connection ended: {error}");
        }
    }
}

/// Lets handlers know who asks, for the log.
fn with_peer(router: Router, peer: SocketAddr) -> Router {
    router.layer(axum::Extension(axum::extract::ConnectInfo(peer)))
}

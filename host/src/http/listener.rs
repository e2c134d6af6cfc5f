//! Accepts connections and serves them, with bounds on their number and on the time that a client may take. This file knows
//! no path.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{HttpError, tls};
use crate::config::HttpConfig;
use crate::throttle::Throttle;

/// Longest time for the head of a request, and for an idle connection between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait after an error on accepting, such as too many open files.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Maximum size of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A bound socket with its limits.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr, config: &HttpConfig) -> Result<Listener, HttpError> {
        let failed = |error| HttpError::Address { address, error };
        let tls = tls::acceptor(config)?;
        let socket = TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let connections = Arc::new(Semaphore::new(config.connections_max as usize));
        Ok(Listener { socket, address, tls, connections })
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
        let (router, watcher, tls) = (router.clone(), graceful.watcher(), self.tls.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // Answers are small writes, which Nagle's algorithm would delay. Without it they are late, not wrong.
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls else { return talk(stream, peer, router, watcher).await };
            match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => talk(stream, peer, router, watcher).await,
                Ok(Err(error)) => debug!(%peer, "no TLS connection: {error}"),
                Err(_) => debug!(%peer, "no TLS connection within {HANDSHAKE_TIMEOUT:?}"),
            }
        });
    }
}

async fn talk<S>(stream: S, peer: SocketAddr, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(with_peer(router, peer)));
    if let Err(error) = watcher.watch(connection).await {
        debug!(%peer, "an HTTP connection ended: {error}");
    }
}

/// Lets handlers know who asks, for the log.
fn with_peer(router: Router, peer: SocketAddr) -> Router {
    router.layer(axum::Extension(axum::extract::ConnectInfo(peer)))
}

//! The HTTP listener: health, readiness and metrics for whoever watches the host. It has a thread of its own, so that no client can
//! delay a message or a heartbeat. Handlers read what the host says about itself; they are not on the path of a message.

mod access;
mod answer;
mod api;
mod hand_in;
mod health;
mod json_body;
mod listener;
mod look;
mod membership;
mod metrics;
mod page;
mod parts;
mod patience;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::config::{Config, Token};
use crate::group::Group;
use crate::parts::Parts;
use crate::reload::Request;
use crate::remote::Remote;
use crate::version::Versions;
use api::Api;
use listener::Listener;
use look::Look;
use parts::Late;

/// How long answers in progress may take when the host stops.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Reason why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be used.
    #[error("cannot listen for HTTP on {address}: {error}; choose another address with --http")]
    Address {
        /// The address of the settings.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// A file cannot be read or used.
    #[error("cannot use {} of --http-{setting}: {problem}", path.display())]
    File {
        /// Flag without its prefix.
        setting: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// A clause with the reason.
        problem: String,
    },
    /// A token and a file with one.
    #[error(
        "there is one token, and the settings have two: --http-token-file names a file, and http.token (HOST_HTTP_TOKEN) is set; \
         leave one of them out"
    )]
    TwoTokens,
    /// The system refuses to start a thread.
    #[error("cannot start the thread of the HTTP listener: {0}")]
    Thread(io::Error),
}

/// What all handlers read.
#[derive(Debug)]
pub struct Service {
    group: Arc<Group>,
    versions: Arc<Versions>,
    /// The group as Redis shows it.
    look: Look,
    /// What only the API has.
    api: Api,
    /// What has to do with consumers that live elsewhere.
    remote: Option<Remote>,
    /// What every request must carry, if anything.
    token: Option<Token>,
    /// What the scheduler counts on the threads of the consumers, once there are any.
    workers: OnceLock<RuntimeMetrics>,
    /// Whether the host is ready: between the end of its start and its stop.
    is_ready: AtomicBool,
    /// Parts that do not go on.
    late: Late,
    /// Longest time for the body of a request.
    body_time: Duration,
}

impl Service {
    /// Time in which the threads of the consumers worked.
    fn busy_time(&self) -> Duration {
        let Some(workers) = self.workers.get() else { return Duration::ZERO };
        (0..workers.num_workers()).map(|worker| workers.worker_total_busy_duration(worker)).sum()
    }
}

/// A running listener.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    service: Arc<Service>,
    /// Of the listener's thread.
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Listens at the configured address. `None` if the settings name none.
    ///
    /// # Errors
    /// When the address, a certificate or the token cannot be used.
    pub async fn start(
        config: &Config,
        group: &Arc<Group>,
        versions: &Arc<Versions>,
        requests: mpsc::Sender<Request>,
        remote: impl FnOnce(SocketAddr) -> Option<Remote>,
    ) -> Result<Option<Http>, HttpError> {
        let Some(address) = config.http.address else { return Ok(None) };
        let token = access::token(&config.http)?;
        let listener = Listener::bind(address, &config.http)?;
        let (address, scheme) = (listener.address(), listener.scheme());
        let (stop, stopped) = watch::channel(false);
        let service = Arc::new(Service {
            group: group.clone(),
            versions: versions.clone(),
            look: Look::new(group.clone(), config.outputs.clone()),
            api: Api::new(group, config.outputs.clone(), requests, stopped.clone()),
            remote: remote(address),
            token,
            workers: OnceLock::new(),
            is_ready: AtomicBool::new(false),
            late: Late::default(),
            body_time: config.http.timeout,
        });
        let router = router(service.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Thread)?;
        let (handle, supervisor) = (runtime.handle().clone(), group.supervisor.clone());
        let listening = supervisor.once("http", listener.run(router, stopped, FAREWELL_TIMEOUT));
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || runtime.block_on(listening).unwrap_or_default())
            .map_err(HttpError::Thread)?;
        info!("listening for HTTP on {scheme}://{address}");
        Ok(Some(Http { address, service, runtime: handle, stop, thread: Some(thread) }))
    }

    /// The address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows how busy the threads of the consumers are.
    pub fn show_workers(&self, workers: &Handle) {
        // The threads of a host are started once.
        let _ = self.service.workers.set(workers.metrics());
    }

    /// Tells that the host is ready, and from now on whether these parts go on.
    pub fn ready(&self, parts: Parts) {
        self.service.is_ready.store(true, Ordering::Relaxed);
        let (service, supervisor) = (self.service.clone(), self.service.group.supervisor.clone());
        self.runtime.spawn(supervisor.keep("health", move || parts::watch(service.clone(), parts.clone())));
    }

    /// Tells that the host stops. From now on its parts end one after the other.
    pub fn stopping(&self) {
        self.service.is_ready.store(false, Ordering::Relaxed);
        self.service.late.clear();
    }

    /// Accepts nothing more, and waits for answers in progress.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // The supervisor has reported a panic.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn router(service: Arc<Service>) -> Router {
    let open = Router::new().route("/health", get(health::health));
    let remotes = service.remote.as_ref().and_then(|remote| remote.remotes.as_ref());
    // A worker has no subscription, no heartbeat and no group of its own.
    let is_host = service.remote.is_none() || remotes.is_some();
    let open = match is_host {
        true => open.route("/ready", get(health::ready)).merge(page::routes()),
        false => open,
    };
    let of_host = match is_host {
        true => Router::new().route("/metrics", get(metrics::metrics)).merge(api::routes()),
        false => Router::new(),
    };
    // A route is guarded unless there is a reason against it.
    let guarded = of_host
        .merge(service.remote.as_ref().map(hand_in::routes).unwrap_or_default())
        .merge(remotes.map(|_| membership::routes()).unwrap_or_default())
        .layer(axum::middleware::from_fn_with_state(service.clone(), access::guard));
    open.merge(guarded)
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(axum::middleware::from_fn_with_state(service.clone(), answer::bounded))
        .with_state(service)
}

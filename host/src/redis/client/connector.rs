//! Makes connections to the server: address, TLS, login, time limits.
//! It knows none of the commands that go over them.

use std::sync::Arc;
use std::time::Duration;

/// A connection for commands; clones share it.
pub use redis::aio::MultiplexedConnection as LibraryConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use rustls::ClientConfig;

use super::transport::{self, Transport};
use crate::config::RedisConfig;

/// Longest wait for a TCP connection, TLS and login together.
pub(in crate::redis) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a reply. A stalled server and a half-open connection look the same from here;
/// every command that the host sends may be sent again.
pub(in crate::redis) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// A certificate or key file cannot be read.
    #[error("cannot read the {what} {path}: {error}")]
    File {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The URL cannot be used.
    #[error(
        "cannot use the Redis URL: {0}; it looks like redis://user:password@host:6379/0, rediss://… or unix:///path"
    )]
    Url(RedisError),
    /// Certificates for a connection without TLS.
    #[error("a certificate file is given but the Redis URL is not rediss://")]
    CertificateWithoutTls,
    /// One half of a client certificate.
    #[error("a client certificate needs both the certificate file and the key file")]
    HalfCertificate,
}

/// Makes connections to the one Redis server of a host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    client: Client,
    /// For connections that the client library does not make.
    tls: Option<Arc<ClientConfig>>,
    address: Arc<str>,
}

impl Connector {
    /// A connector for the configured server. Opens nothing.
    ///
    /// # Errors
    /// When the URL or a certificate file cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Connector, ConnectorError> {
        // Fails only when another part of the process has chosen before us, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = config.url.as_str().into_connection_info().map_err(ConnectorError::Url)?;
        // Deliveries and claims are many small writes; Nagle's algorithm would hold them back.
        let info = {
            let tcp = info.tcp_settings().clone().set_nodelay(true);
            info.set_tcp_settings(tcp)
        };
        // Without the library's own CLIENT SETINFO, the least set of rights is smaller.
        let info = {
            let settings = info.redis_settings().clone().set_skip_set_lib_name();
            info.set_redis_settings(settings)
        };
        let address: Arc<str> = info.addr().to_string().into();
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let certificates = certificates(config)?;
        let tls_config = match tls {
            true => Some(Arc::new(transport::tls(certificates.as_ref()).map_err(ConnectorError::Url)?)),
            false => None,
        };
        let client = match certificates {
            Some(_) if !tls => return Err(ConnectorError::CertificateWithoutTls),
            Some(certificates) => Client::build_with_tls(info, certificates).map_err(ConnectorError::Url)?,
            None => Client::open(info).map_err(ConnectorError::Url)?,
        };
        Ok(Connector { client, tls: tls_config, address })
    }

    /// Host and port, or path, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection for commands that are answered at once.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn connect(&self) -> Result<LibraryConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A stream to the server, on which nothing has been said yet.
    pub(in crate::redis) async fn stream(&self) -> Result<Transport, RedisError> {
        transport::open(self.client.get_connection_info().addr(), self.tls.as_ref()).await
    }

    /// Number of the database.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.login().db()
    }

    /// User, password and database.
    pub(in crate::redis) fn login(&self) -> &RedisConnectionInfo {
        self.client.get_connection_info().redis_settings()
    }
}

fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, ConnectorError> {
    let read = |what, path: &Option<std::path::PathBuf>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path).map(Some).map_err(|error| ConnectorError::File {
            what,
            path: path.display().to_string(),
            error,
        }),
    };
    let root_cert = read("CA file", &config.ca_file)?;
    let client_tls = match (read("certificate file", &config.cert_file)?, read("key file", &config.key_file)?) {
        (None, None) => None,
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => return Err(ConnectorError::HalfCertificate),
    };
    let any = root_cert.is_some() || client_tls.is_some();
    Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
}

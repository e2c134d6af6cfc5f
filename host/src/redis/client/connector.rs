//! Opens connections to the server: address, TLS, login, timeouts. This file knows no commands.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A connection for commands. Clones share it.
pub use redis::aio::MultiplexedConnection as LibraryConnection;
use redis::{AsyncConnectionConfig, ClientTlsConfig, ConnectionAddr, RedisConnectionInfo, RedisError, TlsCertificates};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::connection::Connection;
use super::part::Part;
use super::sentinel::{Secret, Sentinels};
use super::tie::Tie;
use super::transport;
use crate::config::RedisConfig;
use crate::config::redis_servers::{self, Servers, is_tls};

/// Maximum time for a TCP connection, TLS and login together.
pub(in crate::redis) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum wait for a reply. A stalled server and a half-open connection look the same to the host; every command that
/// the host sends may be sent again.
pub(in crate::redis) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wrong settings of the connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// A certificate or key file cannot be read.
    #[error("cannot read the {what} {path}: {error}")]
    File {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: String,
        /// The system's error.
        error: io::Error,
    },
    /// A certificate or key file without a certificate or key.
    #[error("the {what} {path} {problem}; name a PEM file with {wanted}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: String,
        /// The problem with the file.
        problem: String,
        /// The required contents.
        wanted: &'static str,
    },
    /// Certificates and key do not fit together.
    #[error(
        "cannot use the client certificate of --redis-cert-file with the key of --redis-key-file, or the authority: {0}"
    )]
    Certificates(RedisError),
    /// The URL cannot be used.
    #[error(
        "cannot use the Redis URL: {0}; a URL looks like redis://user:password@host:6379/0, rediss://… or unix:///path"
    )]
    Url(String),
    /// A password for the Sentinels, and a file with one.
    #[error("--redis-sentinel-password-file and a password for the Sentinels are given; leave out one of them")]
    TwoPasswords,
    /// Certificates for a connection without TLS.
    #[error("a certificate file is given but the Redis URL is not rediss://")]
    CertificateWithoutTls,
    /// Only one of the two files of a client certificate.
    #[error("a client certificate needs both the certificate file and the key file")]
    HalfCertificate,
}

/// Opens connections to the Redis server of a host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    way: Way,
    /// User, password and database.
    login: RedisConnectionInfo,
    address: Arc<str>,
}

/// How the server is found.
#[derive(Clone, Debug)]
enum Way {
    /// It is always the same one.
    Address(ConnectionAddr, Option<Arc<ClientConfig>>),
    /// Sentinels name it.
    Sentinels(Arc<Sentinels>),
}

impl Connector {
    /// A connector for the configured server. This call opens no connection.
    ///
    /// # Errors
    /// When the URL or a certificate file cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Connector, ConnectorError> {
        // An error means that another part of the process has already chosen a provider, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (servers, login) = redis_servers::read(&config.url).map_err(ConnectorError::Url)?;
        let certificates = certificates(config)?;
        let with_tls = match &servers {
            Servers::One(address) => is_tls(address),
            Servers::Sentinels { addresses, .. } => addresses.iter().any(is_tls),
        };
        let tls = match with_tls {
            true => Some(Arc::new(transport::tls(certificates.as_ref()).map_err(ConnectorError::Certificates)?)),
            false if certificates.is_some() => return Err(ConnectorError::CertificateWithoutTls),
            false => None,
        };
        let address = shown(&servers);
        let way = match servers {
            Servers::One(address) => Way::Address(address, tls),
            Servers::Sentinels { addresses, name } => {
                let own_login = (config.sentinel_user.clone(), secret(config)?);
                Way::Sentinels(Arc::new(Sentinels::new((addresses, name), own_login, login.clone(), tls)))
            }
        };
        Ok(Connector { way, login, address })
    }

    /// Host and port, or path, or the name of the primary and its Sentinels, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection for commands with an immediate reply.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn connect(&self) -> Result<LibraryConnection, RedisError> {
        let stream = self.open().await?.into_stream();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        // The connection is logged in. Without the library's own CLIENT SETINFO the user needs fewer rights.
        let nothing = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (connection, driver) = LibraryConnection::new_with_config(&nothing, stream, config).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Identity of the server at the other end of a connection for commands.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn server_of(connection: &mut LibraryConnection) -> Result<Arc<str>, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        Ok(run_id(&info))
    }

    /// A connection without the client library, logged in.
    pub(super) async fn open(&self) -> Result<Connection, RedisError> {
        Ok(match self.open_loose().await? {
            (connection, Some(tie)) => Connection::over(tie.around(connection.into_stream())),
            (connection, None) => connection,
        })
    }

    /// The same, but the connection outlives its tie: whoever reads it has to look.
    pub(super) async fn open_loose(&self) -> Result<(Connection, Option<Tie>), RedisError> {
        match &self.way {
            Way::Address(address, tls) => Ok((Connection::at(address, tls.as_ref(), &self.login).await?, None)),
            Way::Sentinels(sentinels) => {
                let (connection, tie) = sentinels.connect().await?;
                Ok((connection, Some(tie)))
            }
        }
    }

    /// Whether the primary may become another server.
    #[must_use]
    pub fn may_move(&self) -> bool {
        matches!(self.way, Way::Sentinels(_))
    }

    /// Follows the primary for ever, and ends the connections to one that is left behind.
    pub async fn follow(&self) {
        match &self.way {
            Way::Address(..) => pending().await,
            Way::Sentinels(sentinels) => sentinels.follow().await,
        }
    }

    /// A connection for commands that must reach the primary, not a copy of it.
    ///
    /// # Errors
    /// Errors of the network or the server, or the address of the primary if the server is a replica.
    pub async fn connect_to_primary(&self) -> Result<LibraryConnection, RedisError> {
        let mut connection = self.connect().await?;
        match Connector::part_of(&mut connection).await? {
            Part::Primary => Ok(connection),
            Part::Replica { primary } => {
                let text = format!("it is a read replica of {primary}; give that address, or redis+sentinel://");
                Err(io::Error::new(io::ErrorKind::Unsupported, text).into())
            }
        }
    }

    /// What the server of a connection is among the servers that replicate each other. One that does not grant `INFO` counts as a
    /// primary.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn part_of(connection: &mut LibraryConnection) -> Result<Part, RedisError> {
        match redis::cmd("INFO").arg("replication").query_async::<String>(connection).await {
            Ok(info) => Ok(Part::of(&info)),
            Err(error) if error.code() == Some("NOPERM") => Ok(Part::Primary),
            Err(error) => Err(error),
        }
    }

    /// Number of the database.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.login.db()
    }
}

/// The servers as people read them.
fn shown(servers: &Servers) -> Arc<str> {
    match servers {
        Servers::One(address) => address.to_string().into(),
        Servers::Sentinels { addresses, name } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{name} (Sentinels {})", addresses.join(", ")).into()
        }
    }
}

/// The password for the Sentinels.
fn secret(config: &RedisConfig) -> Result<Secret, ConnectorError> {
    match (&config.sentinel_password, &config.sentinel_password_file) {
        (Some(_), Some(_)) => Err(ConnectorError::TwoPasswords),
        (Some(password), None) => Ok(Secret::Given(password.clone())),
        (None, Some(path)) => Ok(Secret::File(path.clone())),
        (None, None) => Ok(Secret::None),
    }
}

/// Identity of a server, from its `INFO`: a new one with every start of a server. Empty when the server does not tell.
pub(super) fn run_id(info: &str) -> Arc<str> {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().into()
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
    check_pem("CA file", &config.ca_file, root_cert.as_ref(), "the certificate of an authority", certificates_in)?;
    let client_tls = match (read("certificate file", &config.cert_file)?, read("key file", &config.key_file)?) {
        (None, None) => None,
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => return Err(ConnectorError::HalfCertificate),
    };
    if let Some(client) = &client_tls {
        let (certificate, key) = (Some(&client.client_cert), Some(&client.client_key));
        check_pem("certificate file", &config.cert_file, certificate, "the client certificate", certificates_in)?;
        check_pem("key file", &config.key_file, key, "the key of the client certificate", key_in)?;
    }
    let any = root_cert.is_some() || client_tls.is_some();
    Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
}

/// An error unless the file, if there is one, has the required contents.
fn check_pem(
    what: &'static str,
    path: &Option<std::path::PathBuf>,
    pem: Option<&Vec<u8>>,
    wanted: &'static str,
    check: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<(), ConnectorError> {
    let (Some(path), Some(pem)) = (path, pem) else { return Ok(()) };
    check(pem).map_err(|problem| ConnectorError::Pem { what, path: path.display().to_string(), problem, wanted })
}

fn certificates_in(pem: &[u8]) -> Result<(), String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found.map_err(|error| format!("is not valid PEM ({error})"))?.as_slice() {
        [] => Err("has no certificate in it".to_owned()),
        _ => Ok(()),
    }
}

fn key_in(pem: &[u8]) -> Result<(), String> {
    PrivateKeyDer::from_pem_slice(pem).map(drop).map_err(|error| format!("has no private key in it ({error})"))
}

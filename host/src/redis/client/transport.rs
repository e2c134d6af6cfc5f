//! Byte streams to a Redis server, for every form of address. This file knows no protocol above TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{ConnectionAddr, ErrorKind, RedisError, TlsCertificates};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Wait for one address of a name before the next one is tried beside it (Happy Eyeballs, RFC 8305).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A byte stream in both directions.
pub(in crate::redis) type Transport = Box<dyn Bidirectional>;

/// The common properties of all streams.
pub(in crate::redis) trait Bidirectional: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Bidirectional for S {}

/// Opens a stream to this address.
///
/// # Errors
/// Errors of the network or of the certificate.
pub(in crate::redis) async fn open(
    address: &ConnectionAddr,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Transport, RedisError> {
    Ok(match (address, tls) {
        (ConnectionAddr::Tcp(host, port), _) => Box::new(tcp(host, *port).await?),
        (ConnectionAddr::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
            let name = ServerName::try_from(host.clone())?;
            Box::new(TlsConnector::from(tls.clone()).connect(name, tcp(host, *port).await?).await?)
        }
        _ => return Err((ErrorKind::InvalidClientConfig, "this kind of address is not supported").into()),
    })
}

/// Connects to the first address of a name that accepts. An address that answers nothing does not hold up the others.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses = lookup_host((host, port)).await?;
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match addresses.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        match timeout(NEXT_ADDRESS, attempts.next()).await {
            Ok(Some(Ok(stream))) => {
                // Deliveries and claims are many small writes, which Nagle's algorithm would delay.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
}

/// The settings for TLS: the given certificates, and the system's authorities if no authority is given.
///
/// # Errors
/// When a certificate or key cannot be used.
pub(in crate::redis) fn tls(certificates: Option<&TlsCertificates>) -> Result<ClientConfig, RedisError> {
    let wrong = |error: rustls::pki_types::pem::Error| {
        RedisError::from((ErrorKind::InvalidClientConfig, "a certificate or key is not PEM", error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    match certificates.and_then(|certificates| certificates.root_cert.as_ref()) {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(wrong)?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(match certificates.and_then(|certificates| certificates.client_tls.as_ref()) {
        None => config.with_no_client_auth(),
        Some(client) => {
            let chain = CertificateDer::pem_slice_iter(&client.client_cert).collect::<Result<_, _>>().map_err(wrong)?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&client.client_key).map_err(wrong)?)?
        }
    })
}

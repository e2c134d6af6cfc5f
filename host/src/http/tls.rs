//! The listener's certificate.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::HttpError;
use crate::config::HttpConfig;

/// What makes a TLS stream of a connection. `None` without a certificate.
pub(super) fn acceptor(config: &HttpConfig) -> Result<Option<TlsAcceptor>, HttpError> {
    let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) else { return Ok(None) };
    let chain = CertificateDer::pem_slice_iter(&read("cert-file", certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed("cert-file", certificate, format!("it is not valid PEM ({error})")))?;
    let private = PrivateKeyDer::from_pem_slice(&read("key-file", key)?)
        .map_err(|error| failed("key-file", key, format!("it has no private key in it ({error})")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .and_then(|config| config)
        .map_err(|error| failed("cert-file", certificate, format!("it does not fit the key ({error})")))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, HttpError> {
    fs::read(path).map_err(|error| failed(setting, path, error.to_string()))
}

fn failed(setting: &'static str, path: &Path, problem: String) -> HttpError {
    HttpError::File { setting, path: path.to_owned(), problem }
}

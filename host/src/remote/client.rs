//! Requests to the other side, over one connection that is kept from one request to the next. This file knows no path.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::WAITING_HEADER;
use super::address::Address;
use crate::config::Token;

/// Longest answer that is read. The status is what counts; a connection with a longer answer is not kept.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection can be made.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The other side.
        address: Address,
        /// The system's error.
        error: io::Error,
    },
    /// The connection failed, or its answer is no HTTP.
    #[error("the connection to {address} failed: {error}")]
    Broken {
        /// The other side.
        address: Address,
        /// The error of the connection.
        error: hyper::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {bound:?}")]
    Late {
        /// The other side.
        address: Address,
        /// The bound.
        bound: Duration,
    },
    /// The request cannot be written.
    #[error("cannot write the request: {0}")]
    Request(#[from] axum::http::Error),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body; empty if it was longer than what is read.
    pub body: Bytes,
    /// After which time to ask again.
    pub retry_after: Option<Duration>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The path.
    pub path: &'a str,
    /// The JSON text to post; `None` gets.
    pub json: Option<Bytes>,
    /// How the message waits.
    pub fence: Option<&'a str>,
}

/// The other side.
#[derive(Debug)]
pub struct Client {
    address: Address,
    token: Option<Token>,
    kept: Option<SendRequest<Body>>,
}

impl Client {
    /// A client without a connection yet. Requests carry the token.
    #[must_use]
    pub fn new(address: Address, token: Option<Token>) -> Client {
        Client { address, token, kept: None }
    }

    /// The other side's address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request and reads the answer, all within `bound`. The future may be dropped at any moment; the connection is
    /// closed then.
    ///
    /// # Errors
    /// When there is no answer in time. The request may have had its effect.
    pub async fn ask(&mut self, ask: Ask<'_>, bound: Duration) -> Result<Answer, AskError> {
        let request = self.request(ask)?;
        let address = self.address.clone();
        timeout(bound, self.exchange(request)).await.unwrap_or(Err(AskError::Late { address, bound }))
    }

    fn request(&self, Ask { path, json, fence }: Ask<'_>) -> Result<Request<Body>, AskError> {
        let mut request = Request::builder().uri(path).header(header::HOST, self.address.as_str());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.authorization());
        }
        if let Some(fence) = fence {
            request = request.header(WAITING_HEADER, fence);
        }
        Ok(match json {
            Some(json) => request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(Body::from(json))?,
            None => request.body(Body::empty())?,
        })
    }

    async fn exchange(&mut self, mut request: Request<Body>) -> Result<Answer, AskError> {
        let broken = |error| AskError::Broken { address: self.address.clone(), error };
        if let Some(mut sender) = self.kept.take()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answer(sender, response).await),
                // The other side has closed the connection since, and the request was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.into_error())),
                },
            }
        }
        let connected = TcpStream::connect(self.address.as_str()).await;
        let stream = connected.map_err(|error| AskError::Connect { address: self.address.clone(), error })?;
        // Requests are small writes, which Nagle's algorithm would delay. Without it they are late, not wrong.
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its error reaches the request as well.
        tokio::spawn(async move { connection.await.ok() });
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(self.answer(sender, response).await)
    }

    async fn answer(&mut self, sender: SendRequest<Body>, response: Response<Incoming>) -> Answer {
        let (status, retry_after) = (response.status(), retry_after(&response));
        let body = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await;
        if body.is_ok() {
            self.kept = Some(sender);
        }
        Answer { status, body: body.unwrap_or_default(), retry_after }
    }
}

/// Seconds in the header `Retry-After`. A date there counts as none.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

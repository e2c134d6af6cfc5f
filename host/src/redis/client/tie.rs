//! Ends connections to a server that is the primary no more. After a failover by command the old primary stays a primary for many
//! seconds, and whatever is written there meanwhile is lost.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::sentinel::Primary;
use super::transport::Transport;

/// Knows whether the server of a connection is still the primary.
#[derive(Debug)]
pub(super) struct Tie {
    primary: watch::Receiver<Option<Primary>>,
    address: ConnectionAddr,
}

impl Tie {
    /// The tie of a connection to the server at this address.
    pub(super) fn new(primary: watch::Receiver<Option<Primary>>, address: ConnectionAddr) -> Tie {
        Tie { primary, address }
    }

    /// Whether another server is the primary now.
    pub(super) fn is_cut(&self) -> bool {
        self.primary.borrow().as_ref().is_some_and(|primary| primary.address != self.address)
    }

    /// The stream, until another server is the primary.
    pub(super) fn around(self, stream: Transport) -> Transport {
        let Tie { mut primary, address } = self;
        let cut = async move {
            let is_another = |now: &Option<Primary>| now.as_ref().is_some_and(|now| now.address != address);
            if primary.wait_for(is_another).await.is_err() {
                // Nobody asks the Sentinels any more.
                std::future::pending().await
            }
        };
        Box::new(Tied { stream, cut: Some(Box::pin(cut)) })
    }
}

/// A stream that ends with its tie.
struct Tied {
    stream: Transport,
    /// `None` when the tie is cut.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Tied {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut
            && cut.as_mut().poll(context).is_ready()
        {
            self.cut = None;
        }
        match self.cut {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "another server is the primary now")),
        }
    }
}

impl AsyncRead for Tied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// A write may be under way while another task reads, and would take the place of the reader with the tie. The reply is missed, too.
impl AsyncWrite for Tied {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

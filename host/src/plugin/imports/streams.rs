//! Standard output and standard error of a guest: every line becomes a log event of the host.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::p3::bindings::cli as cli_0_3;

use super::super::journal::{Journal, Stream};
use super::{Grant, Interface, Setup, Store, WASI, WASI_0_3};

/// Maximum length of one write by a guest, in bytes; the same as in wasmtime's own streams.
const WRITE_BYTES_MAX: usize = 64 << 10;

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:cli/stdout", WASI, Grant::Granted),
    Interface::of("wasi:cli/stderr", WASI, Grant::Granted),
    Interface::of("wasi:cli/stdout", WASI_0_3, Grant::Granted),
    Interface::of("wasi:cli/stderr", WASI_0_3, Grant::Granted),
];

/// The WASI context contains the streams.
pub(super) struct State;

impl State {
    pub(super) fn new(setup: &Setup, wasi: &mut WasiCtxBuilder) -> State {
        let output = |stream| Output { journal: setup.journal.clone(), stream };
        wasi.stdout(output(Stream::Stdout)).stderr(output(Stream::Stderr));
        State
    }
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    if super::wants_wasi_0_3(component) {
        cli_0_3::stdout::add_to_linker::<Store, WasiCli>(linker, WasiCliView::cli)?;
        cli_0_3::stderr::add_to_linker::<Store, WasiCli>(linker, WasiCliView::cli)?;
    }
    stdout::add_to_linker::<Store, WasiCli>(linker, WasiCliView::cli)?;
    stderr::add_to_linker::<Store, WasiCli>(linker, WasiCliView::cli)
}

/// The guest's stdout or stderr.
#[derive(Clone)]
struct Output {
    journal: Journal,
    stream: Stream,
}

impl Output {
    fn write_bytes(&self, bytes: &[u8]) {
        self.journal.write(self.stream, bytes);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_bytes(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.write_bytes(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}


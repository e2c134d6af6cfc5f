//! Interfaces of WASI without content, so that the components of every toolchain start: no environment, no files, no
//! network.

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, sockets};
use wasmtime_wasi::p3;
use wasmtime_wasi::p3::bindings::cli as cli_0_3;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::{Grant, Interface, Setup, Store, WASI, WASI_0_3};

const NO_TERMINAL: Grant = Grant::Empty("no terminal");
const NO_FILES: Grant = Grant::Empty("no files");
const NO_ADDRESS: Grant = Grant::Empty("no address may be used");

pub(super) const INTERFACES: &[Interface] = &[
    Interface::of("wasi:cli/environment", WASI, Grant::Empty("no variables, no arguments")),
    Interface::of("wasi:cli/stdin", WASI, Grant::Empty("closed")),
    Interface::of("wasi:cli/exit", WASI, Grant::Empty("a call is a trap")),
    Interface::of("wasi:cli/terminal-input", WASI, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-output", WASI, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stdin", WASI, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stdout", WASI, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stderr", WASI, NO_TERMINAL),
    Interface::of("wasi:filesystem/types", WASI, NO_FILES),
    Interface::of("wasi:filesystem/preopens", WASI, NO_FILES),
    Interface::of("wasi:sockets/instance-network", WASI, Grant::Empty("no network")),
    Interface::of("wasi:sockets/ip-name-lookup", WASI, Grant::Empty("no name is found")),
    Interface::of("wasi:sockets/network", WASI, NO_ADDRESS),
    Interface::of("wasi:sockets/tcp", WASI, NO_ADDRESS),
    Interface::of("wasi:sockets/tcp-create-socket", WASI, NO_ADDRESS),
    Interface::of("wasi:sockets/udp", WASI, NO_ADDRESS),
    Interface::of("wasi:sockets/udp-create-socket", WASI, NO_ADDRESS),
    Interface::of("wasi:cli/types", WASI_0_3, Grant::Granted),
    Interface::of("wasi:cli/environment", WASI_0_3, Grant::Empty("no variables, no arguments")),
    Interface::of("wasi:cli/stdin", WASI_0_3, Grant::Empty("closed")),
    Interface::of("wasi:cli/exit", WASI_0_3, Grant::Empty("a call is a trap")),
    Interface::of("wasi:cli/terminal-input", WASI_0_3, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-output", WASI_0_3, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stdin", WASI_0_3, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stdout", WASI_0_3, NO_TERMINAL),
    Interface::of("wasi:cli/terminal-stderr", WASI_0_3, NO_TERMINAL),
    Interface::of("wasi:filesystem/types", WASI_0_3, NO_FILES),
    Interface::of("wasi:filesystem/preopens", WASI_0_3, NO_FILES),
    Interface::of("wasi:sockets/ip-name-lookup", WASI_0_3, Grant::Empty("no name is found")),
    Interface::of("wasi:sockets/types", WASI_0_3, NO_ADDRESS),
];

/// An empty interface has no state.
pub(super) struct State;

impl State {
    pub(super) fn new(_: &Setup, wasi: &mut WasiCtxBuilder) -> State {
        // A new builder has no files, environment, arguments or names, and a closed standard input.
        wasi.allow_tcp(false).allow_udp(false);
        State
    }
}

/// Links interfaces of one package, whose functions get the same view of the store.
macro_rules! link {
    ($linker:ident, $data:ty, $view:path, $package:ident: $($interface:ident),+) => {
        $($package::$interface::add_to_linker::<Store, $data>($linker, $view)?;)+
    };
}

pub(super) fn link(linker: &mut Linker<Store>, component: &Component) -> wasmtime::Result<()> {
    if super::wants_wasi_0_3(component) {
        link!(linker, WasiCli, WasiCliView::cli, cli_0_3: environment, stdin, exit, terminal_input, terminal_output);
        link!(linker, WasiCli, WasiCliView::cli, cli_0_3: terminal_stdin, terminal_stdout, terminal_stderr);
        p3::filesystem::add_to_linker(linker)?;
        p3::sockets::add_to_linker(linker)?;
    }
    link!(linker, WasiCli, WasiCliView::cli, cli: environment, stdin, exit, terminal_input, terminal_output);
    link!(linker, WasiCli, WasiCliView::cli, cli: terminal_stdin, terminal_stdout, terminal_stderr);
    link!(linker, WasiFilesystem, WasiFilesystemView::filesystem, filesystem: types, preopens);
    let options = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<Store, WasiSockets>(linker, &options, WasiSocketsView::sockets)?;
    link!(linker, WasiSockets, WasiSocketsView::sockets, sockets: instance_network, ip_name_lookup);
    link!(linker, WasiSockets, WasiSocketsView::sockets, sockets: tcp, tcp_create_socket, udp, udp_create_socket);
    Ok(())
}

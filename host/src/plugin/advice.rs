//! How each toolchain is told to do what a plugin needs, for the errors about a plugin. This file reads no bytes.

use wasmparser::WasmFeatures;

use super::toolchain::Toolchain;

impl Toolchain {
    /// How this toolchain is told the world, in brackets behind a sentence.
    pub(super) fn world(self) -> &'static str {
        match self {
            Toolchain::Rust => {
                " (wit-bindgen: generate!({ path: \"wit\", world: \"plugin\" }); `host wit --dir wit` writes the files)"
            }
            Toolchain::QuickJs => {
                " (componentize-qjs: --wit wit --world plugin; `host wit --dir wit` writes the files)"
            }
            Toolchain::StarlingMonkey => {
                " (jco componentize: --wit wit --world-name plugin; `host wit --dir wit` writes the files)"
            }
            Toolchain::Python => {
                " (componentize-py: --wit-path wit --world plugin; `host wit --dir wit` writes the files)"
            }
            Toolchain::Go => {
                " (wit-bindgen go wit --world plugin makes the bindings; `host wit --dir wit` writes the files)"
            }
            Toolchain::TinyGo => {
                " (tinygo build: -target=wasip2 --wit-package wit --wit-world plugin; `host wit --dir wit` writes the files)"
            }
            Toolchain::C | Toolchain::Cpp | Toolchain::ZigAndC | Toolchain::Zig => {
                " (wit-bindgen c wit --world plugin makes the bindings; `host wit --dir wit` writes the files)"
            }
            Toolchain::AssemblyScript => "",
        }
    }

    /// How this toolchain makes a component instead of a core module.
    pub(super) fn component(self) -> &'static str {
        match self {
            Toolchain::Rust => {
                "build it with `cargo build --target wasm32-wasip2`, or write target = \"wasm32-wasip2\" below [build] in \
                 .cargo/config.toml"
            }
            Toolchain::QuickJs | Toolchain::StarlingMonkey | Toolchain::Python => {
                "name the component, which the same tool has written"
            }
            Toolchain::Go => {
                "make a component of it with `host componentize`; the core module is built with GOOS=wasip1 \
                 GOARCH=wasm and -buildmode=c-shared"
            }
            Toolchain::TinyGo => "build it with `tinygo build -target=wasip2 --wit-package wit --wit-world plugin`",
            Toolchain::C | Toolchain::Cpp | Toolchain::ZigAndC => {
                "make a component of it with `host componentize`; the core module is built with \
                 --target=wasm32-wasi -mexec-model=reactor"
            }
            Toolchain::Zig => {
                "make a component of it with `host componentize`; the core module is built with -target wasm32-wasi \
                 -fno-entry -rdynamic"
            }
            Toolchain::AssemblyScript => {
                "make a component of it with `host componentize`; the core module is built with --use abort="
            }
        }
    }

    /// How this toolchain avoids a feature of WebAssembly that the host does not have, if there is a way.
    pub(super) fn without(self, feature: WasmFeatures) -> Option<&'static str> {
        use Toolchain::{C, Cpp, Python, QuickJs, Rust, Zig, ZigAndC};
        let is = |wanted: WasmFeatures| feature.intersects(wanted);
        Some(match self {
            QuickJs if is(WasmFeatures::CM_ASYNC) => "build it with componentize-qjs --sync",
            Python if is(WasmFeatures::CM_ASYNC) => {
                "write `def process`, not `async def process`, against the world in wit/"
            }
            Rust if is(WasmFeatures::CM_ASYNC) => "declare no function async in wit_bindgen::generate!",
            Rust if is(WasmFeatures::EXCEPTIONS) => {
                "write panic = \"abort\" below [profile.release] in Cargo.toml, and remove -C panic=unwind from RUSTFLAGS"
            }
            C | Cpp | ZigAndC if is(WasmFeatures::EXCEPTIONS) => "build it with -fno-exceptions",
            Rust if is(WasmFeatures::THREADS) => {
                "build it with --target wasm32-wasip2, without +atomics in RUSTFLAGS; a host runs many instances in parallel"
            }
            C | Cpp | ZigAndC if is(WasmFeatures::THREADS) => {
                "build it with --target=wasm32-wasi, without -pthread; a host runs many instances in parallel"
            }
            Zig if is(WasmFeatures::THREADS) => {
                "build it with -fsingle-threaded; a host runs many instances in parallel"
            }
            _ => return None,
        })
    }
}

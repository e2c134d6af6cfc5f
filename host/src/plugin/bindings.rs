//! The contract in `wit/` as generated Rust types. This file has no policy.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    // A call may be suspended while the guest sleeps or yields.
    exports: { default: async },
    // A message is passed by reference, without an extra copy.
    ownership: Borrowing { duplicate_if_necessary: true },
});

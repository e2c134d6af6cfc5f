//! The contract in `wit/` as Rust types, generated. It knows no policy.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    // A call can be left while the guest sleeps or has to yield.
    exports: { default: async },
    // A message is lent to the guest, not copied first.
    ownership: Borrowing { duplicate_if_necessary: true },
});

//! The contract in `wit/` as generated Rust types, a module for each released version that differs in its types. This
//! file has no policy.
//!
//! The worlds here name only what this host implements itself: wasmtime brings the types of WASI.

/// Contract 1.0.0, and compatible versions after it.
pub(super) mod v1 {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package host:types;
            world v1 {
                import wasi:logging/logging@0.1.0-draft;
                import wasi:config/store@0.2.0-rc.1;
                import host:plugin/context@1.0.0;
                export host:plugin/processor@1.0.0;
            }",
        world: "host:types/v1",
        // A call may be suspended while the guest sleeps or yields.
        exports: { default: async },
        // A message is passed by reference, without an extra copy.
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// Contract 0.1.0. Its imports are those of 1.0.0.
pub(super) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "../wit/released/0.1.0",
        inline: "
            package host:types;
            world v0-1 {
                export host:plugin/processor@0.1.0;
            }",
        world: "host:types/v0-1",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// State: what a plugin imports if it is granted buckets.
pub(super) mod keyvalue {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package host:types;
            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }",
        world: "host:types/keyvalue",
        // A read waits for the store.
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::plugin::imports::Bucket,
            "wasi:keyvalue/atomics.cas": crate::plugin::imports::Cas,
        },
    });
}

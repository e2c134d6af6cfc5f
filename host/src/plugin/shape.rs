//! The shape of a component before it is compiled: whether the component fits a slot of the pool, and which disabled
//! features it needs. This file compiles nothing and knows no engine.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::limits::{POOLED_MEMORIES_MAX, POOLED_TABLE_ELEMENTS_MAX, POOLED_TABLES_MAX};

/// Memories and tables of all modules in a component. Toolchains instantiate each module once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    memories: u32,
    tables: u32,
    /// Initial number of elements of the largest table.
    table_elements: u64,
}

impl Shape {
    /// The shape of a component. Invalid bytes have no shape; the compiler reports their error.
    pub(super) fn of(bytes: &[u8]) -> Shape {
        let mut shape = Shape::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload {
                Ok(Payload::MemorySection(memories)) => shape.memories += memories.count(),
                Ok(Payload::TableSection(tables)) => {
                    shape.tables += tables.count();
                    let elements = tables.into_iter().flatten().map(|table| table.ty.initial).max();
                    shape.table_elements = shape.table_elements.max(elements.unwrap_or_default());
                }
                _ => {}
            }
        }
        shape
    }

    /// Whether an instance fits a slot of the pool.
    pub(super) fn fits_slot(self) -> bool {
        self.memories <= POOLED_MEMORIES_MAX
            && self.tables <= POOLED_TABLES_MAX
            && self.table_elements <= POOLED_TABLE_ELEMENTS_MAX as u64
    }
}

/// A feature that is disabled in the engine, in words for the author of a component.
pub(super) struct Need {
    features: WasmFeatures,
    /// What the component is or uses.
    pub(super) what: &'static str,
    /// Advice for the author.
    pub(super) advice: &'static str,
}

/// Features that toolchains use and that are disabled: see `engine`.
const NEEDS: [Need; 4] = [
    Need {
        features: WasmFeatures::CM_ASYNC
            .union(WasmFeatures::CM_ASYNC_STACKFUL)
            .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS),
        what: "it is an async component for WASI 0.3",
        advice: "build it with synchronous exports for WASI 0.2 (componentize-qjs: --sync)",
    },
    Need {
        features: WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS),
        what: "it uses WebAssembly exceptions",
        advice: "build it without exceptions (C++: -fno-exceptions)",
    },
    Need {
        features: WasmFeatures::GC,
        what: "it uses WebAssembly garbage collection",
        advice: "build it with a toolchain that includes its own memory management",
    },
    Need {
        features: WasmFeatures::THREADS,
        what: "it uses threads or shared memory",
        advice: "build it without threads; a host runs many instances in parallel",
    },
];

/// A disabled feature that the component needs. `None` if the component is not valid even with all features.
pub(super) fn missing(bytes: &[u8]) -> Option<&'static Need> {
    let is_valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    if !is_valid(WasmFeatures::all()) {
        return None;
    }
    NEEDS.iter().find(|need| !is_valid(WasmFeatures::all().difference(need.features)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::of(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn components_as_toolchains_make_them_fit_a_slot() {
        let two =
            "(component (core module (memory 1) (table 9000 funcref)) (core module (memory 1) (table 3 funcref)))";
        assert_eq!(shape(two), Shape { memories: 2, tables: 2, table_elements: 9_000 });
        assert!(shape(two).fits_slot());
        for other in [
            "(component (core module (memory 1) (memory 1) (memory 1)))",
            "(component (core module (table 1 funcref) (table 1 funcref)) (core module (table 1 funcref) (table 1 funcref) (table 1 funcref)))",
            "(component (core module (table 20001 funcref)))",
        ] {
            assert!(!shape(other).fits_slot(), "{other}");
        }
        assert_eq!(Shape::of(b"nonsense"), Shape::default());
    }

    #[test]
    fn what_a_component_needs_is_named() {
        let what = |text: &str| missing(&wat::parse_str(text).unwrap()).map(|need| need.what);
        assert_eq!(what("(component)"), None);
        assert!(
            what("(component (core module (tag $t) (func throw $t)))").is_some_and(|what| what.contains("exceptions"))
        );
        assert!(what("(component (core module (type (struct))))").is_some_and(|what| what.contains("garbage")));
        assert!(what("(component (core module (memory 1 1 shared)))").is_some_and(|what| what.contains("threads")));
        assert!(missing(b"nonsense").is_none());
    }
}

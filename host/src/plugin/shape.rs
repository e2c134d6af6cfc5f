//! The shape of a component before it is compiled: whether the component fits a slot of the pool, and which features
//! it needs. This file compiles nothing and knows no engine.

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

/// A feature that the fast engine does not have, in words for the author of a component.
pub(super) struct Need {
    pub(super) features: WasmFeatures,
    /// What the component uses.
    pub(super) what: &'static str,
}

/// Features of the full engine: see `engine`.
static OF_FULL: [Need; 4] = [
    Need { features: WasmFeatures::CM_ASYNC, what: "async functions" },
    Need { features: WasmFeatures::EXCEPTIONS, what: "exceptions" },
    Need { features: WasmFeatures::GC, what: "garbage collection" },
    Need { features: WasmFeatures::FUNCTION_REFERENCES, what: "typed references to functions" },
];

/// Version of WASI that only the full engine has, because most of its interfaces are async.
const WASI_OF_FULL: &str = "@0.3.";
/// What a component uses that imports this version.
static WASI_0_3: Need = Need { features: WasmFeatures::empty(), what: "WASI 0.3" };

/// What is disabled in both engines, with advice.
pub(super) struct Refusal {
    pub(super) features: WasmFeatures,
    /// What the component uses.
    pub(super) what: &'static str,
    /// Advice for the author.
    pub(super) advice: &'static str,
}

/// Features that toolchains use and that are disabled: see `engine`.
const REFUSALS: [Refusal; 4] = [
    Refusal {
        features: WasmFeatures::LEGACY_EXCEPTIONS,
        what: "it uses exceptions in the form of before the standard",
        advice: "build it with those of the standard (clang: -mllvm -wasm-use-legacy-eh=false)",
    },
    Refusal {
        features: WasmFeatures::THREADS,
        what: "it uses threads or shared memory",
        advice: "build it without threads; a host runs many instances in parallel",
    },
    Refusal {
        features: WasmFeatures::CM_ASYNC_STACKFUL
            .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
            .union(WasmFeatures::CM_THREADING),
        what: "it uses async functions in a form that is not finished",
        advice: "build it with callbacks, without threads in the component",
    },
    Refusal {
        features: WasmFeatures::CM64,
        what: "it uses 64-bit memory",
        advice: "build it for 32-bit memory; an instance may have up to 4 GiB",
    },
];

/// Everything that the full engine has and the fast engine does not.
fn features_of_full() -> WasmFeatures {
    OF_FULL.iter().fold(WasmFeatures::empty(), |all, need| all.union(need.features))
}

/// Whether the sections of a component show nothing that only the full engine has. Functions are not looked into, so this takes
/// a moment even for a large component.
pub(super) fn looks_fast(bytes: &[u8]) -> bool {
    let mut validator = Validator::new_with_features(WasmFeatures::all().difference(features_of_full()));
    let mut payloads = Parser::new(0).parse_all(bytes);
    payloads.all(|payload| payload.is_ok_and(|payload| validator.payload(&payload).is_ok()))
        && !imports_wasi_of_full(bytes)
}

/// What the component uses that only the full engine has. Empty if the component is not valid even with all features.
pub(super) fn needs(bytes: &[u8]) -> Vec<&'static Need> {
    if !is_valid_without(bytes, WasmFeatures::empty()) {
        return Vec::new();
    }
    let lacking = OF_FULL.iter().filter(|need| !is_valid_without(bytes, need.features));
    lacking.chain(imports_wasi_of_full(bytes).then_some(&WASI_0_3)).collect()
}

/// A feature that the component uses and no engine has. `None` if the component is not valid even with all features.
pub(super) fn refusal(bytes: &[u8]) -> Option<&'static Refusal> {
    if !is_valid_without(bytes, WasmFeatures::empty()) {
        return None;
    }
    REFUSALS.iter().find(|refusal| !is_valid_without(bytes, refusal.features))
}

fn is_valid_without(bytes: &[u8], features: WasmFeatures) -> bool {
    Validator::new_with_features(WasmFeatures::all().difference(features)).validate_all(bytes).is_ok()
}

/// Whether the component itself, not one of its parts, imports WASI of a version that only the full engine has.
fn imports_wasi_of_full(bytes: &[u8]) -> bool {
    let mut depth = 0_u32;
    Parser::new(0).parse_all(bytes).map_while(Result::ok).any(|payload| {
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                let mut names = imports.into_iter().flatten().map(|import| import.name.name);
                return names.any(|name| name.starts_with("wasi:") && name.contains(WASI_OF_FULL));
            }
            _ => {}
        }
        false
    })
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
        for (text, expected) in [
            ("(component)", &[] as &[&str]),
            ("(component (core module (memory 1)))", &[]),
            ("(component (core func (canon task.cancel)))", &["async functions"]),
            ("(component (core module (tag $t) (func throw $t)))", &["exceptions"]),
            ("(component (core module (func try_table end)))", &["exceptions"]),
            ("(component (core module (type (struct))))", &["garbage collection"]),
            (r#"(component (import "wasi:random/random@0.3.0" (instance)))"#, &["WASI 0.3"]),
            (r#"(component (component (import "wasi:random/random@0.3.0" (instance))))"#, &[]),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            let needed: Vec<&str> = needs(&bytes).iter().map(|need| need.what).collect();
            assert_eq!(needed, expected, "{text}");
            // The exception in the function alone is found when the fast engine compiles it.
            assert_eq!(looks_fast(&bytes), expected.is_empty() || text.contains("try_table"), "{text}");
            assert!(refusal(&bytes).is_none(), "{text}");
        }
        assert!(needs(b"nonsense").is_empty());
    }

    #[test]
    fn what_no_engine_has_is_named() {
        for (text, expected) in [
            ("(component (core module (memory 1 1 shared)))", "threads"),
            ("(component (core module (func try catch_all end)))", "before the standard"),
            ("(component (core func (canon thread.index)))", "not finished"),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            assert!(refusal(&bytes).is_some_and(|refusal| refusal.what.contains(expected)), "{text}");
        }
        assert!(refusal(b"nonsense").is_none());
    }
}

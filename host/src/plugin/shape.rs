//! Which features a component needs, before it is compiled. Validating takes time that a component decides, so all of this
//! is done in the process that compiles. This file compiles nothing and knows no engine.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// A feature that the fast engine does not have, in words for the author of a component.
pub(super) struct Need {
    pub(super) features: WasmFeatures,
    /// What the component uses.
    pub(super) what: &'static str,
}

/// Features of the full engine (see `engine`), and at the end what is no feature.
pub(super) static NEEDS: [Need; 5] = [
    Need { features: WasmFeatures::CM_ASYNC, what: "async functions" },
    Need { features: WasmFeatures::EXCEPTIONS, what: "exceptions" },
    Need { features: WasmFeatures::GC, what: "garbage collection" },
    Need { features: WasmFeatures::FUNCTION_REFERENCES, what: "typed references to functions" },
    Need { features: WasmFeatures::empty(), what: "WASI 0.3" },
];

/// Version of WASI that only the full engine has, because most of its interfaces are async.
const WASI_OF_FULL: &str = "@0.3.";
/// The index of what a component uses that imports this version.
const WASI_0_3: usize = NEEDS.len() - 1;

/// What is disabled in both engines, with advice.
pub(super) struct Refusal {
    pub(super) features: WasmFeatures,
    /// What the component uses.
    pub(super) what: &'static str,
    /// Advice for the author.
    pub(super) advice: &'static str,
}

/// Features that toolchains use and that are disabled: see `engine`.
pub(super) const REFUSALS: [Refusal; 4] = [
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
    NEEDS.iter().fold(WasmFeatures::empty(), |all, need| all.union(need.features))
}

/// Whether the sections of a component show nothing that only the full engine has. Functions are not looked into, so this takes
/// a moment even for a large component.
pub(super) fn looks_fast(bytes: &[u8]) -> bool {
    let mut validator = Validator::new_with_features(WasmFeatures::all().difference(features_of_full()));
    let mut payloads = Parser::new(0).parse_all(bytes);
    payloads.all(|payload| payload.is_ok_and(|payload| validator.payload(&payload).is_ok()))
        && !imports_wasi_of_full(bytes)
}

/// What the component uses that only the full engine has, by the index of `NEEDS`. Empty if the component is not valid even
/// with all features.
pub(super) fn needs(bytes: &[u8]) -> Vec<usize> {
    if !is_valid_without(bytes, WasmFeatures::empty()) {
        return Vec::new();
    }
    let lacking = (0..WASI_0_3).filter(|index| !is_valid_without(bytes, NEEDS[*index].features));
    lacking.chain(imports_wasi_of_full(bytes).then_some(WASI_0_3)).collect()
}

/// A feature that the component uses and no engine has, by the index of `REFUSALS`. `None` if the component is not valid even
/// with all features.
pub(super) fn refusal(bytes: &[u8]) -> Option<usize> {
    if !is_valid_without(bytes, WasmFeatures::empty()) {
        return None;
    }
    REFUSALS.iter().position(|refusal| !is_valid_without(bytes, refusal.features))
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
            let needed: Vec<&str> = needs(&bytes).iter().map(|need| NEEDS[*need].what).collect();
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
            assert!(refusal(&bytes).is_some_and(|refusal| REFUSALS[refusal].what.contains(expected)), "{text}");
        }
        assert!(refusal(b"nonsense").is_none());
    }
}

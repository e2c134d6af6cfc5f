//! The language and the toolchain of a plugin, by the traces that toolchains leave in what they make. Where there is no
//! trace, or traces contradict each other, the toolchain is unknown: a wrong name is worse than none. This file compiles
//! nothing, and judges nothing.

use wasmparser::{KnownCustom, Name, Parser, Payload, ProducersSectionReader};

/// A toolchain that makes plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustc.
    Rust,
    /// QuickJS in the component, by componentize-qjs.
    QuickJs,
    /// StarlingMonkey in the component, by jco and ComponentizeJS.
    StarlingMonkey,
    /// CPython in the component, by componentize-py.
    Python,
    /// The Go project's own compiler.
    Go,
    /// TinyGo, which is another compiler for Go.
    TinyGo,
    /// clang, as in wasi-sdk.
    C,
    /// clang, as in wasi-sdk and `zig c++`.
    Cpp,
    /// clang and perhaps Zig: C by `zig cc`, or Zig with a C library.
    ZigAndC,
    /// The Zig project's compiler.
    Zig,
    /// asc.
    AssemblyScript,
}

impl Toolchain {
    /// The toolchain of a component or core module.
    pub(super) fn of(bytes: &[u8]) -> Option<Toolchain> {
        Origin::of(bytes).toolchain
    }

    /// The language, for a person.
    #[must_use]
    pub fn language(self) -> &'static str {
        match self {
            Toolchain::Rust => "Rust",
            Toolchain::QuickJs => "JavaScript or TypeScript, on QuickJS",
            Toolchain::StarlingMonkey => "JavaScript or TypeScript, on StarlingMonkey",
            Toolchain::Python => "Python",
            Toolchain::Go | Toolchain::TinyGo => "Go",
            Toolchain::C => "C",
            Toolchain::Cpp => "C++",
            Toolchain::ZigAndC => "C or Zig",
            Toolchain::Zig => "Zig",
            Toolchain::AssemblyScript => "AssemblyScript",
        }
    }

    /// The program that makes a plugin.
    #[must_use]
    pub fn tool(self) -> &'static str {
        match self {
            Toolchain::Rust => "rustc",
            Toolchain::QuickJs => "componentize-qjs",
            Toolchain::StarlingMonkey => "ComponentizeJS",
            Toolchain::Python => "componentize-py",
            Toolchain::Go => "Go cmd/compile",
            Toolchain::TinyGo => "TinyGo",
            Toolchain::C | Toolchain::Cpp | Toolchain::ZigAndC => "clang",
            Toolchain::Zig => "zig",
            Toolchain::AssemblyScript => "asc",
        }
    }
}

/// A line of the `producers` section of a component, or of a module in the component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub role: String,
    /// Name of the language or tool.
    pub name: String,
    /// Version; may be empty.
    pub version: String,
}

/// Who made a component.
#[derive(Debug, Default)]
pub(super) struct Origin {
    pub(super) toolchain: Option<Toolchain>,
    /// What the component and its author's modules say, without repetition.
    pub(super) producers: Vec<Producer>,
}

impl Origin {
    /// The origin of a component or core module. Damaged bytes say as much as can be read of them.
    pub(super) fn of(bytes: &[u8]) -> Origin {
        let parts = parts(bytes);
        let mut producers: Vec<Producer> = Vec::new();
        for producer in parts.iter().filter(|part| !part.is_adapter).flat_map(|part| &part.producers) {
            if producers.len() < PRODUCERS_MAX && !producers.contains(producer) {
                producers.push(producer.clone());
            }
        }
        Origin { toolchain: toolchain(&parts), producers }
    }
}

/// An interpreter is linked out of many modules, some of them in another language. Its name is in the names of all of
/// them.
fn toolchain(parts: &[Part<'_>]) -> Option<Toolchain> {
    if parts.iter().any(|part| part.names_qjs) {
        return Some(Toolchain::QuickJs);
    }
    if parts.iter().any(|part| part.names_py) {
        return Some(Toolchain::Python);
    }
    if parts.iter().any(|part| part.says("processed-by", Toolchain::StarlingMonkey.tool())) {
        return Some(Toolchain::StarlingMonkey);
    }
    let modules = || parts.iter().filter(|part| part.is_module && !part.is_adapter);
    // The main module is the one that exports a function of the component. A module of another kind exports none, and the
    // largest one is taken.
    let main = modules().find(|part| part.exports_function).or_else(|| modules().max_by_key(|part| part.bytes))?;
    main.toolchain()
}

/// Prefix of the names of modules that a tool added when it made a component of a core module. Such modules are WASI
/// adapters, written by other authors in another language.
const ADDED_MODULE: &str = "wit-component:";
/// An export of every WASI adapter, and of no other module.
const ADAPTER_EXPORT: &str = "cabi_import_realloc";

/// The function that implements the contract, as the bindings of `wit-bindgen c` call it.
const PROCESS_IN_C: &str = "exports_host_plugin_processor_process";
/// The beginning of its name in the exports of a core module.
const PROCESS_EXPORT: &str = "host:plugin/processor@";

/// What the DWARF of a module says of its compiler.
const DEBUG_TEXTS: &str = ".debug_str";

/// A component, or a module in it.
#[derive(Debug, Default)]
struct Part<'a> {
    is_module: bool,
    bytes: usize,
    /// Whether it comes from another author.
    is_adapter: bool,
    /// Whether a module exports a function of an interface: `host:plugin/processor@1.0.0#process`.
    exports_function: bool,
    producers: Vec<Producer>,
    names_qjs: bool,
    names_py: bool,
    names_tinygo: bool,
    /// Whether a function with the name of a module of Zig in front of its own implements the contract, or one without.
    process_in_zig: bool,
    process_in_c: bool,
    debug_texts: &'a [u8],
    data: Vec<&'a [u8]>,
}

impl Part<'_> {
    fn says(&self, role: &str, name: &str) -> bool {
        self.producers.iter().any(|producer| producer.role == role && producer.name == name)
    }

    /// A name anywhere in this part.
    fn name(&mut self, name: &str) {
        self.names_qjs |= name.contains("componentize_qjs");
        self.names_py |= name.contains("componentize_py");
        self.names_tinygo |= name.starts_with("tinygo_");
        self.is_adapter |= name.starts_with(ADDED_MODULE);
    }

    /// The name of a function.
    fn function(&mut self, name: &str) {
        self.name(name);
        let before = name.strip_suffix(PROCESS_IN_C);
        self.process_in_c |= before == Some("");
        let before = before.or_else(|| name.split_once(PROCESS_EXPORT).map(|(before, _)| before));
        self.process_in_zig |= before.is_some_and(|before| before.ends_with('.'));
    }

    /// The toolchain of a module that an author's compiler made.
    fn toolchain(&self) -> Option<Toolchain> {
        let speaks = |language: &str| self.says("language", language);
        let speaks_version_of = |language: &str| {
            let mut said = self.producers.iter().filter(|producer| producer.role == "language");
            said.any(|producer| producer.name.strip_prefix(language).is_some_and(is_number))
        };
        if self.names_tinygo || contains(self.debug_texts, b"TinyGo\0") {
            return Some(Toolchain::TinyGo);
        }
        if speaks("Go") {
            return Some(Toolchain::Go);
        }
        let has_rust = speaks("Rust") || self.says("processed-by", "wit-bindgen-rust");
        let has_cpp = speaks_version_of("C_plus_plus_");
        if has_rust {
            // The C library of Rust is written in C. A part in C++ may be the author's.
            return Some(Toolchain::Rust).filter(|_| !has_cpp);
        }
        // Zig names C99 in place of itself, for its own part of the C library as well.
        let (has_clang, has_c99) = (self.says("processed-by", "clang"), speaks("C99"));
        let has_zig = self.process_in_zig || contains(self.debug_texts, b"\0zig 0.");
        match (has_clang, has_c99) {
            (true, _) if has_cpp => Some(Toolchain::Cpp),
            (_, true) if self.process_in_zig => Some(Toolchain::Zig),
            (true, _) if self.process_in_c => Some(Toolchain::C),
            (true, true) if has_zig || self.debug_texts.is_empty() => Some(Toolchain::ZigAndC),
            (true, _) if has_c99 || speaks_version_of("C") => Some(Toolchain::C),
            (false, true) => has_zig.then_some(Toolchain::Zig),
            // The compiler leaves nothing but texts of its library, in UTF-16.
            (false, false) if self.is_only_wrapped() => {
                let text: Vec<u8> = "~lib/".encode_utf16().flat_map(u16::to_le_bytes).collect();
                self.data.iter().any(|data| contains(data, &text)).then_some(Toolchain::AssemblyScript)
            }
            _ => None,
        }
    }

    /// Whether at most the tool that made the component has said something.
    fn is_only_wrapped(&self) -> bool {
        self.producers.iter().all(|producer| producer.role == "processed-by" && producer.name == "wit-component")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Bounds for what is kept of a component, far above what toolchains make: a file may consist of nothing but empty modules.
const PARTS_MAX: usize = 10_000;
const DEPTH_MAX: usize = 100;
const PRODUCERS_MAX: usize = 100;
const DATA_MAX: usize = 1_000;

/// The component with everything in it, each part before the part that contains it.
fn parts(bytes: &[u8]) -> Vec<Part<'_>> {
    let (mut done, mut open): (Vec<Part<'_>>, Vec<Part<'_>>) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        let is_enough = done.len() >= PARTS_MAX || open.len() >= DEPTH_MAX;
        match (payload, open.last_mut()) {
            (Payload::Version { .. }, _) if is_enough => break,
            (Payload::Version { encoding, range, .. }, _) => {
                let is_module = encoding == wasmparser::Encoding::Module;
                // The offset until the end is known.
                open.push(Part { is_module, bytes: range.start, ..Part::default() });
            }
            (Payload::End(offset), Some(part)) => {
                part.bytes = offset.saturating_sub(part.bytes);
                done.extend(open.pop());
            }
            (payload, Some(part)) => read(payload, part),
            (_, None) => {}
        }
    }
    done.extend(open);
    done
}

fn read<'a>(payload: Payload<'a>, part: &mut Part<'a>) {
    match payload {
        Payload::ImportSection(imports) => {
            imports.into_imports().flatten().for_each(|import| part.name(import.module));
        }
        Payload::ExportSection(exports) => {
            for export in exports.into_iter().flatten() {
                part.name(export.name);
                part.is_adapter |= export.name == ADAPTER_EXPORT;
                part.exports_function |= export.name.contains('#');
            }
        }
        Payload::DataSection(data) => {
            let room = DATA_MAX.saturating_sub(part.data.len());
            part.data.extend(data.into_iter().flatten().map(|data| data.data).take(room));
        }
        Payload::CustomSection(section) if section.name() == DEBUG_TEXTS => part.debug_texts = section.data(),
        Payload::CustomSection(section) => match section.as_known() {
            KnownCustom::Producers(fields) => {
                let room = PRODUCERS_MAX.saturating_sub(part.producers.len());
                part.producers.extend(listed(fields).take(room));
            }
            KnownCustom::Name(names) => names.into_iter().flatten().for_each(|name| match name {
                Name::Module { name, .. } => part.name(name),
                Name::Function(names) => names.into_iter().flatten().for_each(|naming| part.function(naming.name)),
                _ => {}
            }),
            _ => {}
        },
        _ => {}
    }
}

fn listed(fields: ProducersSectionReader<'_>) -> impl Iterator<Item = Producer> {
    fields.into_iter().flatten().flat_map(|field| {
        let role = field.name;
        field.values.into_iter().flatten().map(move |value| Producer {
            role: role.into(),
            name: value.name.into(),
            version: value.version.into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn the_language_is_the_authors_and_not_that_of_an_adapter() {
        let found = origin(
            r#"(component
                (core module $main (@producers (language "Go" "1.27") (processed-by "Go cmd/compile" "1.27")))
                (core module $"wit-component:adapter:wasi_snapshot_preview1" (@producers (language "Rust" "2021")))
                (core module (func (export "cabi_import_realloc")) (@producers (language "Rust" "") (processed-by "rustc" "1")))
                (@producers (processed-by "wit-component" "0.254")))"#,
        );
        let said: Vec<(&str, &str)> = found.producers.iter().map(|said| (&*said.role, &*said.name)).collect();
        assert_eq!(said, [("language", "Go"), ("processed-by", "Go cmd/compile"), ("processed-by", "wit-component")]);
        assert_eq!(found.toolchain, Some(Toolchain::Go));
    }

    #[test]
    fn every_toolchain_is_known_by_what_it_leaves_and_nothing_else_is() {
        let clang = r#"(processed-by "clang" "22")"#;
        let said = |producers: &str, more: &str| format!("(module (@producers {producers}) {more})");
        let debug = |text: &str| format!(r#"(@custom ".debug_str" "a\00{text}\00")"#);
        let zig = debug("zig 0.17.1");
        let process = |name: &str| format!("(func $\"{name}\")");
        let (in_c, in_zig) = (process(PROCESS_IN_C), process("main.exports_host_plugin_processor_process"));
        let c = |more: &str| said(&format!(r#"(language "C11" "") (language "C99" "") {clang}"#), more);
        for (text, expected) in [
            (
                said(r#"(language "Rust" "") (language "C11" "") (processed-by "rustc" "1.9")"#, ""),
                Some(Toolchain::Rust),
            ),
            (
                said(r#"(processed-by "wit-bindgen-rust" "0.45") (processed-by "wit-bindgen-c" "1")"#, ""),
                Some(Toolchain::Rust),
            ),
            (said(&format!(r#"(language "Rust" "") (language "C_plus_plus_14" "") {clang}"#), ""), None),
            (said(&format!(r#"(language "C_plus_plus_17" "") (language "C11" "") {clang}"#), ""), Some(Toolchain::Cpp)),
            (said(&format!(r#"(language "C11" "") {clang}"#), ""), Some(Toolchain::C)),
            (c(&debug("clang version 22.1.8")), Some(Toolchain::C)),
            (c(""), Some(Toolchain::ZigAndC)),
            (c(&zig), Some(Toolchain::ZigAndC)),
            (c(&in_c), Some(Toolchain::C)),
            (c(&in_zig), Some(Toolchain::Zig)),
            (c(&process("cabi_post_host:plugin/processor@1.0.0#process")), Some(Toolchain::ZigAndC)),
            (c(&process("main.host:plugin/processor@1.0.0#process")), Some(Toolchain::Zig)),
            (said(r#"(language "C99" "")"#, &zig), Some(Toolchain::Zig)),
            (said(r#"(language "C99" "")"#, &in_zig), Some(Toolchain::Zig)),
            (said(r#"(language "C99" "")"#, ""), None),
            (said(r#"(language "C99" "")"#, &debug("TinyGo")), Some(Toolchain::TinyGo)),
            (said(r#"(language "C99" "")"#, &process("tinygo_unwind")), Some(Toolchain::TinyGo)),
            (
                said(r#"(processed-by "ComponentizeJS" "0.22") (language "Rust" "")"#, ""),
                Some(Toolchain::StarlingMonkey),
            ),
            (
                r#"(module (memory 1) (data (i32.const 0) "~\00l\00i\00b\00/\00r\00t\00"))"#.into(),
                Some(Toolchain::AssemblyScript),
            ),
            (r#"(module (memory 1) (data (i32.const 0) "~lib/rt"))"#.into(), None),
            (
                r#"(component (core module (import "componentize_qjs_runtime" "f" (func))))"#.into(),
                Some(Toolchain::QuickJs),
            ),
            (
                r#"(component (core module $componentize_py_runtime.wasm) (core module))"#.into(),
                Some(Toolchain::Python),
            ),
            ("(component)".into(), None),
            ("(module)".into(), None),
        ] {
            assert_eq!(origin(&text).toolchain, expected, "{text}");
        }
        assert_eq!(Toolchain::of(b"nonsense"), None);
    }

    #[test]
    fn the_module_with_the_exported_function_is_the_main_one() {
        let found = origin(
            r#"(component
                (core module (memory 1) (@producers (language "Rust" "")) (data (i32.const 0) "a longer module than the other"))
                (core module (func (export "host:plugin/processor@1.0.0#process")) (@producers (language "Go" ""))))"#,
        );
        assert_eq!(found.toolchain, Some(Toolchain::Go));
    }
}

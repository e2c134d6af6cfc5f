//! From the bytes of a core module to the bytes of a component. This file knows no files.

use std::collections::BTreeSet;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as PREVIEW1, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::{Resolve, UnresolvedPackageGroup};

use super::super::wit::contract::{CONTRACTS, Contract};
use super::error::{Problem, export, interface};

/// The component that has this core module inside.
pub(super) fn component(module: &[u8]) -> Result<Vec<u8>, Problem> {
    let shape = Shape::of(module)?;
    if shape.exports.iter().any(|name| name == "_start") {
        return Err(Problem::Command);
    }
    let Some(contract) = shape.contract() else {
        return Err(Problem::NoProcess { exports: shape.exports.iter().map(|name| format!("`{name}`")).collect() });
    };
    let mut module = without_debug_sections(module)?;
    if !has_types_of(contract, &module)? {
        embed(&mut module, contract)?;
    }
    let unknown = unknown_imports(&module, &shape)?;
    if !unknown.is_empty() {
        return Err(Problem::UnknownImports { imports: unknown });
    }
    let encoder = ComponentEncoder::default().validate(true).module(&module).map_err(unfit)?;
    let encoder = encoder.adapter(PREVIEW1, ADAPTER);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(unfit)
}

/// Imports and exports of a core module.
struct Shape {
    /// Module and name, in the order of the file.
    imports: Vec<(String, String)>,
    exports: Vec<String>,
}

impl Shape {
    fn of(module: &[u8]) -> Result<Shape, Problem> {
        let mut shape = Shape { imports: Vec::new(), exports: Vec::new() };
        // The parser's own error would be about a damaged file.
        if !module.starts_with(b"\0asm") {
            return Err(Problem::NotWasm);
        }
        for payload in Parser::new(0).parse_all(module) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding: Encoding::Component, .. } => return Err(Problem::Component),
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(damaged)?;
                        shape.imports.push((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        shape.exports.push(export.map_err(damaged)?.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(shape)
    }

    /// The contract whose `process` the module exports.
    fn contract(&self) -> Option<&'static Contract> {
        CONTRACTS.iter().find(|contract| self.exports.contains(&export(contract.version)))
    }
}

/// The module without DWARF, which no host reads, and which is most of a module that a C compiler has not stripped. The
/// names of functions stay, for the stack of a trap, and so does the section that names the compiler.
fn without_debug_sections(module: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut kept = Vec::with_capacity(module.len());
    // A section's contents begin behind its id and length, and end where the next section begins.
    let mut end = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(damaged)?;
        let range = match &payload {
            Payload::Version { range, .. } => range.clone(),
            payload => match payload.as_section() {
                Some((_, range)) => range,
                None => continue,
            },
        };
        let is_debug = matches!(&payload, Payload::CustomSection(custom) if custom.name().starts_with(".debug_"));
        if !is_debug {
            kept.extend_from_slice(module.get(end..range.end).unwrap_or_default());
        }
        end = range.end;
    }
    Ok(kept)
}

/// Whether the module has the types of the contract, as with an object file of a binding generator. A module may also
/// have types of other libraries only.
fn has_types_of(contract: &Contract, module: &[u8]) -> Result<bool, Problem> {
    let (_, types) = metadata::decode(module).map_err(unfit)?;
    let exports = &types.resolve.worlds[types.world].exports;
    let interface = interface(contract.version);
    Ok(exports.keys().any(|key| types.resolve.name_world_key(key) == interface))
}

/// Adds the types of the contract to a module.
fn embed(module: &mut Vec<u8>, contract: &Contract) -> Result<(), Problem> {
    let (resolve, world) = parse(contract).map_err(|error| Problem::Contract(format!("{error:#}")))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| Problem::Contract(format!("{error:#}")))
}

fn parse(contract: &Contract) -> anyhow::Result<(Resolve, wit_parser::WorldId)> {
    let mut resolve = Resolve::default();
    let mut dependencies = Vec::new();
    for dependency in contract.dependencies {
        let mut sources = wit_parser::SourceMap::new();
        for (file, text) in dependency.files {
            sources.push_str(&format!("{}/{file}", dependency.folder), *text);
        }
        dependencies.push(sources.parse().map_err(|(_, error)| error)?);
    }
    let plugin = UnresolvedPackageGroup::parse("plugin.wit", contract.plugin).map_err(|(_, error)| error)?;
    let package = resolve.push_groups(plugin, dependencies)?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    Ok((resolve, world))
}

/// Imports that neither the module's world nor the adapter has: all of them, so that an author sees the whole list.
fn unknown_imports(module: &[u8], shape: &Shape) -> Result<Vec<(String, String)>, Problem> {
    let (_, types) = metadata::decode(module).map_err(unfit)?;
    let world = &types.resolve.worlds[types.world];
    let known: BTreeSet<String> = world.imports.keys().map(|key| types.resolve.name_world_key(key)).collect();
    let preview1 = Shape::of(ADAPTER)?.exports;
    let is_known = |module: &str, name: &String| {
        // `[export]…` and `$root` are the component model's own; `cm32p2` begins the newer names of all of that.
        let canonical = module.starts_with('[') || module.starts_with('$') || module.starts_with("cm32p2");
        canonical || known.contains(module) || (module == PREVIEW1 && preview1.contains(name))
    };
    let unknown = shape.imports.iter().filter(|(module, name)| !is_known(module, name));
    Ok(unknown.cloned().collect())
}

fn damaged(error: wasmparser::BinaryReaderError) -> Problem {
    Problem::Unfit { reason: format!("the module is damaged ({error})") }
}

/// The encoder's error with its causes, on one line.
fn unfit(error: anyhow::Error) -> Problem {
    let reason = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    Problem::Unfit { reason }
}

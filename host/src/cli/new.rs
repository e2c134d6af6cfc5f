//! `host new`: writes a folder with a plugin to begin with. This command uses no Redis and compiles nothing.

mod name;
mod templates;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::ValueHint;
use clap::builder::PossibleValuesParser;

use self::name::Name;
use self::templates::{EXAMPLES, LANGUAGES, TEMPLATES, Template};
use super::{Exit, Failure, Flags, print, refuse};

/// The example to begin with when the command line names none.
const DEFAULT_EXAMPLE: &str = "enrich";

/// Configuration of a host, in the folder of a plugin that needs one.
pub(super) const CONFIGURATION: &str = "host.toml";

/// Arguments of `host new`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Write a folder with a plugin to begin with: an example in the language of your choice.

The folder holds the function, the contract between plugin and host, what the language needs around the function, \
messages with expected outcomes, a build script, settings for editors, and a README. The build script brings its own \
tools, in exactly the versions that the examples are tested with, and leaves NAME.wasm in the folder. The folder needs \
nothing else from this project.")]
#[command(after_long_help = help())]
pub(super) struct NewArgs {
    /// Name of the plugin and of its folder: lower-case letters, digits and hyphens
    #[arg(value_name = "NAME")]
    name: String,

    /// Language of the plugin [default: the language of --from]
    #[arg(long, value_name = "LANGUAGE", value_parser = PossibleValuesParser::new(LANGUAGES))]
    lang: Option<String>,

    /// Example to begin with; `host new --help` describes the examples [default: enrich]
    #[arg(long, value_name = "EXAMPLE", value_parser = PossibleValuesParser::new(EXAMPLES))]
    from: Option<String>,

    /// Folder in which the folder NAME is made [default: the current folder]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(super) fn execute(flags: &Flags, args: &NewArgs) -> Result<(), Failure> {
    refuse(flags, "new")?;
    let name = Name::read(&args.name).map_err(usage)?;
    let template = choose(args.lang.as_deref(), args.from.as_deref()).map_err(usage)?;
    let folder = args.dir.as_deref().unwrap_or(Path::new("")).join(name.as_str());
    write(template, &name, &folder)?;

    let wasm = format!("{}.wasm", name.as_str());
    let config = if template.has(CONFIGURATION) { format!(" --config {CONFIGURATION}") } else { String::new() };
    let shown = quoted(&folder.to_string_lossy());
    print(format!("cd {shown}\n./build\nhost test {wasm} cases.jsonl{config}\n").as_bytes())
}

fn usage(problem: String) -> Failure {
    Failure { exit: Exit::Usage, error: anyhow!(problem) }
}

/// The template for a language and an example.
fn choose(language: Option<&str>, example: Option<&str>) -> Result<&'static Template, String> {
    let is_in = |template: &Template| language.is_none_or(|language| template.language == language);
    let example = match (language, example) {
        (None, None) => return Err(format!("name a language with --lang, or an example with --from:\n{}", list())),
        (_, example) => example.unwrap_or(DEFAULT_EXAMPLE),
    };
    let mut found = TEMPLATES.iter().filter(|template| template.example == example && is_in(template));
    match (found.next(), found.next(), language) {
        (Some(template), None, _) => Ok(template),
        (Some(_), Some(_), _) => {
            Err(format!("the example {example} exists in several languages; name one with --lang:\n{}", list()))
        }
        (None, _, language) => {
            let language = language.unwrap_or_default();
            Err(format!("there is no example {example} in {language}; there are:\n{}", list()))
        }
    }
}

/// Every template, one line each.
fn list() -> String {
    let lines = TEMPLATES.iter().map(|Template { language, example, summary, .. }| {
        let options = format!("--lang {language} --from {example}");
        format!("  {options:<35} {summary}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn help() -> String {
    format!(
        "\
Examples to begin with:
{}

Examples:
  host new hello --lang typescript
      Write the folder hello, with the example enrich in TypeScript.
  host new cards --from redact
      Begin with redact, in the language in which that example exists.
  cd hello && ./build && host test hello.wasm cases.jsonl
      Build the plugin, and run its cases.
  host dev hello
      Do both after every change, until Ctrl-C.

Needs:
  rust        Rust; the build adds the target wasm32-wasip2 with rustup
  others      Python 3 with venv; the first build downloads the tools

Exit codes:
  0    written
  1    the folder cannot be written; nothing of it stays
  2    wrong usage, or the folder exists already",
        list()
    )
}

/// Writes the folder all at once: after an error nothing of it exists.
fn write(template: &Template, name: &Name, folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    if exists(folder).with_context(|| format!("cannot read {shown}"))? {
        return Err(usage(format!("{shown} exists already; choose another name, or another folder with --dir")));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(usage(format!("there is no folder {}; make it first, or give another --dir", parent.display())));
    }
    let written = || -> anyhow::Result<()> {
        let temporary = tempfile::Builder::new().prefix(".host-new-").tempdir_in(parent)?;
        // A folder of its own inside of the temporary one, which only its owner may enter.
        let new = temporary.path().join(name.as_str());
        for (path, content) in template.files() {
            let content = name.put_into(template.folder, &path, content);
            let file = new.join(&path);
            fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
            // As in the repository: scripts are executable, and nothing else.
            let mode = if content.starts_with(b"#!") { 0o777 } else { 0o666 };
            OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?.write_all(&content)?;
        }
        Ok(fs::rename(new, folder)?)
    };
    Ok(written().with_context(|| format!("cannot write {shown}"))?)
}

/// Whether something is in the way. An empty folder is not.
fn exists(folder: &Path) -> std::io::Result<bool> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => Ok(fs::read_dir(folder)?.next().is_some()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A path as a word of the shell.
pub(super) fn quoted(path: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+,:@".contains(char);
    let plain = path.chars().all(is_plain) && !path.starts_with('-');
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

//! The languages of the examples. In each of them tests/languages has a plugin that does what the message says.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use super::repository;

/// A language: the example to start from, and the file of that example with the function.
#[derive(Debug)]
pub struct Language {
    /// What people call it.
    pub name: &'static str,
    pub example: &'static str,
    function: &'static str,
    /// The file in tests/languages with the function of the plugin for the tests.
    source: &'static str,
}

pub const RUST: Language = Language { name: "Rust", example: "enrich", function: "src/lib.rs", source: "plugin.rs" };
pub const TYPESCRIPT: Language =
    Language { name: "TypeScript", example: "enrich-typescript", function: "src/plugin.ts", source: "plugin.ts" };
pub const PYTHON: Language =
    Language { name: "Python", example: "enrich-python", function: "plugin.py", source: "plugin.py" };
pub const GO: Language = Language { name: "Go", example: "enrich-go", function: "enrich.go", source: "plugin.go" };
pub const C: Language = Language { name: "C", example: "enrich-c", function: "enrich.c", source: "plugin.c" };

pub const LANGUAGES: [&Language; 5] = [&RUST, &TYPESCRIPT, &PYTHON, &GO, &C];

impl Language {
    /// A folder of its own, outside of the repository's examples, with another function.
    pub fn project(&self, name: &str, function: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(name);
        let example = repository().join("plugins").join(self.example);
        copy(&example, &folder, &example.join(self.function));
        let file = folder.join(self.function);
        // The time of a file that is the same says that there is nothing to build.
        if fs::read_to_string(&file).ok().as_deref() != Some(function) {
            fs::write(file, function).expect("write the function");
        }
        folder
    }

    /// The plugin that does what a message says: see tests/languages/README.md. All of them are built together, once.
    pub fn plugin(&self) -> PathBuf {
        static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            thread::scope(|scope| {
                let builds: Vec<_> = LANGUAGES.iter().map(|language| scope.spawn(|| language.built())).collect();
                builds.into_iter().map(|build| build.join().expect("a build")).collect()
            })
        });
        let at = LANGUAGES.iter().position(|known| known.name == self.name).expect("a known language");
        built[at].clone()
    }

    fn built(&self) -> PathBuf {
        let function = fs::read_to_string(repository().join("tests/languages").join(self.source));
        let folder = self.project(&format!("conformance-{}", self.example), &function.expect("read the function"));
        let (success, stderr) = build(&folder);
        assert!(success, "{stderr}");
        let files = fs::read_dir(&folder).expect("read a folder").map(|entry| entry.expect("read a folder").path());
        let components: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "wasm")).collect();
        let [component] = &components[..] else { panic!("one component, not {components:?}") };
        component.clone()
    }
}

/// A fresh copy of an example in a folder of its own.
pub fn folder_like(example: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(name);
    let _ = fs::remove_dir_all(&folder);
    copy(&repository().join("plugins").join(example), &folder, Path::new(""));
    folder
}

/// Runs the build of a plugin's folder, and gives whether it succeeded and what it wrote.
pub fn build(folder: &Path) -> (bool, String) {
    run(Command::new(folder.join("build")).env("HOST_BINARY", env!("CARGO_BIN_EXE_host")))
}

pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Copies an example as a user gets it, without the file `except`: files instead of symbolic links, and nothing that was
/// built. An exception are the crates that cargo has compiled, with their times, because to compile them again takes
/// half a minute.
pub fn copy(from: &Path, to: &Path, except: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let path = entry.expect("read a folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name of text");
        // Bindings with a digest of the contract are a part of the example.
        let is_built = [".build", "node_modules", "__pycache__"].contains(&name)
            || name.ends_with(".wasm")
            || name == "bindings" && !path.join("contract.sha256").exists();
        if is_built || path == except || name == "target" && to.join(name).exists() {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), except);
        } else {
            copy_file(&path, &to.join(name));
        }
    }
}

fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    let modified = fs::metadata(from).and_then(|facts| facts.modified()).expect("the time of a file");
    let file = File::options().append(true).open(to).expect("open a copy");
    file.set_times(FileTimes::new().set_modified(modified)).expect("set the time of a copy");
}

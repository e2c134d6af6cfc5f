//! `host new`: folders with a plugin to begin with, which are the examples of this repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::host::{Ended, Launch};
use crate::support::repository;

/// The folder with the binary under test.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_host")).parent().expect("the binary lies in a folder")
}

fn new(folder: &Path, words: &[&str]) -> Ended {
    Launch::subcommand("new").words(words).folder(folder).run()
}

#[track_caller]
fn expect_refusal(ended: &Ended, words: &[&str]) {
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
}

/// Files of a folder of the repository, as git knows them, through symbolic links.
fn kept(folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(folder).output().expect("run git");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let mut files = BTreeMap::new();
    for path in listed.split_terminator('\0').map(PathBuf::from) {
        let target = folder.join(&path).canonicalize().expect("a link has a target");
        if target.is_dir() {
            files.extend(kept(&target).into_iter().map(|(below, target)| (path.join(below), target)));
        } else {
            files.insert(path, target);
        }
    }
    files
}

/// Files of a folder.
fn written(folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut files = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).expect("read a folder") {
            let path = entry.expect("read a folder").path();
            let is_link = path.symlink_metadata().expect("look at a file").is_symlink();
            assert!(!is_link, "{} leads out of the folder", path.display());
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(folder).expect("a file of the folder").to_owned(), path);
            }
        }
    }
    files
}

/// The options for an example's folder in `plugins/`.
fn options(folder: &str) -> Vec<&str> {
    match folder.split_once('-') {
        Some((example, language)) => vec!["--lang", language, "--from", example],
        None if folder == "enrich" => vec!["--lang", "rust"],
        None => vec!["--from", folder],
    }
}

fn lines(file: &Path) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    fs::read_to_string(file).expect("read a file").lines().map(words).collect()
}

fn is_executable(file: &Path) -> bool {
    file.metadata().expect("look at a file").permissions().mode() & 0o100 != 0
}

#[test]
fn every_example_is_a_template_with_all_of_its_files() {
    const NAME: &str = "a-new-name";
    let examples = kept(&repository().join("plugins"));
    let mut folders: Vec<&str> = examples.keys().filter_map(|path| path.iter().next()?.to_str()).collect();
    folders.dedup();
    let help = Launch::subcommand("new").switch("--help").run().stdout;
    let offered = help.lines().filter(|line| line.trim_start().starts_with("--lang ") && line.contains(" --from "));
    assert_eq!(offered.count(), folders.len(), "{help}");

    for folder in folders {
        let scratch = tempfile::tempdir().unwrap();
        let ended = new(scratch.path(), &[&[NAME][..], &options(folder)].concat());
        assert_eq!(ended.code, Some(0), "{folder}: {}", ended.stderr);
        let mut expected = kept(&repository().join("plugins").join(folder));
        expected.retain(|path, _| !path.starts_with("wit/released"));
        let files = written(&scratch.path().join(NAME));
        let (names, expected_names): (Vec<_>, Vec<_>) = (files.keys().collect(), expected.keys().collect());
        assert_eq!(names, expected_names, "{folder}: the list of files in host/src/cli/new/templates.rs");

        let mut named = 0;
        for (path, file) in &files {
            let original = &expected[path];
            assert_eq!(is_executable(file), is_executable(original), "{folder}: {}", path.display());
            let (ours, theirs) = (lines(file), lines(original));
            assert_eq!(ours.len(), theirs.len(), "{folder}: {}", path.display());
            for (ours, theirs) in ours.iter().zip(theirs) {
                named += usize::from(ours.contains(NAME));
                assert_eq!(ours.replace(NAME, folder), theirs, "{folder}: {}", path.display());
            }
            let is_project =
                matches!(path.to_str(), Some("Cargo.toml" | "package.json" | "pyproject.toml" | "README.md"));
            let names_project = fs::read_to_string(file).unwrap().contains(NAME);
            let may_name = is_project || matches!(path.to_str(), Some("Cargo.lock" | "package-lock.json"));
            assert!(names_project == is_project || may_name, "{folder}: {}", path.display());
        }
        assert!(named >= 3, "{folder}: the new name is in {named} lines");
    }
}

/// Follows the three printed lines in a shell, as a user does. The tools come from the user's own cache folder.
fn expect_to_work(name: &str, options: &[&str]) {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    let (folder, target) = (scratch.join(name), scratch.join(format!("{name}-target")));
    // What cargo has compiled in an earlier run, which takes long, is kept.
    let _ = fs::rename(folder.join("target"), &target);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&scratch).unwrap();
    let ended = new(&scratch, &[&[name][..], options].concat());
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout.lines().count(), 3, "three commands and nothing else: {}", ended.stdout);
    let _ = fs::rename(&target, folder.join("target"));

    let path = std::env::var("PATH").expect("PATH is set");
    let output = Command::new("sh")
        .arg("-ec")
        .arg(&ended.stdout)
        .current_dir(&scratch)
        .env("PATH", format!("{}:{path}", programs().display()))
        .env_remove("HOST_BINARY")
        .output()
        .expect("run a shell");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{name}: {}{}", text[0], text[1]);
    assert!(text[0].contains(" passed\n"), "{}", text[0]);
    assert!(folder.join(format!("{name}.wasm")).is_file());
}

#[test]
fn a_new_plugin_in_rust_works_at_once() {
    // A crate that the plugin uses has the same name.
    expect_to_work("rand", &["--lang", "rust"]);
}

#[test]
fn a_new_plugin_in_typescript_works_at_once() {
    // So does a package that the build uses.
    expect_to_work("esbuild", &["--from", "route"]);
}

#[test]
fn a_new_plugin_in_python_works_at_once() {
    expect_to_work("json", &["--from", "redact"]);
}

#[test]
fn a_new_plugin_in_go_works_at_once() {
    expect_to_work("hello-go", &["--from", "filter"]);
}

#[test]
fn a_new_plugin_in_c_works_at_once() {
    expect_to_work("host", &["--lang", "c"]);
}

#[test]
fn a_name_that_some_language_would_refuse_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["Hello", "2nd", "a b", "a/b", "../a", ".", "hello_world", "grüezi"] {
        expect_refusal(&new(scratch.path(), &[name, "--lang", "c"]), &[name, "lower-case letters, digits and hyphens"]);
    }
    expect_refusal(&new(scratch.path(), &["hello"]), &["--lang", "--from", "hides e-mail addresses"]);
    expect_refusal(&new(scratch.path(), &["hello", "--lang", "cobol"]), &["cobol", "rust, typescript, python, go, c"]);
    let elsewhere = new(scratch.path(), &["hello", "--lang", "c", "--from", "redact"]);
    expect_refusal(&elsewhere, &["no example redact in c", "--lang python --from redact", "--lang c --from enrich"]);
    expect_refusal(&new(scratch.path(), &["hello", "--from", "enrich"]), &["several languages", "--lang go"]);
    let beside =
        Launch::bare().words(&["--consumers", "3", "new", "hello", "--lang", "c"]).folder(scratch.path()).run();
    expect_refusal(&beside, &["does not use --consumers"]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is written");
}

fn entries(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let hello = scratch.path().join("hello");
    let words = ["hello", "--lang", "c"];
    fs::write(&hello, "mine").unwrap();
    expect_refusal(&new(scratch.path(), &words), &["hello exists already", "--dir"]);
    assert_eq!(fs::read_to_string(&hello).unwrap(), "mine");
    fs::remove_file(&hello).unwrap();

    fs::create_dir(&hello).unwrap();
    fs::write(hello.join("mine"), "mine").unwrap();
    expect_refusal(&new(scratch.path(), &words), &["hello exists already"]);
    assert_eq!(written(&hello).len(), 1);
    fs::remove_file(hello.join("mine")).unwrap();
    // An empty folder is as good as none.
    assert_eq!(new(scratch.path(), &words).code, Some(0));
    assert!(hello.join("build").is_file());
    assert_eq!(entries(&scratch), ["hello"]);
}

#[test]
fn the_folder_is_made_in_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let words = ["hello", "--lang", "python", "--dir", "my plugins"];
    expect_refusal(&new(scratch.path(), &words), &["there is no folder my plugins"]);
    fs::create_dir(scratch.path().join("my plugins")).unwrap();
    let ended = new(scratch.path(), &words);
    assert_eq!(ended.stdout, "cd 'my plugins/hello'\n./build\nhost test hello.wasm cases.jsonl\n");
    assert!(scratch.path().join("my plugins/hello/plugin.py").is_file());
}

#[test]
fn nothing_half_written_stays() {
    let scratch = tempfile::tempdir().unwrap();
    // A limit for the size of a file, which the lock file of npm is beyond.
    let host = env!("CARGO_BIN_EXE_host");
    let line = format!("trap '' XFSZ; ulimit -f 16; exec {host} new hello --lang typescript");
    let ended = Launch::shell(&line).folder(scratch.path()).run();
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot write hello"), "{}", ended.stderr);
    assert_eq!(entries(&scratch), Vec::<String>::new());
}

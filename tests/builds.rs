//! The builds of plugins: what they say of a mistake, and how they install their tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::languages::host_test;
use crate::support::languages::{PYTHON, build, folder_like, run};
use crate::support::{repository, wait_until};

/// An edit of an example's file, and everything that the build says of the edited file.
struct Mistake {
    example: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// The whole output, with `…` for a part of a line that depends on the machine.
    says: &'static str,
}

const MISTAKES: [Mistake; 13] = [
    Mistake {
        example: "enrich-typescript",
        file: "src/plugin.ts",
        from: "const text = ",
        to: "const text = ; ",
        says: "src/plugin.ts(7,16): error TS1109: Expression expected.\n",
    },
    Mistake {
        example: "enrich-typescript",
        file: "src/plugin.ts",
        from: "message.body",
        to: "message.attempt",
        says: "src/plugin.ts(8,27): error TS2345: Argument of type 'number' is not assignable to parameter of type 'string'.\n",
    },
    Mistake {
        example: "enrich-typescript",
        file: "src/plugin.ts",
        from: "export const processor",
        to: "export const other",
        says: "src/host/entry.ts(4,10): error TS2305: Module '\"../plugin\"' has no exported member 'processor'.\n\
               build: src/plugin.ts has to export the plugin: export const processor = plugin(process)\n",
    },
    Mistake {
        example: "enrich-typescript",
        file: "src/plugin.ts",
        from: "\"./host\"",
        to: "\"./absent\"",
        says: "src/plugin.ts(3,71): error TS2307: Cannot find module './absent' or its corresponding type declarations.\n",
    },
    Mistake {
        example: "enrich-typescript",
        file: "src/plugin.ts",
        from: "export const processor",
        to: "const seed = Math.random();\nexport const processor",
        says: "Error: Math.random needs the host, which is not there during the build: move the call into a function\n…",
    },
    Mistake {
        example: "enrich-python",
        file: "plugin.py",
        from: "def process(",
        to: "def process((",
        says: "  File \"plugin.py\", line 8\n    def process((message: Message) -> Outcome:\n…SyntaxError: …\n",
    },
    Mistake {
        example: "enrich-python",
        file: "plugin.py",
        from: "import secrets",
        to: "import absent",
        says: "Traceback (most recent call last):\n  File \"plugin.py\", line 3, in <module>\n    import absent\n\
               ModuleNotFoundError: No module named 'absent'\n",
    },
    Mistake {
        example: "enrich-python",
        file: "plugin.py",
        from: "Processor = ",
        to: "other = ",
        says: "AttributeError: module 'plugin' has no attribute 'Processor'…\n\
               build: plugin.py has to define the plugin: Processor = plugin(process)\n",
    },
    Mistake {
        example: "enrich-go",
        file: "enrich.go",
        from: "return host.Emit(body), nil",
        to: "return host.Emit(body, nil",
        says: "# hostplugin\n./enrich.go:17:28: syntax error: unexpected newline in argument list; possibly missing comma or )\n",
    },
    Mistake {
        example: "enrich-go",
        file: "enrich.go",
        from: "func process(",
        to: "func other(",
        says: "# hostplugin\n./enrich.go:20:27: undefined: process\n",
    },
    Mistake {
        example: "enrich-c",
        file: "enrich.c",
        from: "host_json(random)));",
        to: "host_json(random)))",
        says: "enrich.c:9:…: error: expected ';' after return statement\n…1 error generated.\n",
    },
    Mistake {
        example: "enrich-c",
        file: "enrich.c",
        from: "host_json(random)",
        to: "7",
        says: "enrich.c:9:…: error: passing 'int' to parameter of incompatible type 'host_text'…\n…1 error generated.\n",
    },
    Mistake {
        example: "enrich-c",
        file: "enrich.c",
        from: "host_outcome process(",
        to: "host_outcome other(",
        says: "wasm-ld: error: …undefined symbol: process\n\
               build: a plugin has to define the function: host_outcome process(const host_message *message)\n",
    },
];

/// Whether the text is this pattern, in which `…` stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('…') {
        None => text == pattern,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(&text[at..], rest))
        }),
    }
}

#[test]
fn a_build_names_what_is_wrong_and_nothing_else() {
    for (number, Mistake { example, file, from, to, says }) in MISTAKES.iter().enumerate() {
        let name = format!("mistake-{number}");
        let folder = folder_like(example, &name);
        let source = fs::read_to_string(folder.join(file)).expect("read the function");
        assert!(source.contains(from), "{source}");
        fs::write(folder.join(file), source.replacen(from, to, 1)).expect("write the function");
        let (success, stderr) = build(&folder);
        assert!(!success, "{example}: {to}");
        assert!(is_like(&stderr, says), "{example}: {to}: {stderr}\nand not: {says}");
        let is_component = |path: PathBuf| path.extension().is_some_and(|extension| extension == "wasm");
        let left = fs::read_dir(&folder).expect("read a folder").any(|entry| is_component(entry.expect("read").path()));
        assert!(!left, "{example}: {to}");
    }
}

#[test]
fn a_plugin_in_go_without_a_function_says_how_to_set_it() {
    let folder = folder_like("enrich-go", "go-without-a-function");
    let source = fs::read_to_string(folder.join("enrich.go")).expect("read the function");
    fs::write(folder.join("enrich.go"), source.replace("host.Handle(process)", "_ = process")).expect("write it");
    let (success, stderr) = build(&folder);
    assert!(success, "{stderr}");
    let ended = host_test(&folder.join("go-without-a-function.wasm"), &["--message", r#"{"message_id":"1"}"#]);
    assert!(ended.stdout.contains("call host.Handle in an init function"), "{}{}", ended.stdout, ended.stderr);
}

/// Asks for a toolchain of the folder `sys.argv[2]`, with an installation that `sys.argv[3]` describes.
const TOOLCHAIN: &str = r#"
import os, signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
os.environ["XDG_CACHE_HOME"] = sys.argv[2]
import toolchain

def install(temporary, folder):
    with open(os.path.join(sys.argv[2], "installations"), "a") as log:
        log.write("one\n")
    (temporary / "first").touch()
    if sys.argv[3] == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "is killed but not its command":
        subprocess.Popen(["cat"], pass_fds=toolchain._held)
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "waits":
        sys.stdin.read()
    if sys.argv[3] == "fails":
        toolchain.give_up("no network")
    (temporary / "second").touch()

folder = toolchain.once("tools", sys.argv[4], install, lambda folder: folder.is_dir())
assert sorted(path.name for path in folder.iterdir()) == ["first", "second"], "it is complete"
"#;

fn toolchain(cache: &Path, installation: &str, lock: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(["-B", "-c", TOOLCHAIN])
        .arg(repository().join("plugins/enrich-python"))
        .arg(cache)
        .args([installation, lock]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The folders of tools in a cache, complete or not.
fn toolchains(cache: &Path) -> Vec<String> {
    let folders = fs::read_dir(cache.join("host/toolchains")).expect("read the tools").map(|entry| {
        let entry = entry.expect("read the tools");
        (entry.path().is_dir(), entry.file_name().into_string().expect("a name of text"))
    });
    folders.filter(|(is_folder, _)| *is_folder).map(|(_, name)| name).collect()
}

#[test]
fn builds_at_the_same_time_install_the_tools_once() {
    let cache = tempfile::tempdir().expect("make a folder");
    let builds: Vec<_> =
        (0..8).map(|_| toolchain(cache.path(), "works", "a lock").spawn().expect("start a build")).collect();
    for build in builds {
        let ended = build.wait_with_output().expect("wait for a build");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(fs::read_to_string(cache.path().join("installations")).expect("read the log"), "one\n");
    assert_eq!(toolchains(cache.path()).len(), 1);
}

#[test]
fn an_installation_that_fails_or_is_killed_leaves_no_half_of_the_tools() {
    let cache = tempfile::tempdir().expect("make a folder");
    let (success, stderr) = run(&mut toolchain(cache.path(), "fails", "a lock"));
    assert!(!success && stderr.contains("build: no network"), "{stderr}");
    assert!(toolchains(cache.path()).is_empty(), "{:?}", toolchains(cache.path()));

    let (success, _) = run(&mut toolchain(cache.path(), "is killed", "a lock"));
    assert!(!success);
    let (success, stderr) = run(&mut toolchain(cache.path(), "works", "a lock"));
    assert!(success, "{stderr}");
    let folders = toolchains(cache.path());
    assert!(folders.len() == 1 && folders[0].starts_with("tools-"), "{folders:?}");
}

/// The folders of installations that did not come to their end.
fn half_installed(cache: &Path) -> usize {
    toolchains(cache).iter().filter(|folder| folder.starts_with(".new-")).count()
}

#[test]
fn an_installation_removes_what_a_killed_one_has_left_and_nothing_else() {
    let cache = tempfile::tempdir().expect("make a folder");
    assert!(!run(&mut toolchain(cache.path(), "is killed", "a lock")).0);
    assert_eq!(half_installed(cache.path()), 1);

    // One in progress, and one whose command goes on without it.
    let mut waiting = toolchain(cache.path(), "waits", "another lock").stdin(Stdio::piped()).spawn().expect("start it");
    wait_until("an installation in progress", || half_installed(cache.path()) == 1 && installations(cache.path()) == 2);
    let mut orphan = toolchain(cache.path(), "is killed but not its command", "a third lock");
    let mut orphan = orphan.stdin(Stdio::piped()).spawn().expect("start it");
    let command = orphan.stdin.take();
    orphan.wait().expect("wait for its death");
    assert_eq!(half_installed(cache.path()), 2);

    let (success, stderr) = run(&mut toolchain(cache.path(), "works", "a lock"));
    assert!(success, "{stderr}");
    assert_eq!(half_installed(cache.path()), 2, "{:?}", toolchains(cache.path()));

    drop(waiting.stdin.take());
    assert!(waiting.wait().expect("wait for the installation").success(), "nobody has harmed it");
    drop(command);
    wait_until("the removal of all that is left", || {
        let lock = format!("lock {}", installations(cache.path()));
        assert!(run(&mut toolchain(cache.path(), "works", &lock)).0);
        half_installed(cache.path()) == 0
    });
}

fn installations(cache: &Path) -> usize {
    fs::read_to_string(cache.join("installations")).unwrap_or_default().lines().count()
}

#[test]
fn a_python_without_venv_is_told_what_to_install() {
    let folder = PYTHON.project("no-venv", "");
    let cache = tempfile::tempdir().expect("make a folder");
    // A Python without the module, as the one of Debian without the package python3-venv.
    let program = "import runpy, sys, importlib.util as u\n\
                   find = u.find_spec\n\
                   u.find_spec = lambda name, *rest: None if name == 'ensurepip' else find(name, *rest)\n\
                   sys.path.insert(0, sys.argv.pop(1))\n\
                   runpy.run_path(sys.path[0] + '/build', run_name='__main__')\n";
    let mut command = Command::new("python3");
    command.args(["-c", program, folder.to_str().expect("a path of text")]).env("XDG_CACHE_HOME", cache.path());
    let (success, stderr) = run(&mut command);
    assert!(!success);
    assert!(stderr.contains("On Debian and Ubuntu: apt-get install python3."), "{stderr}");
    assert!(toolchains(cache.path()).is_empty());
}

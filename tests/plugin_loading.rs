//! Files that are no plugin, and components that were made to harm whoever compiles them: a start refuses them, and a
//! running host goes on with the version in use, and goes on watching.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::tempdir;

use crate::support::flow::{IN_USE, REFUSED};
use crate::support::host::{Ended, Launch};
use crate::support::{BOUND, Flow, Host, Redis, Release, Signal, puppet, wait_for, wait_until};

/// What a host says when it gives a version up for a newer one.
const GAVE_UP: &str = "gave up loading a version";

/// A component of 20 bytes a level that instantiates the one inside it twice: with each level there is twice as much to
/// build.
fn nested(levels: usize) -> Vec<u8> {
    let twice = |inner: &str| format!("(component {inner} (instance (instantiate 0)) (instance (instantiate 0)))");
    let innermost = "(component (core module) (core instance (instantiate 0)))".to_owned();
    wat::parse_str((0..levels).fold(innermost, |inner, _| twice(&inner))).expect("a component")
}

/// A component with one function of nested loops, which takes the compiler far longer than its length suggests.
fn loops(depth: usize) -> Vec<u8> {
    let locals = "(local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)";
    let body = (0..depth).map(|level| {
        let (to, from) = (level % 16, (level * 7 + 3) % 16);
        format!(
            "loop local.get {from} local.get {to} i32.add local.tee {to} br_if 0 local.get {from} br_if {} ",
            level / 2
        )
    });
    let ends = "end ".repeat(depth);
    let text = format!("(component (core module (func {locals} {}{ends})))", body.collect::<String>());
    wat::parse_str(text).expect("a component")
}

fn expect_refusal(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(4), "{}{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
}

fn check(plugin: &Path) -> Launch {
    Launch::subcommand("check").words(&[plugin.to_str().expect("a path in UTF-8")])
}

/// What a process has open, by the number of the descriptor.
fn open_files(process: &str) -> BTreeMap<u32, PathBuf> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap().filter_map(|file| {
        let path = file.ok()?.path();
        Some((path.file_name()?.to_str()?.parse().ok()?, fs::read_link(&path).ok()?))
    });
    files.collect()
}

fn is_gone(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_component_that_takes_too_much_memory_to_compile_is_refused() {
    let folder = tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    fs::write(&plugin, nested(30)).unwrap();
    assert!(fs::metadata(&plugin).unwrap().len() < 2_000);
    let limited = |launch: Launch| launch.arg("--compile-memory", "512MiB");
    let words = ["plugin.wasm", "more than 512.00 MiB of memory", "--compile-memory"];
    expect_refusal(&limited(check(&plugin)).run(), &words);
    let test = Launch::subcommand("test").words(&[plugin.to_str().unwrap(), "--message", r#"{"message_id":"1"}"#]);
    expect_refusal(&limited(test).run(), &words);
    let redis = Redis::start();
    expect_refusal(&limited(Host::on(&redis)).arg("--plugin", &plugin).run(), &words);
}

#[test]
fn a_component_with_a_description_out_of_proportion_is_refused() {
    let folder = tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    fs::write(&plugin, nested(19)).unwrap();
    expect_refusal(&check(&plugin).run(), &["plugin.wasm", "nested too much"]);
}

#[test]
fn a_component_that_takes_too_long_to_compile_is_refused() {
    let folder = tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    fs::write(&plugin, loops(4_000)).unwrap();
    let ended = check(&plugin).arg("--compile-timeout", "300ms").run();
    expect_refusal(&ended, &["plugin.wasm", "longer than 300ms", "--compile-timeout"]);
}

#[test]
fn a_running_host_outlives_components_that_were_made_to_harm_the_compiler() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, |launch| launch.arg("--compile-memory", "256MiB").arg("--compile-timeout", "10s"));
    let before = flow.host.resident_bytes();
    for (number, (bytes, word)) in
        [(nested(30), "--compile-memory"), (loops(4_000), "--compile-timeout")].into_iter().enumerate()
    {
        Release::of("bomb", bytes).write_to(&flow.plugin());
        let refused = flow.wait_for_logged(REFUSED, number + 1);
        assert!(refused[number]["message"].as_str().unwrap().contains(word), "{}", refused[number]);
        wait_until("the end of the process that compiled", || flow.host.children().is_empty());
    }
    let grown = flow.host.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "the memory of the compiler is not the host's: {grown}");
    flow.change_to(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn a_newer_file_and_a_signal_end_an_attempt_that_takes_long() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    Release::of("slow", loops(4_000)).write_to(&flow.plugin());
    let first = flow.host.compiler();
    flow.host.signal(Signal::Hangup);
    flow.wait_for_logged(GAVE_UP, 1);
    wait_until("the end of the first attempt", || is_gone(first));
    // The signal has the version tried again.
    let second = wait_for("another attempt", BOUND, || {
        Some(flow.host.compiler()).filter(|id| *id != first).ok_or_else(String::new)
    });
    flow.change_to(&b);
    wait_until("the end of the second attempt", || is_gone(second));
    assert!(flow.logged(REFUSED).is_empty(), "{}", flow.host.log());
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn the_process_that_compiles_inherits_nothing_and_its_death_refuses_the_version() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, |launch| launch.env("HOST_PLUGIN_CONFIG", "secret=s3cret"));
    Release::of("slow", loops(4_000)).write_to(&flow.plugin());
    let child = flow.host.compiler();
    let read = |name: &str| fs::read_to_string(format!("/proc/{child}/{name}")).unwrap();
    // Between the start and the program of the child, it is still a copy of the host.
    wait_until("the child to run its own program", || read("cmdline").contains("--compile"));
    // Nothing but what its allocator is to do.
    assert_eq!(read("environ"), "MIMALLOC_ARENA_EAGER_COMMIT=0\0");
    assert!(!read("cmdline").contains("s3cret") && !read("cmdline").contains("redis:"), "{}", read("cmdline"));
    wait_until("the child to have limited itself", || {
        read("limits").lines().any(|line| line.starts_with("Max data size") && line.contains("2147483648"))
    });
    let open = open_files(&child.to_string());
    assert!(open.len() >= 3 && open.values().all(|file| !file.to_string_lossy().starts_with("socket:")), "{open:?}");
    // Beside its own three pipes the child has nothing that the host has, unless the host has it from these tests.
    let (of_host, of_tests) = (open_files(&flow.host.process().to_string()), open_files("self"));
    let shared = open.iter().filter(|(number, _)| **number > 2).map(|(_, file)| file);
    let inherited: Vec<&PathBuf> = shared
        .filter(|file| file.to_string_lossy() != "/dev/null" && !file.to_string_lossy().starts_with("anon_inode:"))
        .filter(|file| of_host.values().any(|of| of == *file) && !of_tests.values().any(|of| of == *file))
        .collect();
    assert!(inherited.is_empty(), "{inherited:?} in {open:?}");
    Signal::Kill.send(child);
    let refused = &flow.wait_for_logged(REFUSED, 1)[0];
    assert!(refused["message"].as_str().unwrap().contains("was killed"), "{refused}");
    flow.change_to(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn the_process_that_compiles_ends_with_its_host() {
    let redis = Redis::start();
    let folder = tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    fs::write(&plugin, loops(4_000)).unwrap();
    let launch = || Host::on(&redis).arg("--plugin", &plugin).start();
    let host = launch();
    let child = host.compiler();
    host.kill();
    wait_until("the end of the process after a kill of its host", || is_gone(child));
    let host = launch();
    let child = host.compiler();
    host.stop();
    wait_until("the end of the process after a stop of its host", || is_gone(child));
}

#[test]
fn a_host_and_a_worker_that_are_still_compiling_stop_at_once_when_asked() {
    let redis = Redis::start();
    let folder = tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    fs::write(&plugin, loops(4_000)).unwrap();
    let worker = Launch::subcommand("worker").arg("--group", "http://127.0.0.1:1").arg("--http", "127.0.0.1:0");
    let worker = worker.arg("--redis", redis.url());
    for launch in [Host::on(&redis), worker] {
        let process = launch.arg("--plugin", &plugin).start();
        let child = process.compiler();
        let ended = process.stop();
        // The compiler would go on for a minute, and then refuse the plugin.
        assert!(ended.code == Some(0) && ended.stderr.contains("stopped before the start"), "{ended:?}");
        wait_until("the end of the process that compiled", || is_gone(child));
    }
}

/// Something in the place of a plugin, and what is said about it.
fn no_plugins(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let path = |name: &str| folder.join(name);
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    // The socket stays when nobody listens any more.
    drop(UnixListener::bind(path("socket")).unwrap());
    fs::create_dir(path("folder")).unwrap();
    let mut sparse = File::create(path("sparse")).unwrap();
    sparse.write_all(b"\0asm\x0d\0\x01\0").unwrap();
    sparse.set_len(2 << 30).unwrap();
    File::create(path("zeros")).unwrap().set_len(200 << 20).unwrap();
    symlink("/dev/zero", path("device")).unwrap();
    symlink("fifo", path("link")).unwrap();
    vec![
        (path("fifo"), "a named pipe, not a file"),
        (path("link"), "a named pipe, not a file"),
        (path("socket"), "a socket, not a file"),
        (path("folder"), "a folder, not a file"),
        (path("device"), "a device, not a file"),
        (path("sparse"), "--max-plugin-bytes"),
        (path("zeros"), "not WebAssembly"),
    ]
}

#[test]
fn what_is_no_file_and_what_is_too_long_is_refused_at_a_start() {
    let redis = Redis::start();
    for (path, words) in no_plugins(&redis.folder()) {
        expect_refusal(&Host::on(&redis).arg("--plugin", &path).run(), &[path.to_str().unwrap(), words]);
        expect_refusal(&check(&path).run(), &[path.to_str().unwrap(), words]);
    }
    let ended = check(&puppet()).arg("--max-plugin-bytes", "100KiB").run();
    expect_refusal(&ended, &["the limit is 102400 (--max-plugin-bytes)"]);
}

#[test]
fn a_running_host_refuses_what_is_no_file_and_goes_on_watching() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    let folder = tempdir().unwrap();
    let wrong = no_plugins(folder.path());
    for (number, (path, words)) in wrong.iter().enumerate() {
        // A link, because a folder cannot replace a file.
        let link = flow.folder().join("link");
        symlink(path, &link).unwrap();
        fs::rename(link, flow.plugin()).unwrap();
        if number == 1 {
            // A link to the same pipe: no other problem.
            continue;
        }
        let found = wait_for(&format!("{words} to be refused"), BOUND, || {
            let refused = flow.logged(REFUSED);
            let found = refused.iter().find(|line| line["message"].as_str().unwrap().contains(words)).cloned();
            found.ok_or_else(|| flow.host.log())
        });
        assert_eq!(found["in_use"], a.digest[..12], "{found}");
    }
    flow.change_to(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn a_file_that_grows_is_refused_at_a_start_and_waited_for_by_a_running_host() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    let (folder, done) = (tempdir().unwrap(), AtomicBool::new(false));
    let growing = folder.path().join("plugin.wasm");
    let whole = fs::read(puppet()).unwrap();
    let mut files = [File::create(&growing).unwrap(), File::create(flow.plugin()).unwrap()];
    files.iter_mut().for_each(|file| file.write_all(&whole).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            for more in (0..1_000_000).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                files.iter().for_each(|file| file.set_len(whole.len() as u64 + more).unwrap());
            }
        });
        wait_for("a start that notices", BOUND, || {
            let ended = check(&growing).run();
            assert_eq!(ended.code, Some(4), "{}", ended.stderr);
            if ended.stderr.contains("changed while it was read") { Ok(()) } else { Err(ended.stderr) }
        });
        // Another file in its place is quiet.
        flow.change_to(&b);
        done.store(true, Ordering::Relaxed);
    });
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn a_plugin_that_others_may_write_to_is_warned_of_once() {
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let plugin = folder.path().join("plugin.wasm");
    fs::copy(puppet(), &plugin).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&plugin, 0o666);
    mode(folder.path(), 0o777);
    let host = Host::on(&redis).arg("--plugin", &plugin).ready(&redis, 10);
    Release::new("B").write_to(&plugin);
    host.wait_for_log(IN_USE);
    let log = host.stop().stderr;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("may change the plugin")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    for words in ["0666", "0777", "chmod o-w"] {
        assert!(warnings.iter().any(|line| line.contains(words)), "no {words} in {warnings:?}");
    }
    // In a folder with the sticky bit nobody else can replace the file.
    mode(&plugin, 0o644);
    mode(folder.path(), 0o1777);
    let quiet = check(&plugin).run();
    assert!(!quiet.stderr.contains("may change"), "{}", quiet.stderr);
}

#[test]
fn without_a_cache_nothing_is_left_behind() {
    let (redis, temporary) = (Redis::start(), tempdir().unwrap());
    let launch = Host::on(&redis).switch("--no-cache").env("TMPDIR", temporary.path());
    let host = launch.ready(&redis, 10);
    let left = || fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left(), 0);
    host.kill();
    assert_eq!(left(), 0);
    let launch = Host::on(&redis).switch("--no-cache").env("TMPDIR", temporary.path().join("missing"));
    let ended = launch.run();
    assert!(ended.code == Some(4) && ended.stderr.contains("TMPDIR"), "{ended:?}");
}

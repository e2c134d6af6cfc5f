//! Reasons why a host does not start: each has a clear error and an exit code.

use std::fs;

use redis::cmd;
use serde_json::json;

use crate::access::{documented_rule, with_user};
use crate::support::guests::{large, unknown_import, wrong_world};
use crate::support::host::{Ended, Launch};
use crate::support::records::{DEAD, HEARTBEAT, IDS, INBOX, LEASE, OUTPUT};
use crate::support::redis::free_port;
use crate::support::{Host, Publisher, Redis, message, puppet};

/// Requires this exit code and all of these words in what is written for people.
fn expect_refusal(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn an_unreachable_redis_is_named() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", &url).run();
    expect_refusal(&ended, 3, &["Redis", &format!("127.0.0.1:{port}"), "refused"]);
}

#[test]
fn a_missing_socket_is_named() {
    let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", "unix:///nowhere/redis.sock").run();
    expect_refusal(&ended, 3, &["Redis", "/nowhere/redis.sock"]);
}

#[test]
fn a_server_that_is_no_redis_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write;
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let url = format!("redis://127.0.0.1:{port}");
    let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", &url).run();
    expect_refusal(&ended, 3, &["Redis", &format!("127.0.0.1:{port}")]);
}

#[test]
fn a_server_that_never_answers_is_an_error() {
    // The system accepts connections for the server.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", format!("redis://{address}")).run();
    expect_refusal(&ended, 3, &["Redis", &address]);
}

#[test]
fn a_refused_login_is_an_error_that_keeps_the_secret() {
    let redis = Redis::start_with(&["--save", "", "--requirepass", "right"]);
    expect_refusal(&Host::on(&redis).run(), 3, &["Redis"]);
    let with = |user: &str| format!("redis://{user}@127.0.0.1:{}", redis.port());
    for user in [":s3cret-and-wrong", "nobody:s3cret-and-wrong"] {
        let ended = Host::on(&redis).arg("--redis", with(user)).run();
        expect_refusal(&ended, 3, &["Redis"]);
        assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    }
}

#[test]
fn a_key_of_the_wrong_type_is_named() {
    let names = [IDS, HEARTBEAT, OUTPUT, INBOX, DEAD, LEASE, "{messages:processed}:retry"];
    for name in names {
        let redis = Redis::start();
        redis.run::<()>(cmd("HSET").arg(name).arg("some").arg("thing"));
        let ended = Host::on(&redis).run();
        expect_refusal(&ended, 3, &[name, "hash"]);
        let kept: String = redis.run(cmd("HGET").arg(name).arg("some"));
        assert_eq!(kept, "thing", "{name} belongs to somebody else and stays as it was");
        let keys: Vec<String> = redis.run(cmd("KEYS").arg("*"));
        assert!(name == IDS || !keys.contains(&IDS.to_owned()), "a refused host leaves no ids behind: {keys:?}");
    }
}

#[test]
fn a_plugin_must_be_given() {
    let redis = Redis::start();
    let ended = Launch::bare().arg("--redis", redis.url()).run();
    expect_refusal(&ended, 2, &["--plugin"]);
}

#[test]
fn a_plugin_that_is_missing_is_named() {
    let redis = Redis::start();
    let ended = Host::on(&redis).arg("--plugin", "no/such/plugin.wasm").run();
    expect_refusal(&ended, 4, &["no/such/plugin.wasm"]);
    let ended = Host::on(&redis).arg("--plugin", redis.folder()).run();
    expect_refusal(&ended, 4, &[redis.folder().to_str().unwrap()]);
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    let redis = Redis::start();
    let file = redis.folder().join("plugin.wasm");
    let core_module = b"\0asm\x01\0\0\0";
    let truncated = fs::read(puppet()).unwrap()[..10_000].to_vec();
    let cases: [(&[u8], &str); 5] = [
        (b"", "empty"),
        (b"I am text", "not WebAssembly"),
        (&[0xff; 1000], "not WebAssembly"),
        (core_module, "core module"),
        (&truncated, "compile"),
    ];
    for (bytes, word) in cases {
        fs::write(&file, bytes).unwrap();
        let ended = Host::on(&redis).arg("--plugin", &file).run();
        expect_refusal(&ended, 4, &["plugin.wasm", word]);
    }
}

#[test]
fn a_component_of_another_world_is_refused() {
    let redis = Redis::start();
    let file = redis.folder().join("empty.wasm");
    fs::write(&file, b"\0asm\x0d\0\x01\0").unwrap();
    for plugin in [file, wrong_world()] {
        let ended = Host::on(&redis).arg("--plugin", &plugin).run();
        expect_refusal(&ended, 4, &[plugin.to_str().unwrap(), "host:plugin/processor"]);
    }
}

#[test]
fn an_import_that_the_host_does_not_have_is_named() {
    let redis = Redis::start();
    let ended = Host::on(&redis).arg("--plugin", unknown_import()).run();
    expect_refusal(&ended, 4, &["example:thing/api"]);
}

#[test]
fn a_refused_plugin_leaves_nothing_in_redis() {
    let redis = Redis::start();
    let ended = Host::on(&redis).arg("--plugin", wrong_world()).run();
    assert_eq!(ended.code, Some(4));
    assert!(redis.consumer_ids().is_empty() && redis.lease().is_none());
}

#[test]
fn a_redis_that_may_evict_claims_is_warned_about() {
    let redis = Redis::start_with(&["--save", "", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let host = Host::ready(&redis, 2);
    host.wait_for_log("allkeys-lru");
    // The host works anyway.
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
}

#[test]
fn messages_as_long_as_what_redis_keeps_for_a_subscriber_are_warned_about() {
    let words = "client-output-buffer-limit pubsub";
    let log = |redis: &Redis, launch: Launch| {
        let host = launch.consumers(1).start();
        host.wait_for_log("ready");
        assert_eq!(redis.subscribers(), 1);
        host.stop().stderr
    };
    let redis = Redis::start_with(&["--save", "", "--client-output-buffer-limit", "pubsub 2mb 1mb 60"]);
    let warned = log(&redis, Host::on(&redis));
    assert!(warned.contains(words) && warned.contains("hard_bytes=2097152"), "{warned}");
    let shorter = log(&redis, Host::on(&redis).arg("--max-message-bytes", "1000KiB"));
    assert!(!shorter.contains(words), "{shorter}");
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("client-output-buffer-limit").arg("pubsub 0 0 0"));
    assert!(!log(&redis, Host::on(&redis)).contains(words), "there is no limit");

    // As it is shipped; and a user that may not ask is told by that limit.
    let redis = Redis::start();
    assert!(!log(&redis, Host::on(&redis)).contains(words));
    let long = |launch: Launch| launch.arg("--max-message-bytes", "16MiB");
    let of_a_user = with_user(&redis, &documented_rule());
    for launch in [long(Host::on(&redis)), long(of_a_user)] {
        let warned = log(&redis, launch);
        assert!(warned.contains(words) && warned.contains("hard_bytes=33554432"), "{warned}");
    }
}

#[test]
fn an_unbounded_output_is_mentioned_at_start_and_a_full_redis_later() {
    let redis = Redis::start_with(&["--save", "", "--maxmemory", "50mb"]);
    let host = Host::ready(&redis, 2);
    host.wait_for_log("--max-output-length");
    redis.run::<usize>(cmd("SETRANGE").arg("filler").arg(42 << 20).arg("x"));
    host.wait_for_log("80");
}

#[test]
fn redis_is_found_through_the_environment() {
    let redis = Redis::start();
    let host = Launch::bare().env("REDIS_URL", redis.url()).env("HOST_PLUGIN", puppet()).ready(&redis, 3);
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    host.stop();
}

#[test]
fn a_large_plugin_is_said_to_be_compiled_and_the_start_is_counted_from_the_process() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--plugin", large()).switch("--no-cache").consumers(1).start();
    host.wait_for_log("ready");
    let log = host.log();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    assert!(place("compiling the plugin") < place("compiled the plugin"), "{log}");
    assert!(place("compiled the plugin") < place("ready"), "{log}");
    let number = |name: &str| -> u64 {
        let rest = &log[place(name) + name.len()..];
        rest.split(|char: char| !char.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(number("after_ms=") >= number("compile_ms="), "{log}");
    // A small plugin is compiled too soon for a log line.
    let small = Host::on(&redis).consumers(1).start();
    small.wait_for_log("ready");
    assert!(!small.log().contains("compiling"), "{}", small.log());
}

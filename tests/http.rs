//! The HTTP listener: who may ask, what it answers about the host's state, and what a bad client can do to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::{Host, Publisher, Redis, Signal, message, puppet, wait_until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn listening(redis: &Redis) -> Launch {
    Host::on(redis).arg("--http", "127.0.0.1:0")
}

fn status(address: SocketAddr, path: &str) -> u16 {
    Request::get(path).send(address).status
}

#[test]
fn without_an_address_nothing_listens() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 1);
    let threads = host.threads();
    assert!(!threads.iter().any(|thread| thread.name == "http"), "{threads:?}");
    assert!(!host.log().contains("listening"), "{}", host.log());
}

#[test]
fn a_host_is_healthy_and_ready_until_it_stops() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    assert!(address.ip().is_loopback());
    let health = Request::get("/health").send(address);
    assert_eq!((health.status, health.json()), (200, json!({"healthy": true})));
    wait_until("ready", || status(address, "/ready") == 200);
    assert_eq!(Request::get("/ready").send(address).json(), json!({"ready": true, "missing": [], "paused": false}));

    // A message in progress keeps the stop waiting, so that the answer of a stopping host can be seen.
    Publisher::new(&redis).publish(message("m", json!({"do": "wait", "ms": 3000})));
    wait_until("work in flight", || !redis.pending().is_empty());
    host.signal(Signal::Terminate);
    wait_until("not ready", || status(address, "/ready") == 503);
    assert_eq!(status(address, "/health"), 200);
    assert_eq!(host.ended().code, Some(0));
    assert!(TcpStream::connect(address).is_err(), "nothing listens after the end");
}

#[test]
fn a_host_that_hears_nothing_is_not_ready() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--heartbeat-interval", "200ms").arg("--heartbeat-ttl", "1s").ready(&redis, 1);
    let address = address(&host);
    wait_until("ready", || status(address, "/ready") == 200);
    redis.signal(Signal::Stop);
    wait_until("not ready", || status(address, "/ready") == 503);
    let answer = Request::get("/ready").send(address).json();
    assert!(!answer["missing"].as_array().unwrap().is_empty(), "{answer}");
    assert_eq!(status(address, "/health"), 200);
    redis.signal(Signal::Continue);
    wait_until("ready again", || status(address, "/ready") == 200);
}

#[test]
fn a_token_is_needed_for_everything_but_health() {
    let redis = Redis::start();
    let file = redis.folder().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = listening(&redis).arg("--http-token-file", &file);
    let by_variable = listening(&redis).env("HOST_HTTP_TOKEN", TOKEN);
    for launch in [by_file, by_variable] {
        let host = launch.ready(&redis, 1);
        let address = address(&host);
        assert_eq!(status(address, "/health"), 200);
        let get = || Request::get("/api/v1/status");
        let refused = get().send(address);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
        assert!(refused.json()["error"].as_str().unwrap().contains("Authorization"));
        for wrong in [TOKEN.replace('0', "1"), TOKEN[1..].to_owned(), format!("{TOKEN}0")] {
            assert_eq!(get().token(&wrong).send(address).status, 401, "{wrong}");
        }
        assert_eq!(get().header("Authorization", &format!("Basic {TOKEN}")).send(address).status, 401);
        assert_eq!(get().token(TOKEN).send(address).status, 200);
        assert_eq!(get().token(TOKEN).header("Host", "example.com").send(address).status, 200);
        let ended = host.stop();
        assert!(!ended.stderr.contains(TOKEN) && !ended.stdout.contains(TOKEN));
    }
}

#[test]
fn without_a_token_only_this_machine_is_answered() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    let named = |name: &str| Request::get("/api/v1/status").header("Host", name).send(address).status;
    for name in ["127.0.0.1", "127.0.0.1:9090", "[::1]:80", "localhost:1234", "LOCALHOST"] {
        assert_eq!(named(name), 200, "{name}");
    }
    // The name of another site, which its owner lets point to this machine.
    for name in ["example.com", "localhost.example.com", "127.0.0.1.example.com:80"] {
        assert_eq!(named(name), 403, "{name}");
    }
}

#[test]
fn settings_that_open_the_listener_to_anybody_are_refused() {
    let redis = Redis::start();
    let folder = redis.folder();
    let short = folder.join("short");
    fs::write(&short, "secret\n").unwrap();
    let taken = format!("127.0.0.1:{}", redis.port());
    let token = || listening(&redis).env("HOST_HTTP_TOKEN", TOKEN);
    for (launch, words) in [
        (listening(&redis).arg("--http", "0.0.0.0:0"), "needs a token"),
        (listening(&redis).arg("--http", "[::]:0"), "needs a token"),
        (token().arg("--http-token-file", &short), "there is one token"),
        (listening(&redis).arg("--http-token-file", &short), "at least 16 characters"),
        (listening(&redis).arg("--http-token-file", folder.join("none")), "--http-token-file"),
        (listening(&redis).env("HOST_HTTP_TOKEN", "secret"), "at least 16 characters"),
        (listening(&redis).env("HOST_HTTP_TOKEN", "***"), "is masked"),
        (listening(&redis).arg("--http", "somewhere:80"), "127.0.0.1:9090"),
        (listening(&redis).arg("--http-cert-file", &short), "needs both files"),
        (listening(&redis).arg("--http-cert-file", &short).arg("--http-key-file", &short), "has no"),
        (listening(&redis).arg("--http", taken), "choose another address"),
    ] {
        let ended = launch.arg("--plugin", puppet()).run();
        assert_eq!(ended.code, Some(2), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(words) && !ended.stderr.contains("secret"), "{words}: {}", ended.stderr);
        assert!(redis.consumer_ids().is_empty());
    }
}

#[test]
fn unknown_paths_and_methods_have_clear_answers() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    for path in ["/nothing", "/api/v1/nothing", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//"] {
        let answer = Request::get(path).send(address);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("nothing at"), "{path}");
    }
    let answer = Request::get("/health").method("DELETE").send(address);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error"], "/health does not take DELETE");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("x-frame-options", "DENY")]
    {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(answer.header("content-security-policy").unwrap().contains("default-src 'self'"));
}

#[test]
fn a_listener_outlives_bad_clients() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-http-connections", "600").ready(&redis, 1);
    let address = address(&host);
    let connect = || TcpStream::connect(address).unwrap();
    // Connections that say nothing, that stop in the middle, and that talk nonsense.
    let idle: Vec<TcpStream> = (0..500).map(|_| connect()).collect();
    let mut half = connect();
    half.write_all(b"GET /health HTTP/1.1\r\nHost: 127").unwrap();
    let nonsense: [&[u8]; 3] = [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", &[b'x'; 200_000]];
    for bytes in nonsense {
        let mut stream = connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(status(address, "/health"), 200);
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    drop((idle, half));
    assert_eq!(host.stop().code, Some(0));
}

#[test]
fn further_connections_wait_until_others_close() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-http-connections", "2").ready(&redis, 1);
    let address = address(&host);
    let first: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut third = TcpStream::connect(address).unwrap();
    third.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    // Redis answers in between, so a listener without the bound would have had its turn.
    for n in 0..20 {
        Publisher::new(&redis).publish(message(&format!("m-{n}"), json!({})));
        redis.result_of(&format!("m-{n}"));
    }
    third.set_nonblocking(true).unwrap();
    let error = third.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    third.set_nonblocking(false).unwrap();
    drop(first);
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_listener_speaks_tls() {
    let redis = Redis::start();
    let folder = redis.folder();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    let launch = listening(&redis).arg("--http-cert-file", folder.join("server.pem"));
    let host = launch.arg("--http-key-file", folder.join("server.key")).ready(&redis, 1);
    assert!(host.log().contains("https://"), "{}", host.log());
    let address = address(&host);

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), TcpStream::connect(address).unwrap());
    assert_eq!(Request::get("/health").exchange(stream).status, 200);
    // Plain HTTP gets no answer, and does no harm.
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

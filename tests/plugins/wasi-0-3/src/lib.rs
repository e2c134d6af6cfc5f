//! A plugin with an async `process`, which looks at everything that WASI 0.3 gives it. Its result says what it found. A message
//! may ask for more in its `do`:
//!
//! | `do` | what happens |
//! | --- | --- |
//! | `wait` | waits for an hour |
//! | `panic` | panics |
//! | `fail` | returns an error |

use std::cell::Cell;

wit_bindgen::generate!({ path: "wit", world: "test:wasi-zero-three/plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};
use wasi::cli::{environment, stdout};
use wasi::clocks::{monotonic_clock, system_clock};
use wasi::filesystem::preopens;
use wasi::logging::logging::{Level, log};
use wasi::random::random;

/// How long each call waits.
const WAIT_NS: u64 = 2_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

struct Plugin;

export!(Plugin);

impl Guest for Plugin {
    async fn process(message: Message) -> Result<Outcome, String> {
        let asked = |what: &str| message.body.contains(&format!("\"do\":\"{what}\""));
        let calls = CALLS.with(|calls| {
            calls.set(calls.get() + 1);
            calls.get()
        });
        log(Level::Info, "wasi-0-3", &format!("begins {}", message.id));
        let (mut stream, reader) = wit_stream::new();
        let written = stdout::write_via_stream(reader);
        stream.write_all(format!("prints {}\n", message.id).into_bytes()).await;
        drop(stream);
        let printed = written.await.is_ok();

        let start = monotonic_clock::now();
        monotonic_clock::wait_for(if asked("wait") { HOUR_NS } else { WAIT_NS }).await;
        let waited = monotonic_clock::now() - start >= WAIT_NS;
        assert!(!asked("panic"), "the plugin panics on purpose");
        if asked("fail") {
            return Err("the plugin fails on purpose".to_owned());
        }
        let found = environment::get_environment().len()
            + environment::get_arguments().len()
            + preopens::get_directories().len();
        Ok(Outcome::Emit(format!(
            r#"{{"calls":{calls},"printed":{printed},"waited":{waited},"found":{found},"seconds":{},"random":"{:x}"}}"#,
            system_clock::now().seconds,
            random::get_random_u64(),
        )))
    }
}

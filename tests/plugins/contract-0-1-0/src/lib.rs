//! A plugin of the contract 0.1.0, as somebody built it when that was the newest one: everything that the contract has,
//! asked for by a word in the message. Such a component runs on every later host, so this file changes no more.
//!
//! | property `do` | what happens |
//! | --- | --- |
//! | none | the result is the message |
//! | `emit-all` | two results, with `n` 1 and 2 |
//! | `drop` | no result |
//! | `retry` | another attempt after 1 ms; the result of the second one has its number in `attempt` |
//! | `reject` | given up with a reason |
//! | `fail` | an error |
//! | `log` | a log line, then the message |
//! | `config` | the result has the configured `greeting` |

wit_bindgen::generate!({ path: "../../../wit/released/0.1.0", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

struct Plugin;

export!(Plugin);

impl Guest for Plugin {
    fn process(message: Message) -> Result<Outcome, String> {
        let asked = |word: &str| message.body.contains(&format!("\"do\":\"{word}\""));
        if asked("emit-all") {
            return Ok(Outcome::EmitAll(vec![r#"{"n":1}"#.to_owned(), r#"{"n":2}"#.to_owned()]));
        }
        if asked("drop") {
            return Ok(Outcome::Drop);
        }
        if asked("retry") {
            let attempt = message.attempt;
            return Ok(match attempt {
                1 => Outcome::Retry(Some(1)),
                _ => Outcome::Emit(format!(r#"{{"attempt":{attempt}}}"#)),
            });
        }
        if asked("reject") {
            return Ok(Outcome::Reject(format!("{} is not wanted", message.id)));
        }
        if asked("fail") {
            return Err(format!("{} cannot be done", message.id));
        }
        if asked("log") {
            log(Level::Warn, "old", &format!("a line about {}", message.id));
        }
        if asked("config") {
            let greeting = store::get("greeting").map_err(|error| format!("{error:?}"))?;
            return Ok(Outcome::Emit(format!(r#"{{"greeting":"{}"}}"#, greeting.unwrap_or_default())));
        }
        Ok(Outcome::Emit(message.body))
    }
}

//! A plugin that begins an HTTP request when the message says `"do": "request"`, and otherwise echoes.

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "test:http/plugin",
    generate_all,
});

use exports::host::plugin::processor::{Guest, Message, Outcome};
use wasi::http::types::{Fields, OutgoingRequest};

struct Caller;

export!(Caller);

impl Guest for Caller {
    fn process(message: Message) -> Result<Outcome, String> {
        if message.body.contains("request") {
            let request = OutgoingRequest::new(Fields::new());
            let _ = request.body().and_then(|body| body.write());
        }
        Ok(Outcome::Emit(message.body))
    }
}

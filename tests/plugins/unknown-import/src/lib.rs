//! A plugin that implements the contract and also imports an interface that the host does not provide.

wit_bindgen::generate!({
    path: ["../../../wit", "wit"],
    world: "example:thing/plugin",
    generate_all,
});

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Curious;

export!(Curious);

impl Guest for Curious {
    fn process(_message: Message) -> Result<Outcome, String> {
        Ok(Outcome::Emit(format!("{{\"answer\":{}}}", example::thing::api::answer())))
    }
}

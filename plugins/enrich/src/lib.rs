//! Adds `random_property` to every message and leaves everything else unchanged.

mod enrich;

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Enrich;

impl Guest for Enrich {
    fn process(message: Message) -> Result<Outcome, String> {
        enrich::enrich(&message.body, rand::random()).map(Outcome::Emit).map_err(|error| error.to_string())
    }
}

export!(Enrich);

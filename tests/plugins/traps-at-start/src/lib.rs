//! A plugin whose instances break down before they are there.

wit_bindgen::generate!({ path: "../../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Unused;

export!(Unused);

impl Guest for Unused {
    fn process(message: Message) -> Result<Outcome, String> {
        Ok(Outcome::Emit(message.body))
    }
}

/// Called when an instance is made.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    panic!("not today");
}

//! A plugin whose instances trap during their start.

wit_bindgen::generate!({ path: "../../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Unused;

export!(Unused);

impl Guest for Unused {
    fn process(message: Message) -> Result<Outcome, String> {
        Ok(Outcome::Emit(message.body))
    }
}

/// Called when an instance is created.
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    panic!("not today");
}

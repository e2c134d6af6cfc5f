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

/// Called when an instance is made, as constructors of global objects are.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

extern "C" fn at_start() {
    panic!("not today");
}

//! A plugin whose instances compute for ever during their start.

use std::hint::black_box;

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
    let mut steps = 0_u64;
    while black_box(true) {
        steps = black_box(steps.wrapping_add(1));
    }
}

//! A plugin whose instances allocate 64 MiB of memory during their start.

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
    std::mem::forget(black_box(vec![1_u8; 64 << 20]));
}

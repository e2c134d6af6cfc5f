//! A plugin with as much code as a Python or JavaScript interpreter: the same long function, compiled once for each of
//! thousands of numbers. It replaces such a plugin where no such toolchain is installed.

use std::hint::black_box;

wit_bindgen::generate!({ path: "../../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Large;

export!(Large);

impl Guest for Large {
    fn process(message: Message) -> Result<Outcome, String> {
        // Reached through a table of functions, so that the compiler must keep all of them.
        let step = STEPS.as_flattened().as_flattened()[black_box(message.body.len()) % 2048];
        black_box(step(black_box(1)));
        Ok(Outcome::Emit(message.body))
    }
}

/// Writes a block 64 times.
macro_rules! repeat {
    ($block:block) => { repeat!(@ $block); repeat!(@ $block); repeat!(@ $block); repeat!(@ $block); };
    (@ $block:block) => { repeat!(@@ $block); repeat!(@@ $block); repeat!(@@ $block); repeat!(@@ $block); };
    (@@ $block:block) => { $block $block $block $block };
}

/// A few kilobytes of code, different for each number.
fn step<const NUMBER: u64>(seed: u64) -> u64 {
    let mut a = seed;
    let mut b = NUMBER;
    repeat!({
        a = (a ^ NUMBER).rotate_left((b & 31) as u32);
        if a > b {
            b = b.wrapping_add(a * 3)
        } else {
            b = b.wrapping_mul(NUMBER | 1)
        };
    });
    a ^ b
}

/// The function for each number of three digits in base 16, of which the arguments are the first.
macro_rules! steps {
    ($($a:literal)+) => { [$(steps!(@ $a 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),+] };
    (@ $a:literal $($b:literal)+) => { [$(steps!(@@ $a $b 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),+] };
    (@@ $a:literal $b:literal $($c:literal)+) => { [$(step::<{ $a * 256 + $b * 16 + $c }>),+] };
}

type Step = fn(u64) -> u64;

static STEPS: [[[Step; 16]; 16]; 8] = steps!(0 1 2 3 4 5 6 7);

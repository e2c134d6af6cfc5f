//! A component of another world: a command, which exports `wasi:cli/run` and no `processor`.

fn main() {
    println!("I am no plugin.");
}

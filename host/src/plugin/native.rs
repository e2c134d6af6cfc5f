//! The example `enrich` as native code: only for the benchmark that tells what Wasm costs, and in no other build.

use super::{Failure, Outcome};

#[path = "../../../plugins/enrich/src/enrich.rs"]
mod enrich;

/// What the plugin makes of a message, without a plugin. Randomness comes from a generator of the same kind as a guest's.
///
/// # Errors
/// When the message is not an object.
pub fn process(body: &str) -> Result<Outcome, Failure> {
    enrich::enrich(body, rand::random()).map(Outcome::Emit).map_err(|error| Failure::Failed(error.to_string()))
}

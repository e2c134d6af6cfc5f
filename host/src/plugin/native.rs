//! The example `enrich` as native code, only for the benchmark that measures the cost of Wasm.

use super::{Failure, Outcome};

#[path = "../../../plugins/enrich/src/enrich.rs"]
mod enrich;

/// Processes a message like the plugin `enrich`. The random generator is of the same kind as a guest's.
///
/// # Errors
/// When the message is not an object.
pub fn process(body: &str) -> Result<Outcome, Failure> {
    enrich::enrich(body, rand::random()).map(Outcome::Emit).map_err(|error| Failure::Failed(error.to_string()))
}

//! The released versions of the contract that this host runs, and a guest of any of them. A released version is never
//! removed. This file knows no file and no message.

use wasmtime::component::InstancePre;
use wasmtime::{AsContextMut, Engine};

use super::bindings::{v0_1, v1};
use super::imports::Store;
use super::outcome::{Outcome, Output};

/// The interface that a plugin exports, in the newest version.
pub(super) const EXPORT: &str = "host:plugin/processor@1.0.0";
/// The interface in any version, past and future.
const EXPORT_ANY_VERSION: &str = "host:plugin/processor@";

/// A released version of the contract together with all versions that are compatible with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contract {
    /// 1.x.y.
    V1,
    /// 0.1.x.
    V0_1,
}

impl Contract {
    /// The contract of a component with these exports: the newest one, if there are several.
    pub(super) fn among(exports: &[String]) -> Option<Contract> {
        [Contract::V1, Contract::V0_1].into_iter().find(|contract| exports.iter().any(|name| contract.fits(name)))
    }

    /// Whether an export of this name is the interface in a compatible version, as the linker counts it.
    fn fits(self, export: &str) -> bool {
        let (prefix, numbers) = match self {
            Contract::V1 => ("1.", 2),
            Contract::V0_1 => ("0.1.", 1),
        };
        let rest = export.strip_prefix(EXPORT_ANY_VERSION).and_then(|version| version.strip_prefix(prefix));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        rest.is_some_and(|rest| rest.split('.').count() == numbers && rest.split('.').all(is_number))
    }

    /// Checks the types of a component's exports.
    pub(super) fn check(self, linked: InstancePre<Store>) -> wasmtime::Result<Ready> {
        Ok(match self {
            Contract::V1 => Ready::V1(v1::V1Pre::new(linked)?),
            Contract::V0_1 => Ready::V0_1(v0_1::V01Pre::new(linked)?),
        })
    }
}

/// Whether this is the name of any version of the plugin interface.
pub(super) fn is_ours(export: &str) -> bool {
    export.starts_with(EXPORT_ANY_VERSION)
}

/// Resolved imports, and type-checked exports: everything that is done once for all instances.
#[derive(Clone)]
pub(super) enum Ready {
    V1(v1::V1Pre<Store>),
    V0_1(v0_1::V01Pre<Store>),
}

impl Ready {
    pub(super) fn engine(&self) -> &Engine {
        match self {
            Ready::V1(ready) => ready.engine(),
            Ready::V0_1(ready) => ready.engine(),
        }
    }

    pub(super) async fn instantiate(&self, store: impl AsContextMut<Data = Store>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Ready::V1(ready) => Guest::V1(ready.instantiate_async(store).await?),
            Ready::V0_1(ready) => Guest::V0_1(ready.instantiate_async(store).await?),
        })
    }
}

/// The exports of one instance.
pub(super) enum Guest {
    V1(v1::V1),
    V0_1(v0_1::V01),
}

impl From<v1::exports::host::plugin::processor::Outcome> for Outcome {
    fn from(outcome: v1::exports::host::plugin::processor::Outcome) -> Outcome {
        use v1::exports::host::plugin::processor::Outcome as Theirs;
        match outcome {
            Theirs::Emit(result) => Outcome::Emit(result),
            Theirs::EmitAll(results) => Outcome::EmitAll(
                results.into_iter().map(|result| Output { to: result.to, body: result.body }).collect(),
            ),
            Theirs::Drop => Outcome::Drop,
            Theirs::Retry(delay_ms) => Outcome::Retry(delay_ms),
            Theirs::Reject(reason) => Outcome::Reject(reason),
        }
    }
}

impl From<v0_1::exports::host::plugin::processor::Outcome> for Outcome {
    fn from(outcome: v0_1::exports::host::plugin::processor::Outcome) -> Outcome {
        use v0_1::exports::host::plugin::processor::Outcome as Theirs;
        match outcome {
            Theirs::Emit(result) => Outcome::Emit(result),
            Theirs::EmitAll(results) => Outcome::EmitAll(results.into_iter().map(Output::main).collect()),
            Theirs::Drop => Outcome::Drop,
            Theirs::Retry(delay_ms) => Outcome::Retry(delay_ms),
            Theirs::Reject(reason) => Outcome::Reject(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_is_chosen_as_the_linker_counts_versions() {
        let among = |versions: &[&str]| {
            let exports: Vec<String> =
                versions.iter().map(|version| format!("host:plugin/processor@{version}")).collect();
            Contract::among(&exports)
        };
        for version in ["1.0.0", "1.0.7", "1.12.0"] {
            assert_eq!(among(&[version]), Some(Contract::V1), "{version}");
        }
        for version in ["0.1.0", "0.1.12"] {
            assert_eq!(among(&[version]), Some(Contract::V0_1), "{version}");
        }
        for version in ["0.2.0", "2.0.0", "10.0.0", "1.0.0-draft", "1.0", "0.1.0-rc.1", "0.1.", "", "1.x.y"] {
            assert_eq!(among(&[version]), None, "{version}");
        }
        assert_eq!(among(&["0.1.0", "1.0.0"]), Some(Contract::V1));
        assert_eq!(Contract::among(&["wasi:cli/run@1.0.0".to_owned()]), None);
    }
}

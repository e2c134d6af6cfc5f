//! Every released version of the contract, as the files of `wit/`. This file knows no command.

/// A released version of the contract between host and plugin.
pub(in crate::cli) struct Contract {
    /// The version of the package `host:plugin`.
    pub version: &'static str,
    /// The package `host:plugin` itself.
    pub plugin: &'static str,
    /// The packages that the contract imports.
    pub dependencies: &'static [Dependency],
}

/// A package below `deps/`.
pub(in crate::cli) struct Dependency {
    /// Name of the folder.
    pub folder: &'static str,
    /// Names and texts of the files.
    pub files: &'static [(&'static str, &'static str)],
}

/// Name of the contract's own file.
const PLUGIN_FILE: &str = "plugin.wit";

/// A package with these files of the folder `wit/deps`.
macro_rules! dependency {
    ($folder:literal: $($file:literal),+) => {
        Dependency {
            folder: $folder,
            files: &[$(($file, include_str!(concat!("../../../../wit/deps/", $folder, "/", $file)))),+],
        }
    };
}

/// All versions, the current one first.
pub(in crate::cli) const CONTRACTS: &[Contract] = &[
    Contract {
        version: "1.0.0",
        plugin: include_str!("../../../../wit/plugin.wit"),
        dependencies: &[
            dependency!("wasi-clocks-0.2.0": "monotonic-clock.wit", "wall-clock.wit"),
            dependency!("wasi-config-0.2.0-rc.1": "store.wit", "world.wit"),
            dependency!("wasi-io-0.2.0": "poll.wit"),
            dependency!("wasi-keyvalue-0.2.0-draft2": "atomic.wit", "batch.wit", "store.wit", "world.wit"),
            dependency!("wasi-logging-0.1.0-draft": "logging.wit"),
            dependency!("wasi-random-0.2.0": "random.wit"),
        ],
    },
    Contract {
        version: "0.1.0",
        plugin: include_str!("../../../../wit/released/0.1.0/plugin.wit"),
        dependencies: &[
            dependency!("wasi-config-0.2.0-rc.1": "store.wit", "world.wit"),
            dependency!("wasi-logging-0.1.0-draft": "logging.wit"),
        ],
    },
];

impl Contract {
    /// The version that new plugins use.
    pub fn current() -> &'static Contract {
        &CONTRACTS[0]
    }

    /// The contract of this version.
    pub fn of(version: &str) -> Option<&'static Contract> {
        CONTRACTS.iter().find(|contract| contract.version == version)
    }

    /// All files, with their paths in a folder `wit`.
    pub fn files(&self) -> impl Iterator<Item = (String, &'static str)> {
        let own = (PLUGIN_FILE.to_owned(), self.plugin);
        let of_dependency = |dependency: &'static Dependency| {
            let path = |file: &str| format!("deps/{}/{file}", dependency.folder);
            dependency.files.iter().map(move |(file, text)| (path(file), *text))
        };
        std::iter::once(own).chain(self.dependencies.iter().flat_map(of_dependency))
    }
}

//! The templates of `host new`: the examples of this repository, file by file. Files that several examples share are
//! symbolic links in the repository, and files of their own in a new folder. The tests compare this list with the
//! repository, so that no file is forgotten.

use crate::cli::wit::contract::Contract;

/// Languages with templates.
pub(super) const LANGUAGES: [&str; 6] = ["rust", "typescript", "python", "go", "c", "zig"];

/// Examples that are templates.
pub(super) const EXAMPLES: [&str; 6] = ["enrich", "count", "filter", "redact", "route", "validate"];

/// Path and content of a file.
type File = (&'static str, &'static [u8]);

/// An example to begin with.
pub(super) struct Template {
    pub language: &'static str,
    pub example: &'static str,
    pub summary: &'static str,
    /// Name of the example's folder in the repository, which is also the name of the project in its files.
    pub folder: &'static str,
    /// The example's own files, and files that it shares with other examples.
    files: [&'static [File]; 3],
}

impl Template {
    /// All files with their paths in the folder of the plugin.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &'static [u8])> {
        let own = self.files.iter().copied().flatten().map(|(path, content)| ((*path).to_owned(), *content));
        let contract = Contract::current().files().map(|(path, text)| (format!("wit/{path}"), text.as_bytes()));
        own.chain(contract)
    }

    /// Whether there is a file with this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files().any(|(known, _)| known == path)
    }
}

/// Files of a folder below `plugins/`.
macro_rules! files {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../../plugins/", $folder, "/", $path)))),+]
    };
}

/// The installation of tools, for all languages but Rust.
const TOOLCHAIN: &[File] = files!("enrich-typescript":
    "toolchain.py",
);

/// What every plugin in TypeScript needs.
const TYPESCRIPT: &[File] = files!("enrich-typescript":
    "TYPESCRIPT.md", "build", "requirements.txt", "src/host/describe.ts", "src/host/entry.ts",
    "src/host/globals.ts", "src/host/index.ts", "src/host/running.ts", "src/host/wit.d.ts", "tsconfig.json",
);

/// What every plugin in Python needs.
const PYTHON: &[File] = files!("enrich-python":
    "PYTHON.md", "build", "host.py", "requirements.txt",
);

/// What every plugin in Go needs.
const GO: &[File] = files!("enrich-go":
    ".vscode/settings.json", "GO.md", "bindings/contract.sha256",
    "bindings/export_host_plugin_processor/export.go", "bindings/host_plugin_context/empty.s",
    "bindings/host_plugin_context/wit_bindings.go", "bindings/host_plugin_processor/empty.s",
    "bindings/host_plugin_processor/wit_bindings.go", "bindings/pkg/LICENSE", "bindings/pkg/go.mod",
    "bindings/pkg/wit/runtime/empty.s", "bindings/pkg/wit/runtime/runtime.go", "bindings/pkg/wit/types/option.go",
    "bindings/pkg/wit/types/result.go", "bindings/pkg/wit/types/tuple.go", "bindings/pkg/wit/types/unit.go",
    "bindings/wasi_clocks_monotonic_clock/empty.s", "bindings/wasi_clocks_monotonic_clock/wit_bindings.go",
    "bindings/wasi_clocks_wall_clock/empty.s", "bindings/wasi_clocks_wall_clock/wit_bindings.go",
    "bindings/wasi_config_store/empty.s", "bindings/wasi_config_store/wit_bindings.go",
    "bindings/wasi_io_poll/empty.s", "bindings/wasi_io_poll/wit_bindings.go",
    "bindings/wasi_logging_logging/empty.s", "bindings/wasi_logging_logging/wit_bindings.go",
    "bindings/wasi_random_random/empty.s", "bindings/wasi_random_random/wit_bindings.go",
    "bindings/wit_exports/wit_exports.go", "build", "go.mod", "host/host.go", "host/json.go", "requirements.txt",
);

/// Every template, in the order of the help.
pub(super) const TEMPLATES: &[Template] = &[
    Template {
        language: "rust",
        example: "enrich",
        summary: "adds a random property to every message",
        folder: "enrich",
        files: [
            files!("enrich":
                ".cargo/config.toml", ".gitignore", "Cargo.lock", "Cargo.toml", "README.md", "RUST.md", "build",
                "cases.jsonl", "src/enrich.rs", "src/lib.rs",
            ),
            &[],
            &[],
        ],
    },
    Template {
        language: "typescript",
        example: "enrich",
        summary: "the same in TypeScript",
        folder: "enrich-typescript",
        files: [
            files!("enrich-typescript":
                ".gitignore", "README.md", "cases.jsonl", "package-lock.json", "package.json", "src/plugin.ts",
            ),
            TYPESCRIPT,
            TOOLCHAIN,
        ],
    },
    Template {
        language: "python",
        example: "enrich",
        summary: "the same in Python",
        folder: "enrich-python",
        files: [
            files!("enrich-python":
                ".gitignore", "README.md", "cases.jsonl", "plugin.py", "pyproject.toml",
            ),
            PYTHON,
            TOOLCHAIN,
        ],
    },
    Template {
        language: "go",
        example: "enrich",
        summary: "the same in Go",
        folder: "enrich-go",
        files: [files!("enrich-go": ".gitignore", "README.md", "cases.jsonl", "enrich.go"), GO, TOOLCHAIN],
    },
    Template {
        language: "c",
        example: "enrich",
        summary: "the same in C",
        folder: "enrich-c",
        files: [
            files!("enrich-c":
                ".clangd", ".gitignore", "C.md", "README.md", "bindings/contract.sha256", "bindings/plugin.c",
                "bindings/plugin.h", "build", "cases.jsonl", "compile_flags.txt", "enrich.c", "host/host.c", "host/host.h",
                "host/json.c", "requirements.txt",
            ),
            TOOLCHAIN,
            &[],
        ],
    },
    Template {
        language: "zig",
        example: "enrich",
        summary: "the same in Zig",
        folder: "enrich-zig",
        files: [
            files!("enrich-zig":
                ".gitignore", "README.md", "ZIG.md", "bindings/contract.sha256", "bindings/plugin.c",
                "bindings/plugin.h", "build", "cases.jsonl", "enrich.zig", "host.zig", "host/host.c", "host/host.h",
                "host/json.c", "requirements.txt",
            ),
            TOOLCHAIN,
            &[],
        ],
    },
    Template {
        language: "go",
        example: "filter",
        summary: "passes on the messages that a configured rule describes",
        folder: "filter",
        files: [
            files!("filter":
                ".gitignore", "README.md", "cases.jsonl", "decimal.go", "filter.go", "host.toml", "rule.go",
            ),
            GO,
            TOOLCHAIN,
        ],
    },
    Template {
        language: "rust",
        example: "count",
        summary: "counts messages by a property, in state that all hosts share",
        folder: "count",
        files: [
            files!("count":
                ".cargo/config.toml", ".gitignore", "Cargo.lock", "Cargo.toml", "README.md", "cases.jsonl", "host.toml",
                "src/count.rs", "src/lib.rs",
            ),
            files!("enrich": "RUST.md", "build"),
            &[],
        ],
    },
    Template {
        language: "python",
        example: "redact",
        summary: "hides e-mail addresses and card numbers",
        folder: "redact",
        files: [
            files!("redact":
                ".gitignore", "README.md", "cases.jsonl", "plugin.py", "pyproject.toml",
            ),
            PYTHON,
            TOOLCHAIN,
        ],
    },
    Template {
        language: "typescript",
        example: "route",
        summary: "takes an order apart, and writes to several outputs",
        folder: "route",
        files: [
            files!("route":
                ".gitignore", "README.md", "cases.jsonl", "host.toml", "package-lock.json", "package.json",
                "src/plugin.ts",
            ),
            TYPESCRIPT,
            TOOLCHAIN,
        ],
    },
    Template {
        language: "typescript",
        example: "validate",
        summary: "rejects messages that a JSON Schema does not allow",
        folder: "validate",
        files: [
            files!("validate":
                ".gitignore", "README.md", "cases.jsonl", "package-lock.json", "package.json", "src/plugin.ts",
                "src/schema.json",
            ),
            TYPESCRIPT,
            TOOLCHAIN,
        ],
    },
];

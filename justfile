# All tasks of this repository, one recipe each. `just` alone lists them.
# Longer shell scripts are in .ci/.

# So that "$@" passes the arguments of a recipe on as they were quoted.
set positional-arguments

[private]
default:
    @just --list --unsorted

# Install the Wasm target and a Redis server, if they are missing
setup:
    @.ci/setup

# Build the release binary, target/release/host
build: setup
    cargo build --release

# Build every example into plugins/dist/<name>.wasm, or some by name; installs Python 3 with venv, if it is missing
plugins *names: build
    @.ci/setup languages
    @.ci/plugins "$@"

# The demo and the benchmark run the Rust example, and need no tools of other languages.
[private]
rust-plugins: setup
    @.ci/plugins enrich

# Build the guests that the tests use
test-plugins: setup
    cargo build --release --target wasm32-wasip2 --manifest-path tests/plugins/Cargo.toml

# Install a Chromium and axe-core for the tests of the dashboard, if they are missing
browser:
    @.ci/setup browser

# Run the demo: a private Redis, ten consumers, a publisher; `just demo --help` shows its options
[no-exit-message]
demo *args: rust-plugins build
    @target/release/host demo "$@"

# Run all tests; arguments go to `cargo test`
test *args: plugins test-plugins browser
    cargo test --release "$@"

# Run the black-box tests on Redis 8 and on Valkey 9, which it installs; arguments choose tests
test-servers *args: plugins test-plugins browser
    @.ci/test-servers "$@"

# Check format, lints, dependencies and documentation of the host and of the guests
lint: setup
    @.ci/setup languages
    @.ci/lint

# Check licences, sources and known vulnerabilities of the dependencies alone
deny:
    @.ci/setup languages
    @.ci/deny

# Check the files of host/deploy with their own linters, which it installs
lint-deploy:
    @host/deploy/check

# Generate the handbook's chapter on configuration from the table of settings
docs: build
    target/release/host config --reference > host/docs/configuration.md

# Apply the format that `lint` checks
format:
    cargo fmt
    @.ci/guests cargo fmt --all

# Measure the host in a quarter of an hour, or some parts by name; `just bench --help` lists parts and options
bench *args: rust-plugins build
    @cargo bench --quiet --bench bench -- "$@"

# Let faults happen to hosts and Redis and check that nothing is lost or twice; `just chaos --help` shows the options
[no-exit-message]
chaos *args: build test-plugins
    @cargo test --quiet --release --test chaos -- "$@"

# Remove everything that was built
clean:
    cargo clean
    @.ci/guests cargo clean
    rm -rf plugins/dist plugins/*/.build plugins/*/bindings plugins/*/node_modules plugins/*/*.wasm

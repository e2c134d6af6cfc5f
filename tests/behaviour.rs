//! Black-box tests: the real binary with real plugins against a real Redis, one subject a file.
//! All subjects are one target, so that they run in parallel and share one build of the plugins.

#![expect(unreachable_pub, reason = "a test target exports nothing")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod api;
mod author_tools;
mod bad_input;
mod builds;
mod burst;
mod componentize;
mod conformance;
mod connection_loss;
mod contract;
mod dashboard;
mod dead_letters;
mod deploy;
mod dev;
mod duplicates;
mod engines;
mod failover;
mod fleet;
mod going_bad;
mod groups;
mod hostile;
mod http;
mod ids;
mod languages;
mod large_results;
mod load;
mod metrics;
mod new;
mod output;
mod outputs;
mod plugin_configuration;
mod plugin_failures;
mod plugin_loading;
mod plugin_log;
mod plugin_needs;
mod process;
mod promise;
mod readme;
mod registry;
mod reload;
mod reload_config;
mod reload_refused;
mod reload_under_load;
mod reload_visible;
mod remote;
mod report;
mod retries;
mod rollback;
mod rolling_upgrade;
mod sandbox;
mod scaling;
mod slow_clients;
mod splits;
mod start_up;
mod status;
mod stop;
mod support;
mod systemd;
mod tail;
mod toolchains;
mod top;
mod traces;

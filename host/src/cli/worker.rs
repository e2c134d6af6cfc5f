//! `host worker`: a consumer that lives elsewhere and takes messages over HTTP. This file reads the arguments; `worker` runs.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::run::control;
use super::signals::Hangup;
use super::{Exit, Failure, Flags, load, log};
use crate::remote::address::Address;
use crate::worker::{self, Terms};

/// Arguments of `host worker`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Process messages of a group elsewhere, over HTTP.

A worker registers at a host of the group that has --http, and this host hands messages to the worker. The worker calls the \
plugin and writes the results to the group's output stream itself, so it needs the group's Redis. It subscribes to nothing and \
fetches nothing. All settings of a host apply as far as they concern the plugin, Redis, the keys, outputs, retries and HTTP; \
--consumers is the number of messages that the worker processes at a time.")]
#[command(after_long_help = "\
Examples:
  host --plugin enrich.wasm --consumers 0 --http 9090
  host worker --group http://127.0.0.1:9090 --plugin enrich.wasm --http 9091
      A host that only distributes, and a worker for it on the same machine.
  host worker --group http://group.example:9090 --plugin enrich.wasm --http 0.0.0.0:9091 \\
      --advertise worker-7.example:9091 --http-token-file token --remote-token-file token
      A worker on another machine. Both sides want a token beyond loopback.

Exit codes are those of a host.")]
pub(super) struct WorkerArgs {
    /// Listener of a host of the group
    #[arg(long, value_name = "URL", value_parser = Address::of_url)]
    group: Address,

    /// Address at which the group reaches this worker, if it is not that of --http; it is the consumer id of the results
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = Address::read)]
    advertise: Option<Address>,

    /// Time between two looks whether the group still knows this worker
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    membership_interval: Duration,

    #[command(flatten)]
    flags: Flags,
}

pub(super) fn execute(before: Flags, args: WorkerArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // First, because until then a SIGHUP ends the process.
    let hangup = {
        let _entered = runtime.enter();
        Hangup::listen()?
    };
    let given = before.overlaid_with(args.flags);
    let loaded = load(&given)?;
    let file = loaded.file.clone();
    let config = loaded.into_runnable()?;
    let Some(listening) = config.http.address else {
        let error = anyhow!("`host worker` answers over HTTP: name an address with --http, such as --http 9091");
        return Err(Failure { exit: Exit::Usage, error });
    };
    if listening.ip().is_unspecified() && args.advertise.is_none() {
        let error = anyhow!("nobody can reach {listening}: name the address of this machine with --advertise");
        return Err(Failure { exit: Exit::Usage, error });
    }
    log::start(&config)?;
    let terms = Terms { group: args.group, advertised: args.advertise, interval: args.membership_interval };
    let redis = config.redis.url.clone();
    let control = control(&given, file, (redis.clone(), redis), started);
    let result = runtime.block_on(async {
        let shutdown = hangup.shutdown(control.asked.clone())?;
        // On the heap: a running worker is large.
        Ok(Box::pin(worker::run(config, control, terms, shutdown)).await?)
    });
    runtime.shutdown_background();
    result
}

//! Settles deliveries without dead letters, retries and results for named outputs, many in one transaction. One transaction is under way at a
//! time; the next one contains all deliveries that finished meanwhile. This file does not decide what is written.

use std::sync::Arc;

use redis::RedisError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::group::Group;
use crate::redis::client::backoff::Backoff;
use crate::redis::client::connection::Connection;
use crate::redis::client::resp::Commands;
use crate::redis::store::entries::Entries;
use crate::redis::store::settle::{Held, Permit, appends, transaction};

/// Number of commands and bytes above which a transaction takes no more deliveries: one or two milliseconds of Redis's
/// time.
const COMMANDS_MAX: usize = 1_024;
const BYTES_MAX: usize = 2 << 20;

/// Settles deliveries for the consumers of a host. The settler ends with its last clone.
#[derive(Clone, Debug)]
pub struct Settler {
    group: Arc<Group>,
    length_max: u64,
    /// Bounded by the number of consumers, because each consumer waits for its answer.
    requests: mpsc::UnboundedSender<Request>,
}

#[derive(Debug)]
struct Request {
    entry_id: String,
    held: Held,
    appends: Commands,
    answer: oneshot::Sender<bool>,
}

impl Settler {
    /// Starts a settler on the consumers' threads, with its own connection, because `WATCH` belongs to a connection.
    /// `length_max` bounds the output stream.
    #[must_use]
    pub fn start(workers: &Handle, group: Arc<Group>, length_max: u64) -> Settler {
        let (requests, receiver) = mpsc::unbounded_channel();
        let clerk =
            Clerk { host_id: group.identity.host_id(), group: group.clone(), length_max, unanswered: Vec::new() };
        workers.spawn(group.supervisor.clone().once("settling", clerk.run(receiver)));
        Settler { group, length_max, requests }
    }

    /// Settles a delivery with these results for the main output, or without results. `false`: nothing was or will be written, and the
    /// caller must settle the delivery with the script.
    pub async fn settle(&self, entry_id: &str, held: &Held, results: &Entries) -> bool {
        let appends = appends(&self.group.keys, results, self.length_max);
        let (answer, answered) = oneshot::channel();
        let request = Request { entry_id: entry_id.to_owned(), held: held.clone(), appends, answer };
        // Sending and receiving fail only when the runtime ends.
        self.requests.send(request).is_ok() && answered.await.unwrap_or(false)
    }
}

/// The task behind a settler.
struct Clerk {
    group: Arc<Group>,
    length_max: u64,
    /// Host id of the deliveries that are settled now.
    host_id: Arc<str>,
    /// Requests that were sent to Redis without a reply so far.
    unanswered: Vec<Request>,
}

impl Clerk {
    /// Runs until all senders of requests are gone.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.try_run(&mut requests, &mut backoff).await {
            let wait = backoff.next_wait();
            if backoff.attempts() > 1 {
                warn!(attempts = backoff.attempts(), "could not settle deliveries, trying again: {error}");
            }
            tokio::time::sleep(wait).await;
            self.group.counters.reconnects.add(1);
        }
    }

    async fn try_run(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
        backoff: &mut Backoff,
    ) -> Result<(), RedisError> {
        let mut connection = Connection::open(&self.group.connector).await?;
        let server = connection.server().await?;
        let mut permit = self.permit(&mut connection, &server).await?;
        // The new permit makes Redis discard every transaction that the old connection has sent and Redis has not
        // executed.
        self.answer(false);
        backoff.reset();
        while let Some(batch) = collect(requests).await {
            // A host that counted as dead continues with a new id.
            if let Some(newest) = batch.last() {
                self.host_id.clone_from(&newest.held.host_id);
            }
            let good = match permit.take().filter(|permit| permit.host_id == self.host_id) {
                Some(permit) => permit,
                None => match self.permit(&mut connection, &server).await? {
                    Some(permit) => permit,
                    None => {
                        batch.into_iter().for_each(|request| request.answer(false));
                        continue;
                    }
                },
            };
            let (covered, others) = batch.into_iter().partition(|request| good.covers(&request.held));
            self.unanswered = covered;
            others.into_iter().for_each(|request: Request| request.answer(false));
            if self.unanswered.is_empty() {
                permit = Some(good);
                continue;
            }
            let appends = self.unanswered.iter().map(|request| &request.appends);
            let entry_ids = self.unanswered.iter().map(|request| &*request.entry_id);
            let commands = transaction(&self.group.keys, self.length_max, appends, entry_ids);
            let settled;
            (settled, permit) = good.settle(&mut connection, commands).await?;
            self.group.counters.trimmed.results.add(settled.unwrap_or(0));
            self.answer(settled.is_some());
        }
        Ok(())
    }

    async fn permit(&self, connection: &mut Connection, server: &Arc<str>) -> Result<Option<Permit>, RedisError> {
        Permit::make(connection, &self.group.keys, self.host_id.clone(), server.clone()).await
    }

    fn answer(&mut self, settled: bool) {
        self.unanswered.drain(..).for_each(|request| request.answer(settled));
    }
}

impl Request {
    fn answer(self, settled: bool) {
        // Sending fails if the consumer was aborted.
        let _ = self.answer.send(settled);
    }
}

/// Waits for a request and takes all other waiting requests; `None` when all senders are gone.
async fn collect(requests: &mut mpsc::UnboundedReceiver<Request>) -> Option<Vec<Request>> {
    let first = requests.recv().await?;
    let (mut commands, mut bytes) = (first.appends.len(), first.appends.bytes().len());
    let mut batch = vec![first];
    while commands < COMMANDS_MAX
        && bytes < BYTES_MAX
        && batch.len() < COMMANDS_MAX
        && let Ok(request) = requests.try_recv()
    {
        commands += request.appends.len();
        bytes += request.appends.bytes().len();
        batch.push(request);
    }
    Some(batch)
}

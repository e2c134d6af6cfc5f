//! The order in which the parts of a host stop, and what becomes of what is left.

use tracing::{error, info, warn};

use super::{FAREWELL_TIMEOUT, Running, Summary};
use crate::redis::store::inbox::{HandBack, hand_back, handed_back};
use crate::redis::store::registry::hosts_alive;

impl Running {
    /// Hands deliveries back to the group, so that other hosts take them over at once. Returns `false` on failure.
    async fn hand_back(&self, what: HandBack<'_>) -> bool {
        let (keys, host_id) = (&self.group.keys, &*self.group.identity.host_id());
        let name = &handed_back(host_id);
        let handed_back = self.farewell.repeat("hand deliveries back", move |mut connection| async move {
            hand_back(&mut connection, keys, host_id, name, what).await
        });
        match tokio::time::timeout(FAREWELL_TIMEOUT, handed_back).await {
            Ok(deliveries) => {
                if deliveries > 0 {
                    info!(deliveries, "handed deliveries back to the group");
                }
                true
            }
            Err(_) => {
                warn!("could not hand deliveries back; other hosts take them over when this host counts as dead");
                false
            }
        }
    }

    /// Stops fetching, finishes deliveries in progress, releases the intake, removes the host from the registry.
    pub(super) async fn stop(mut self) -> Summary {
        if let Some(http) = &self.http {
            http.stopping();
        }
        self.watchdog.stopping(&mut self.tasks).await;
        self.fetching.abort();
        // Wait for the end of the task, so that a delivery in its hands is in the queue and is handed back as well.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, &mut self.fetching).await;
        // Hand back queued deliveries first, so that they do not wait for the drain.
        let unbegun: Vec<String> = self.queue.close().iter().map(|work| work.delivery.entry_id.clone()).collect();
        if !unbegun.is_empty() {
            self.hand_back(HandBack::Unbegun(&unbegun)).await;
        }
        let drain_until = tokio::time::Instant::now() + self.drain_timeout;
        // What was received is appended while the consumers finish what is in work.
        let drained = async {
            let distributed = async {
                if let Some(distribution) = &mut self.distribution {
                    distribution.ended().await;
                }
            };
            let ended = async { tokio::join!(self.crew.ended(), distributed) };
            tokio::time::timeout_at(drain_until, ended).await.is_err()
        };
        let appended = tokio::time::timeout_at(drain_until, self.intake.stop());
        let (is_late, _) = tokio::join!(drained, appended);
        if is_late {
            let consumers = self.crew.unfinished();
            warn!(
                consumers,
                "consumers did not finish within the drain timeout of {:?}; handing their deliveries back",
                self.drain_timeout
            );
            // What they have done is settled. A consumer that has done nothing leaves its delivery as it is.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.crew.cut()).await;
            self.crew.abort();
            self.hand_back(HandBack::Everything).await;
        }
        let not_appended = self.not_appended().await;
        // The heartbeat must not join again what leaves here.
        self.tasks.shutdown().await;
        self.registry.leave(FAREWELL_TIMEOUT).await;
        if let Some(http) = self.http.take() {
            http.stop().await;
        }
        if let Some(exporter) = self.exporter.take() {
            exporter.stop().await;
        }
        let counters = &self.group.counters;
        let summary = Summary {
            processed: counters.processed.get(),
            dropped: counters.dropped.get(),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            shed: counters.shed.get(),
            not_appended,
        };
        let Summary { processed, dropped, duplicates, dead_letters, shed, not_appended } = summary;
        info!(processed, dropped, duplicates, dead_letters, shed, not_appended, "stopped");
        summary
    }

    /// Says what the intake leaves behind, and returns how many messages of it nobody else has heard.
    async fn not_appended(&self) -> u64 {
        let (messages, drain_timeout) = (self.intake.lag(), self.drain_timeout);
        if messages == 0 {
            return 0;
        }
        // The last heartbeat may not have seen a host that has just come.
        let keys = &self.group.keys;
        let alive = self.farewell.repeat("look for other hosts", move |mut connection| async move {
            hosts_alive(&mut connection, keys).await
        });
        let alive = tokio::time::timeout(FAREWELL_TIMEOUT, alive).await;
        let hosts = alive.map_or(self.group.pace.hosts(), |alive| alive.len() as u64);
        let others = hosts.saturating_sub(1);
        if others > 0 {
            warn!(
                messages,
                others,
                "received and not appended within {drain_timeout:?}; the other hosts append what they have heard"
            );
            return 0;
        }
        error!(
            messages,
            "received and not appended within the drain timeout of {drain_timeout:?}: Redis does not take them, there is no other \
             host, and they are lost"
        );
        messages as u64
    }
}

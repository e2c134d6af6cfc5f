//! One try of a delivery, which is settled unless the plugin's state has changed meanwhile. This file does not know whether another
//! try follows.

use std::pin::pin;
use std::time::Instant;

use tokio::sync::watch;

use super::fetch::Work;
use super::queue::Queue;
use super::{Consumer, Workplace};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::entry::Delivery;
use crate::redis::store::settle::Settling;
use crate::state;

impl Consumer {
    /// Processes the messages of a delivery, and settles what is done. `None`: nothing is done, because the host stops.
    pub(super) async fn try_on(
        &mut self,
        (workplace, connection, queue): (&Workplace, &Reconnecting<SharedConnection>, &Queue<Work>),
        work: &Work,
        (claimed, good_until): (&[usize], Instant),
        conflicts: u32,
        cut: &mut watch::Receiver<bool>,
    ) -> Option<Settling> {
        let delivery = &work.delivery;
        self.begin();
        let mut was_reading = false;
        {
            let processing = async {
                if let Some(session) = &self.session {
                    match conflicts {
                        0 => session.clear(),
                        _ => session.begin_again().await,
                    }
                }
                if conflicts < state::CONFLICTS_MAX {
                    let at_once = state::at_once(claimed.len(), conflicts);
                    was_reading = self
                        .process((workplace, connection, queue), delivery, &claimed[..at_once.min(claimed.len())])
                        .await;
                } else {
                    self.yield_to_others(workplace, delivery, claimed);
                }
            };
            let mut processing = pin!(processing);
            let mut renewing = pin!(workplace.keep_claims(connection, work, claimed, good_until));
            let mut cut = pin!(cut.wait_for(|is_cut| *is_cut));
            tokio::select! {
                biased;
                () = &mut processing => {}
                // Only what is done counts. The message in process is dropped.
                _ = &mut cut => {}
                () = &mut renewing => {}
            }
        }
        self.end();
        if was_reading {
            return Some(Settling::Conflict);
        }
        let rest = &claimed[self.progress.done..];
        if self.progress.done == 0 && !rest.is_empty() {
            // The stop hands the whole delivery back.
            return None;
        }
        self.put_back(delivery, rest);
        if let Some(session) = &self.session {
            self.settlement.effects = session.effects();
        }
        Some(self.settle(work, delivery.messages.len() - claimed.len(), rest.len()).await)
    }

    /// Lets messages wait for another attempt after too many conflicts.
    fn yield_to_others(&mut self, workplace: &Workplace, delivery: &Delivery, claimed: &[usize]) {
        if let Some(session) = &self.session {
            session.clear();
        }
        let ids = self.ids.clone();
        for index in claimed {
            let terms = workplace.terms(&ids, self.processor.version());
            self.settlement.yield_to_others(delivery, &delivery.messages[*index], terms);
            self.progress.done += 1;
        }
    }
}

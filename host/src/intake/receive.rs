//! The subscriptions: always there, always drained, and known to be alive. Usually there is one; a second one is opened beside it
//! when it has become silent. It tells the protocol what arrives and knows nothing of what becomes of it.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, trace, warn};

use super::Handover;
use crate::group::Group;
use crate::redis::RedisError;
use crate::redis::client::backoff::Backoff;
use crate::redis::client::subscription::{Beginning, Chunk, Run, Subscription, subscribe};
use crate::redis::store::buffer_limit::{BufferLimit, SETTING};
use crate::redis::store::marks::{Announcement, marks_channel};
use crate::redis::store::position::Mark;
use crate::throttle::Throttle;

/// Time between two looks at how the subscriptions are.
const LOOK: Duration = Duration::from_millis(100);

/// How long a stop waits for what was published before it.
const LAST_CHUNK_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps the subscriptions.
pub(super) struct Receiver {
    pub(super) group: Arc<Group>,
    pub(super) handover: Arc<Handover>,
    pub(super) strangers: Throttle,
}

/// A subscription and its number.
type Slot = Option<(u64, Subscription)>;

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Subscription, RedisError>> + Send + 'a>>;

impl Receiver {
    /// Subscribes, receives, and subscribes again whenever it is needed, until the host stops. Never returns.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let (mut first, mut second): (Slot, Slot) = (None, None);
        let mut opening: Option<Opening<'_>> = None;
        let mut backoff = Backoff::default();
        let mut opened = 0;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                chunk = next(&mut first) => self.received(&mut first, chunk),
                chunk = next(&mut second) => self.received(&mut second, chunk),
                subscription = next_opened(&mut opening) => {
                    opening = None;
                    match subscription {
                        Ok(subscription) => {
                            backoff.reset();
                            opened += 1;
                            self.opened(opened, subscription.beginning);
                            let slot = if first.is_none() { &mut first } else { &mut second };
                            *slot = Some((opened, subscription));
                        }
                        Err(error) if backoff.attempts() > 0 => {
                            let (channel, address) = (&self.group.keys.channel, self.group.connector.address());
                            let attempts = backoff.attempts();
                            warn!(channel, address, attempts, "could not subscribe, trying again: {error}");
                        }
                        Err(_) => {}
                    }
                }
                _ = looks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let now = Instant::now();
            let mut protocol = self.handover.protocol();
            protocol.tend(now);
            if let Some(id) = protocol.useless_subscription(now) {
                protocol.closed(id, now);
                for slot in [&mut first, &mut second] {
                    slot.take_if(|(number, _)| *number == id);
                }
                info!(subscription = id, "closed a subscription in whose place another one hears the marks");
            }
            for (id, _) in first.iter().chain(&second).filter(|(_, subscription)| subscription.is_left_behind()) {
                protocol.left_behind(*id);
            }
            if opening.is_none() && (first.is_none() || second.is_none()) && protocol.wants_subscription(now) {
                if first.iter().chain(&second).any(|(_, subscription)| subscription.is_left_behind()) {
                    info!("another server is the primary; opening a subscription there beside the present one");
                } else if first.is_some() || second.is_some() {
                    warn!(
                        channel = self.group.keys.channel,
                        "no mark arrives on the subscription; opening another one beside it"
                    );
                }
                opening = Some(Box::pin(self.open(if opened == 0 { Duration::ZERO } else { backoff.next_wait() })));
            }
        }
        drop(opening);
        self.end(first).await;
        self.end(second).await;
        self.handover.protocol().stop();
        self.handover.arrived.notify_one();
        pending().await
    }

    async fn open(&self, after: Duration) -> Result<Subscription, RedisError> {
        tokio::time::sleep(after).await;
        let marks = marks_channel(&self.group.connector, &self.group.keys);
        subscribe(&self.group.connector, self.group.keys.channel.clone(), marks).await
    }

    fn opened(&self, id: u64, beginning: Beginning) {
        self.handover.protocol().opened(id, beginning, Instant::now());
        let (channel, address) = (&self.group.keys.channel, self.group.connector.address());
        if id > 1 {
            self.group.counters.reconnects.add(1);
            info!(channel, address, subscription = id, "subscribed again");
        } else {
            info!(channel, address, "subscribed");
        }
        // The first mark tells where the subscription begins.
        self.handover.arrived.notify_one();
    }

    /// Tells what has arrived; the slot is empty when the subscription has ended.
    fn received(&self, slot: &mut Slot, chunk: Result<Chunk, RedisError>) {
        let Some((id, _)) = slot else { return };
        match chunk {
            Ok(chunk) => self.tell(*id, &chunk),
            Err(error) => {
                self.handover.protocol().closed(*id, Instant::now());
                warn!(channel = self.group.keys.channel, "the subscription ended: the connection has ended ({error})");
                *slot = None;
                self.handover.arrived.notify_one();
            }
        }
    }

    fn tell(&self, id: u64, chunk: &Chunk) {
        let now = Instant::now();
        self.handover.backlog().received(chunk.bytes());
        {
            let mut protocol = self.handover.protocol();
            for run in chunk.runs() {
                match run {
                    Run::Messages(payloads) => protocol.messages(id, payloads, now),
                    Run::Mark(text) => match Announcement::parse(text) {
                        Some(announcement) => {
                            trace!(subscription = id, mark = ?announcement.mark, "heard a mark");
                            protocol.mark(id, &announcement, now);
                            self.watch_backlog(announcement.mark, now);
                            self.handover.is_placed.send_if_modified(|is_placed| !std::mem::replace(is_placed, true));
                        }
                        None => {
                            if let Some(unlogged) = self.strangers.permit() {
                                let channel = marks_channel(&self.group.connector, &self.group.keys);
                                warn!(
                                    channel,
                                    unlogged, "somebody else publishes on the channel of the marks; it is passed over"
                                );
                            }
                        }
                    },
                }
            }
        }
        self.group.counters.received.add(chunk.messages());
        self.handover.arrived.notify_one();
    }

    /// Warns when Redis keeps so much for the subscription that it may soon cut it off.
    fn watch_backlog(&self, mark: Mark, now: Instant) {
        let mut backlog = self.handover.backlog();
        if let Some(backlog_bytes) = backlog.heard(mark, now) {
            let BufferLimit { hard_bytes, soft_bytes, soft_time } = backlog.limit();
            warn!(
                backlog_bytes,
                hard_bytes,
                soft_bytes,
                soft_seconds = soft_time.as_secs(),
                "the subscription lags, and Redis cuts a subscriber off at its limit: what it then keeps is lost to this host; raise \
                 {SETTING} pubsub on the server, or give this host more processor time"
            );
        }
    }

    /// Takes a subscription back, once everything is here that was published before.
    async fn end(&self, slot: Slot) {
        let Some((id, mut subscription)) = slot else { return };
        let last = async {
            subscription.unsubscribe().await?;
            loop {
                let chunk = subscription.next().await?;
                self.tell(id, &chunk);
                if chunk.is_last {
                    return Ok::<_, RedisError>(());
                }
            }
        };
        let _ = timeout(LAST_CHUNK_TIMEOUT, last).await;
        self.handover.protocol().closed(id, Instant::now());
    }
}

/// What arrives on a subscription, if there is one.
async fn next(slot: &mut Slot) -> Result<Chunk, RedisError> {
    match slot {
        Some((_, subscription)) => subscription.next().await,
        None => pending().await,
    }
}

async fn next_opened(opening: &mut Option<Opening<'_>>) -> Result<Subscription, RedisError> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

//! The remote consumers of this host: registration, health, and which of them are free. Redis says who belongs to whom; this
//! file keeps a copy for this host, which every interval brings up to date. It knows no messages.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::seq::IteratorRandom as _;
use redis::RedisError;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::address::Address;
use super::client::{Ask, AskError, Client};
use crate::config::{Config, RemoteConfig, Token};
use crate::group::Group;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::remote::{Registered, register, remotes, unregister};

/// Longest time for the answer to a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a registration at Redis.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a registration, or its end, did not work.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// No place is free.
    #[error("the group has no place for another consumer: --max-consumer-group-size is {0}")]
    Full(u32),
    /// The host has to register anew itself.
    #[error("this host is not registered itself at the moment; try again in a few seconds")]
    HostUnknown,
    /// Redis failed.
    #[error("Redis failed: {0}")]
    Redis(#[from] RedisError),
    /// Redis did not answer in time.
    #[error("Redis did not answer within {0:?}")]
    Late(Duration),
}

/// The remote consumers of this host.
#[derive(Debug)]
pub struct Remotes {
    group: Arc<Group>,
    connection: Reconnecting,
    config: RemoteConfig,
    /// What requests to consumers carry.
    token: Option<Token>,
    /// Time between two looks at Redis.
    look_interval: Duration,
    members: Mutex<HashMap<Address, Member>>,
    /// Changes when a member comes, goes or becomes free.
    changes: watch::Sender<()>,
    /// Tells that a health check is due before its time.
    check: Notify,
    /// Held by the one message that waits for a free consumer, so that a consumer that becomes free wakes one waiter.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Member {
    /// `None` while a message is with the consumer.
    client: Option<Client>,
    /// Time of the next health check.
    check_at: Instant,
}

/// A consumer that is in use. The drop makes it free again.
#[derive(Debug)]
pub struct Lease {
    remotes: Arc<Remotes>,
    client: Option<Client>,
    address: Address,
}

impl Lease {
    /// The consumer.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request to the consumer.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn ask(&mut self, ask: Ask<'_>, bound: Duration) -> Result<super::client::Answer, AskError> {
        let token = self.remotes.token.clone();
        let client = self.client.get_or_insert_with(|| Client::new(self.address.clone(), token));
        client.ask(ask, bound).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(member) = self.remotes.members().get_mut(&self.address) {
            member.client = self.client.take();
        }
        self.remotes.changes.send_replace(());
    }
}

impl Remotes {
    /// No consumers yet.
    #[must_use]
    pub fn new(group: Arc<Group>, config: &Config, token: Option<Token>) -> Remotes {
        Remotes {
            connection: group.connect("remote consumers"),
            group,
            config: config.remote.clone(),
            token,
            look_interval: config.registry.beat_interval,
            members: Mutex::default(),
            changes: watch::Sender::new(()),
            check: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<Address, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of remote consumers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members().len()
    }

    /// Tells of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Puts a consumer on the list, as one of this host. Its first health check follows at once.
    ///
    /// # Errors
    /// When no place is free, or Redis fails.
    pub async fn register(&self, address: &Address) -> Result<(), MembershipError> {
        let size_max = self.config.group_size_max;
        let host_id = &*self.group.identity.host_id();
        let registered = self
            .once(|mut connection| async move {
                register(&mut connection, &self.group.keys, host_id, address.as_str(), size_max).await
            })
            .await?;
        match registered {
            Registered::Done => {}
            Registered::Full => return Err(MembershipError::Full(size_max)),
            Registered::HostUnknown => return Err(MembershipError::HostUnknown),
        }
        if self.add(address) {
            info!(consumer = %address, "registered a remote consumer");
        }
        Ok(())
    }

    /// Takes a consumer off the list.
    ///
    /// # Errors
    /// When Redis fails.
    pub async fn unregister(&self, address: &Address) -> Result<(), MembershipError> {
        self.once(
            |mut connection| async move { unregister(&mut connection, &self.group.keys, address.as_str()).await },
        )
        .await?;
        if self.members().remove(address).is_some() {
            self.changes.send_replace(());
            info!(consumer = %address, "a remote consumer has left");
        }
        Ok(())
    }

    /// Whether a consumer is on the list, as one of any host.
    ///
    /// # Errors
    /// When Redis fails.
    pub async fn is_member(&self, address: &Address) -> Result<bool, MembershipError> {
        let known = self.once(|mut connection| async move { remotes(&mut connection, &self.group.keys).await }).await?;
        Ok(known.contains_key(address.as_str()))
    }

    /// Runs a command at Redis, once: whoever asks over HTTP can ask again.
    async fn once<T, F>(
        &self,
        action: impl Fn(crate::redis::client::connector::LibraryConnection) -> F,
    ) -> Result<T, MembershipError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let asked = async {
            let (connection, number) = self.connection.connection().await?;
            let result = action(connection).await;
            if result.is_err() {
                self.connection.broken(number).await;
            }
            Ok(result?)
        };
        timeout(REDIS_TIMEOUT, asked).await.unwrap_or(Err(MembershipError::Late(REDIS_TIMEOUT)))
    }

    /// Adds a member, and returns whether it is new.
    fn add(&self, address: &Address) -> bool {
        let mut members = self.members();
        let is_new = !members.contains_key(address);
        let client = || Some(Client::new(address.clone(), self.token.clone()));
        let member =
            members.entry(address.clone()).or_insert_with(|| Member { client: client(), check_at: Instant::now() });
        member.check_at = Instant::now();
        drop(members);
        self.changes.send_replace(());
        self.check.notify_one();
        is_new
    }

    /// Looks for ever at Redis for consumers that have left or moved, and at the health of those that stay.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(self.look_interval.min(self.config.health_interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut host_id = self.group.identity.host_id();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = self.group.identity.host_id();
                    if now != host_id {
                        // What belonged to the old id is off the list.
                        host_id = now;
                        self.register_again().await;
                    }
                    self.look().await;
                }
                () = self.check.notified() => {}
            }
            self.check_due();
        }
    }

    async fn register_again(&self) {
        let members: Vec<Address> = self.members().keys().cloned().collect();
        for address in members {
            if let Err(error) = self.register(&address).await {
                warn!(consumer = %address, "cannot register a remote consumer again: {error}");
            }
        }
    }

    /// Forgets consumers that belong to this host no more.
    async fn look(&self) {
        let before: Vec<Address> = self.members().keys().cloned().collect();
        if before.is_empty() {
            return;
        }
        let known = self.once(|mut connection| async move { remotes(&mut connection, &self.group.keys).await }).await;
        // When Redis fails, the copy stays as it is.
        let Ok(known) = known else { return };
        let host_id = self.group.identity.host_id();
        let gone = before.iter().filter(|address| known.get(address.as_str()).is_none_or(|host| **host != *host_id));
        let mut members = self.members();
        let removed = gone.filter(|address| members.remove(*address).is_some()).count();
        drop(members);
        if removed > 0 {
            self.changes.send_replace(());
        }
    }

    /// Starts the health checks that are due.
    fn check_due(self: &Arc<Self>) {
        let now = Instant::now();
        for (address, member) in self.members().iter_mut().filter(|(_, member)| member.check_at <= now) {
            member.check_at = now + self.config.health_interval;
            tokio::spawn(self.clone().check(address.clone()));
        }
    }

    /// Removes a consumer that does not answer.
    async fn check(self: Arc<Self>, address: Address) {
        let mut client = Client::new(address.clone(), self.token.clone());
        let problem = match client.ask(Ask { path: "/health", json: None, fence: None }, HEALTH_TIMEOUT).await {
            Ok(answer) if answer.status.is_success() => return,
            Ok(answer) => format!("{address} answers {} to GET /health", answer.status),
            Err(error) => error.to_string(),
        };
        warn!(consumer = %address, "removing a remote consumer that is not healthy: {problem}");
        if let Err(error) = self.unregister(&address).await {
            warn!(consumer = %address, "cannot remove a remote consumer; trying again at the next check: {error}");
        }
    }

    /// Lets the health of a consumer be checked at once, because a request has failed.
    pub fn suspect(&self, address: &Address) {
        if let Some(member) = self.members().get_mut(address) {
            member.check_at = Instant::now();
        }
        self.check.notify_one();
    }

    /// One of the free consumers at random that is not among those `tried`; waits until there is one. `None` when all were tried.
    pub async fn free(self: &Arc<Self>, tried: &HashSet<Address>) -> Option<Lease> {
        let _turn = if tried.is_empty() { Some(self.turn.lock().await) } else { None };
        let mut changes = self.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let mut members = self.members();
                let mut untried = members.iter_mut().filter(|(address, _)| !tried.contains(address)).peekable();
                untried.peek()?;
                let free = untried.filter(|(_, member)| member.client.is_some()).choose(&mut rand::rng());
                if let Some((address, member)) = free {
                    return Some(Lease {
                        remotes: self.clone(),
                        client: member.client.take(),
                        address: address.clone(),
                    });
                }
            }
            // The channel cannot close, because `self` owns the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until a consumer is free.
    pub async fn any_free(&self) {
        let mut changes = self.subscribe();
        // An error is impossible, because `self` owns the sender.
        let _ = changes.wait_for(|()| self.members().values().any(|member| member.client.is_some())).await;
    }
}

//! The watchdog: tells the service manager that the host is ready, how it is, and, while all of its parts go on, that it is
//! alive. Without a service manager nothing of this runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::group::Group;
use crate::parts::Parts;
use crate::service_manager::{News, ServiceManager};
use crate::version::Versions;

/// Looks at the parts within the time after which the manager takes the host for hung. The host may miss three of them: a
/// busy machine is not a hung host.
const LOOKS: u32 = 4;

/// Longest time between two looks, and with them between two updates of the status.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// The host as the service manager sees it.
#[derive(Debug)]
pub struct Watchdog {
    manager: ServiceManager,
    group: Arc<Group>,
    versions: Arc<Versions>,
    /// What runs while the host is ready.
    looking: Option<AbortHandle>,
}

impl Watchdog {
    /// A watchdog that has said nothing yet.
    #[must_use]
    pub fn new(manager: ServiceManager, group: Arc<Group>, versions: Arc<Versions>) -> Watchdog {
        Watchdog { manager, group, versions, looking: None }
    }

    /// Tells that the host is ready, and from then on whether these parts go on. The tasks must run on the thread of the
    /// heartbeat: when that thread hangs, the manager hears nothing more.
    pub fn ready(&mut self, parts: Parts, tasks: &mut JoinSet<()>) {
        if self.manager.is_there() {
            let (manager, group, versions) = (self.manager.clone(), self.group.clone(), self.versions.clone());
            let status = move || status(&group, &versions);
            let supervisor = self.group.supervisor.clone();
            let looking = async move {
                manager.tell(&[News::Ready, News::Status(&status())]).await;
                look(&manager, parts, status).await;
            };
            self.looking =
                Some(tasks.spawn(async move { supervisor.once("watchdog", looking).await.unwrap_or_default() }));
        }
    }

    /// Tells that the host stops. The parts end one after the other, so from now on only the caller's thread is watched;
    /// `--drain-timeout` bounds the rest.
    pub async fn stopping(&mut self, tasks: &mut JoinSet<()>) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        if self.manager.is_there() {
            let status = "stopping: finishing the messages in progress";
            self.manager.tell(&[News::Stopping, News::Status(status)]).await;
            let manager = self.manager.clone();
            tasks.spawn(async move { look(&manager, Parts::default(), || status.to_owned()).await });
        }
    }
}

/// Looks at the parts for ever, and tells the manager that the host is alive while all of them go on.
async fn look(manager: &ServiceManager, mut parts: Parts, status: impl Fn() -> String) {
    let time = manager.watchdog();
    let mut looks = interval(time.map_or(LOOK_INTERVAL_MAX, |time| (time / LOOKS).min(LOOK_INTERVAL_MAX)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut told): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    loop {
        looks.tick().await;
        let (stuck, status) = (parts.stuck(), status());
        let news = [News::Status(&status), News::Alive];
        // Without a watchdog of the manager the status is all that it wants to know.
        manager.tell(if stuck.is_empty() && time.is_some() { &news } else { &news[..1] }).await;
        // A part that is stuck at one look only is slow.
        let lasting: Vec<&str> = stuck.iter().copied().filter(|name| before.contains(name)).collect();
        if lasting != told {
            match lasting.join(", ") {
                names if names.is_empty() => info!("all parts of the host go on again"),
                names => warn!(
                    parts = names,
                    "parts of the host make no progress; the service manager hears nothing until they go on"
                ),
            }
            told = lasting;
        }
        before = stuck;
    }
}

/// One line about the host, from what it knows without asking Redis.
fn status(group: &Group, versions: &Versions) -> String {
    let plugin = versions.status();
    let digest = plugin.digest.get(..12).unwrap_or(&plugin.digest);
    format!(
        "{} consumers, plugin {} ({digest}, {}), intake {}, {} messages processed, {} dead letters",
        plugin.consumers,
        plugin.generation,
        plugin.state,
        group.standing.place().state,
        group.counters.processed.get(),
        group.counters.dead_letters.get(),
    )
}

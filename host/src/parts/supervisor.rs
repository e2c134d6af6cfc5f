//! What happens when a part of the process panics. There is one rule for all tasks and threads that run until the process stops:
//!
//! - A consumer is replaced, and its delivery counts a death, so that a message to which it is due is given up in the end.
//! - A part that keeps nothing to itself is begun anew, up to `PANICS_MAX` times in `PANICS_WITHIN`.
//! - When neither is possible, the process stops in order, and ends with a reason and an exit code of its own.
//!
//! The same holds for the threads that every command has, and that begin before there is anything to stop (`Watch`).
//!
//! A task that works for one caller, such as a request over HTTP or a connection that is shared, is no part: its caller gets an
//! error, as after a broken connection.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tracing::error;

/// Number of panics after which a part is begun anew, within the time below. A part that panics at what it finds in Redis panics
/// again at once.
const PANICS_MAX: usize = 2;

/// Time within which panics count together.
const PANICS_WITHIN: Duration = Duration::from_secs(60);

/// A part that has ended, although the process needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the part \"{part}\" has ended and cannot be replaced: {reason}; this is a fault of the program, please report it with the \
     log; start the process again"
)]
pub struct Failed {
    /// Its name.
    pub part: &'static str,
    /// What it panicked with, or why there is no replacement.
    pub reason: String,
}

/// Watches over the parts of a process. Clones watch over the same parts.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The first part that could not be replaced.
    failed: Arc<watch::Sender<Option<Failed>>>,
    #[cfg(test)]
    killer: tests::Killer,
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor {
            failed: Arc::new(watch::Sender::new(None)),
            #[cfg(test)]
            killer: tests::Killer::default(),
        }
    }
}

impl Supervisor {
    /// A future that ends with what another one panicked with, if it did. It is hardly larger: each consumer is one.
    pub fn caught<T, F: Future<Output = T>>(
        &self,
        part: &'static str,
        future: F,
    ) -> impl Future<Output = Result<T, String>> + use<T, F> {
        #[cfg(test)]
        let future = self.killer.clone().may_kill(part, future);
        // What a part shares with others is behind locks that are used after a panic, too.
        AssertUnwindSafe(future).catch_unwind().map(move |caught| caught.map_err(|panic| reason(part, &*panic)))
    }

    /// Runs a part that can be begun anew after a panic, until it ends or fails.
    pub async fn keep<F>(self, part: &'static str, mut begin: impl FnMut() -> F)
    where
        F: Future<Output = ()>,
    {
        let mut panics = Panics::default();
        while let Err(reason) = self.caught(part, begin()).await {
            if panics.are_too_many() {
                return self.fail(part, reason);
            }
        }
    }

    /// Runs a part that cannot be begun anew; `None` when it has failed.
    pub async fn once<T>(self, part: &'static str, future: impl Future<Output = T>) -> Option<T> {
        self.caught(part, future).await.inspect_err(|reason| self.fail(part, reason.clone())).ok()
    }

    /// Tells that a part has ended and that there is no replacement.
    pub fn fail(&self, part: &'static str, reason: String) {
        self.failed.send_if_modified(|failed| {
            let is_first = failed.is_none();
            failed.get_or_insert(Failed { part, reason });
            is_first
        });
    }

    /// The first part that has failed.
    #[must_use]
    pub fn failure(&self) -> Option<Failed> {
        self.failed.borrow().clone()
    }

    /// Waits until a part fails.
    pub async fn failed(&self) {
        // The sender is in `self`, so that there is no end without a value.
        let _ = self.failed.subscribe().wait_for(Option::is_some).await;
    }
}

/// The panics of a part that is begun anew.
#[derive(Debug, Default)]
struct Panics(VecDeque<Instant>);

impl Panics {
    /// There was one more. Returns whether the part is not begun anew.
    fn are_too_many(&mut self) -> bool {
        self.0.retain(|at| at.elapsed() < PANICS_WITHIN);
        self.0.push_back(Instant::now());
        self.0.len() > PANICS_MAX
    }
}

/// Watches over a thread that may begin before its supervisor is there.
#[derive(Debug, Default)]
pub struct Watch(OnceLock<Supervisor>);

impl Watch {
    /// Without a supervisor.
    #[must_use]
    pub const fn new() -> Watch {
        Watch(OnceLock::new())
    }

    /// Tells this supervisor from now on. The first one stays.
    pub fn tell(&self, supervisor: &Supervisor) {
        self.0.get_or_init(|| supervisor.clone());
    }

    /// Runs a part that can be begun anew after a panic on this thread, until it ends or fails.
    pub fn keep(&self, part: &'static str, mut begin: impl FnMut()) {
        let mut panics = Panics::default();
        while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut begin)) {
            let reason = reason(part, &*panic);
            if panics.are_too_many() {
                // Without a supervisor this is a short command, which ends anyway.
                if let Some(supervisor) = self.0.get() {
                    supervisor.fail(part, reason);
                }
                return;
            }
        }
    }
}

/// Logs a panic of a part, and returns what it panicked with.
fn reason(part: &'static str, panic: &(dyn Any + Send)) -> String {
    let reason = words(panic);
    error!(part, "a part of this process has panicked: {reason}");
    reason
}

/// What `panic!` was called with.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Lets the parts of a supervisor panic on purpose, by name, and knows how often each was begun.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Killer(Arc<Mutex<HashMap<&'static str, Begun>>>);

    /// What kills a part, and how often the part was begun.
    type Begun = (Arc<Notify>, u32);

    impl Killer {
        pub(super) async fn may_kill<T>(self, part: &'static str, future: impl Future<Output = T>) -> T {
            let killed = {
                let mut parts = self.0.lock().unwrap();
                let (killed, begun) = parts.entry(part).or_default();
                *begun += 1;
                killed.clone()
            };
            let (mut killed, mut future) = (pin!(killed.notified()), pin!(future));
            // A panic in the midst of a turn: what the part holds is dropped while the thread panics.
            poll_fn(|context| {
                assert!(killed.as_mut().poll(context).is_pending(), "killed on purpose");
                future.as_mut().poll(context)
            })
            .await
        }

        /// How often each part was begun.
        fn begun(&self) -> HashMap<&'static str, u32> {
            self.0.lock().unwrap().iter().map(|(part, (_, begun))| (*part, *begun)).collect()
        }
    }

    impl Supervisor {
        /// Lets a part panic at its next turn.
        pub(crate) fn kill(&self, part: &str) {
            self.killer.0.lock().unwrap()[part].0.notify_one();
        }

        /// How often a part was begun.
        pub(crate) fn begun(&self, part: &str) -> u32 {
            self.killer.begun().get(part).copied().unwrap_or(0)
        }

        /// The names of all parts that were begun, in order.
        pub(crate) fn parts(&self) -> Vec<&'static str> {
            let mut names: Vec<_> = self.killer.begun().into_keys().collect();
            names.sort_unstable();
            names
        }
    }

    #[tokio::test]
    async fn a_part_is_begun_anew_and_fails_when_it_panics_again_and_again() {
        let (supervisor, begun) = (Supervisor::default(), AtomicU32::new(0));
        let begin = || async {
            let time = begun.fetch_add(1, Ordering::Relaxed);
            panic!("time {time}");
        };
        supervisor.clone().keep("clumsy", begin).await;
        supervisor.failed().await;
        let failed = supervisor.failure().unwrap();
        assert_eq!(failed, Failed { part: "clumsy", reason: "time 2".into() });
        assert!(failed.to_string().starts_with("the part \"clumsy\" has ended and cannot be replaced: time 2;"));
    }

    #[tokio::test]
    async fn a_part_that_returns_has_not_failed() {
        let supervisor = Supervisor::default();
        supervisor.clone().keep("quiet", || async {}).await;
        assert_eq!(supervisor.clone().once("quiet", async { 7 }).await, Some(7));
        assert_eq!((supervisor.failure(), supervisor.failed().now_or_never()), (None, None));
    }

    #[tokio::test]
    async fn a_part_that_cannot_be_begun_anew_fails_at_once_and_the_first_reason_stays() {
        let supervisor = Supervisor::default();
        assert_eq!(supervisor.clone().once("only", async { panic!("one") }).await, None::<()>);
        supervisor.fail("other", "two".into());
        assert_eq!(supervisor.failure().unwrap(), Failed { part: "only", reason: "one".into() });
    }

    #[test]
    fn a_thread_is_begun_anew_and_its_supervisor_is_told_in_the_end() {
        let (watch, supervisor) = (Watch::new(), Supervisor::default());
        let mut begun = 0;
        // Before there is a supervisor.
        watch.keep("clock", || begun += 1);
        assert_eq!(begun, 1);
        watch.tell(&supervisor);
        watch.tell(&Supervisor::default());
        watch.keep("clock", || {
            begun += 1;
            assert!(begun == 3, "time {begun}");
        });
        assert_eq!((begun, supervisor.failure()), (3, None));
        watch.keep("clock", || {
            begun += 1;
            panic!("time {begun}");
        });
        assert_eq!(begun, 6);
        assert_eq!(supervisor.failure().unwrap(), Failed { part: "clock", reason: "time 6".into() });
    }

    #[test]
    fn a_panic_without_words_has_some() {
        assert_eq!([words(&7), words(&"text"), words(&"owned".to_owned())], ["no words", "text", "owned"]);
    }
}

//! The parts of a running host, and whether they go on: threads that take turns, and tasks that have not ended. What happens when
//! one panics is in `supervisor`. This room knows nothing of what the parts do.
//!
//! The scheduler counts its turns anyway, so that nothing is added to the path of a message.

pub mod supervisor;

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::task::AbortHandle;

/// The parts of a host, with what was seen of them at the last look.
#[derive(Clone, Debug, Default)]
pub struct Parts(Vec<Part>);

#[derive(Clone, Debug)]
struct Part {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The threads of a runtime.
    Threads { turns: RuntimeMetrics, seen: Vec<Turns>, rest: Rest },
    /// A task that runs until the host stops.
    Task(AbortHandle),
}

/// Whether a thread may wait for work without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It may: a thread of consumers without messages.
    Allowed,
    /// It may not, because it wakes up by itself several times a second.
    Never,
}

/// What the scheduler has counted for a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turns {
    /// How often the thread began to wait for work and went on: odd while it waits.
    parks: u64,
    /// Time in tasks, counted after some turns: the runtime's event interval. A turn of a plugin takes at most 10 ms.
    busy: Duration,
}

impl Parts {
    /// Adds the threads of a runtime.
    #[must_use]
    pub fn with_threads(mut self, name: &'static str, runtime: &Handle, rest: Rest) -> Parts {
        self.0.push(Part { name, kind: Kind::Threads { turns: runtime.metrics(), seen: Vec::new(), rest } });
        self
    }

    /// Adds a task that only ends with the host.
    #[must_use]
    pub fn with_task(mut self, name: &'static str, task: AbortHandle) -> Parts {
        self.0.push(Part { name, kind: Kind::Task(task) });
        self
    }

    /// The parts that have done nothing since the last look although they should have, and tasks that have ended.
    pub fn stuck(&mut self) -> Vec<&'static str> {
        self.0.iter_mut().filter_map(|part| part.is_stuck().then_some(part.name)).collect()
    }
}

impl Part {
    fn is_stuck(&mut self) -> bool {
        match &mut self.kind {
            Kind::Task(task) => task.is_finished(),
            Kind::Threads { turns, seen, rest } => {
                let now: Vec<Turns> = (0..turns.num_workers()).map(|thread| Turns::of(turns, thread)).collect();
                let before = std::mem::replace(seen, now);
                before.iter().zip(&*seen).any(|(before, now)| before == now && !(now.waits() && *rest == Rest::Allowed))
            }
        }
    }
}

impl Turns {
    fn of(turns: &RuntimeMetrics, thread: usize) -> Turns {
        Turns { parks: turns.worker_park_unpark_count(thread), busy: turns.worker_total_busy_duration(thread) }
    }

    fn waits(self) -> bool {
        self.parks % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// Looks until these parts are stuck.
    fn wait_until_stuck(parts: &mut Parts, names: &[&str]) {
        let start = Instant::now();
        while parts.stuck() != names {
            assert!(start.elapsed() < Duration::from_secs(60), "{names:?} are never stuck");
            std::thread::yield_now();
        }
    }

    fn one_thread() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn a_task_that_has_ended_is_stuck() {
        let runtime = one_thread();
        let (ends, stays) = (runtime.spawn(async {}), runtime.spawn(std::future::pending::<()>()));
        let mut parts =
            Parts::default().with_task("ends", ends.abort_handle()).with_task("stays", stays.abort_handle());
        runtime.block_on(ends).unwrap();
        assert_eq!(parts.stuck(), ["ends"]);
    }

    #[test]
    fn a_thread_that_is_blocked_is_stuck_until_it_goes_on() {
        let runtime = one_thread();
        let mut parts = Parts::default().with_threads("blocked", runtime.handle(), Rest::Allowed);
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = released.recv();
        });
        has_started.recv().unwrap();
        assert_eq!(parts.stuck(), [""; 0], "the first look has nothing to compare with");
        assert_eq!(parts.stuck(), ["blocked"]);
        drop(release);
        wait_until_stuck(&mut parts, &[]);
    }

    #[test]
    fn a_thread_without_work_is_stuck_only_where_it_has_to_wake_up_by_itself() {
        let runtime = one_thread();
        let mut parts = Parts::default().with_threads("may rest", runtime.handle(), Rest::Allowed).with_threads(
            "may not",
            runtime.handle(),
            Rest::Never,
        );
        wait_until_stuck(&mut parts, &["may not"]);
        runtime.block_on(runtime.spawn(async {})).unwrap();
        assert_eq!(parts.stuck(), [""; 0]);
    }
}

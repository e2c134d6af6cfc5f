//! On which threads a plugin is compiled, and at which priority. It knows no component.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use super::error::LoadError;

/// Steps of the priority at which a plugin is compiled beside running consumers: how long after the beginning a set of
/// threads joins, and their niceness. Without privileges a thread cannot raise its priority again, so other threads
/// come. With every processor busy, threads of niceness 10 get a tenth of an ordinary thread's time, those of
/// niceness 5 a third, and the last ones as much as any other thread: so no load can starve a version that waits.
const STEPS: [(Duration, i32); 3] = [(Duration::ZERO, 10), (Duration::from_secs(3), 5), (Duration::from_secs(8), 0)];

/// Threads at least, though only those of the steps ever join. The work is cut into about twice as many pieces as there are
/// threads, and a piece that one thread has begun is never handed to another. With six threads a piece was an eighth of the
/// component, and at the end threads of ordinary priority waited for one of niceness 10.
const THREADS_MIN: usize = 32;

/// On which threads a plugin is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// On all processors: nothing can run before it is done.
    Now,
    /// On threads that give way to all others: consumers are at work.
    Background,
}

/// Runs work that computes for long on a thread for blocking work.
pub(super) async fn off_the_data_path<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(LoadError::Invalid { path: path.to_owned(), reason: format!("the compiler broke down: {error}") })
    })
}

/// Runs work on threads that have a lower priority than those of the consumers at first, and an ordinary one when the
/// work takes long. Blocks.
pub(super) fn in_the_background<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    let in_a_step = available_parallelism().map_or(1, usize::from);
    let done = Arc::new(Done::default());
    let waiting = Arc::clone(&done);
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(THREADS_MIN.max(in_a_step * STEPS.len()))
        .thread_name(|number| format!("compiler-{number}"))
        .start_handler(move |number| {
            let step = STEPS.get(number / in_a_step);
            waiting.wait(step.map_or(Duration::MAX, |(delay, _)| *delay));
            give_way(step.map_or(0, |(_, niceness)| *niceness));
        })
        .build();
    let result = match threads {
        // Wasmtime compiles on the pool of threads that it is called from.
        Ok(threads) => threads.install(work),
        Err(error) => Err(LoadError::Invalid {
            path: path.to_owned(),
            reason: format!("cannot start the compiler's threads: {error}"),
        }),
    };
    done.tell();
    result
}

/// Whether the work is done, for threads that have not joined yet.
#[derive(Default)]
struct Done {
    told: Mutex<bool>,
    bell: Condvar,
}

impl Done {
    /// Waits for this long, or until the work is done.
    fn wait(&self, delay: Duration) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.wait_timeout_while(told, delay, |told| !*told));
    }

    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }
}

/// Lowers the priority of this thread.
fn give_way(niceness: i32) {
    // Elsewhere the call would lower the whole process.
    #[cfg(target_os = "linux")]
    if niceness > 0
        && let Err(error) = rustix::process::setpriority_process(None, niceness)
    {
        tracing::debug!("cannot compile at a lower priority: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

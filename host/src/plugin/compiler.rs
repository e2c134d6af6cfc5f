//! The threads on which a plugin is compiled, and their priority. This file knows no component.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use super::error::LoadError;

/// Steps of the priority for compiling beside running consumers: the time after which a set of threads joins, and the
/// niceness of those threads. A thread without privileges cannot raise its priority again, so other threads join. With
/// every processor busy, threads of niceness 10 get a tenth of an ordinary thread's time, threads of niceness 5 a
/// third, and the last threads as much as any other thread. So no load can starve a waiting version.
const STEPS: [(Duration, i32); 3] = [(Duration::ZERO, 10), (Duration::from_secs(3), 5), (Duration::from_secs(8), 0)];

/// The threads for compiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// All processors: nothing else can run before the compilation is done.
    Now,
    /// Threads that give way to all others, because consumers are running.
    Background,
}

/// Runs a long computation on a blocking thread.
pub(super) async fn off_the_data_path<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(LoadError::Invalid { path: path.to_owned(), reason: format!("the compiler failed: {error}") })
    })
}

/// Runs work on threads with a lower priority than the consumers' threads. When the work takes long, threads of
/// ordinary priority join. Blocks.
pub(super) fn in_the_background<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    let in_a_step = available_parallelism().map_or(1, usize::from);
    let done = Arc::new(Done::default());
    let waiting = Arc::clone(&done);
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(in_a_step * STEPS.len())
        .thread_name(|number| format!("compiler-{number}"))
        .start_handler(move |number| {
            let (delay, niceness) = STEPS[number / in_a_step % STEPS.len()];
            waiting.wait(delay);
            give_way(niceness);
        })
        .build();
    let result = match threads {
        // Wasmtime compiles on the thread pool of the calling thread.
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
    // On other systems the call would lower the priority of the whole process.
    #[cfg(target_os = "linux")]
    if niceness > 0
        && let Err(error) = rustix::process::setpriority_process(None, niceness)
    {
        tracing::debug!("cannot compile at a lower priority: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

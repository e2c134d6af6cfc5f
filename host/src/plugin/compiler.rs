//! The threads on which a plugin is compiled, and their priority. This file knows no component.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvError, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use rayon::ThreadBuilder;

use super::error::LoadError;

/// Steps of the priority for compiling beside running consumers: the time after which a set of threads joins, and the
/// niceness of those threads. A thread without privileges cannot raise its priority again, so other threads join. With
/// every processor busy, threads of niceness 10 get a tenth of an ordinary thread's time, threads of niceness 5 a
/// third, and the last threads as much as any other thread. So no load can starve a waiting version.
const STEPS: [(Duration, i32); 3] = [(Duration::ZERO, 10), (Duration::from_secs(3), 5), (Duration::from_secs(8), 0)];

/// Least number of places in the pool, though only threads of the steps ever take one. The work is cut into about twice as many
/// pieces as there are places, and a piece that one thread has begun is never handed to another. With six places a piece was an
/// eighth of the component, and at the end threads of ordinary priority waited for one of niceness 10.
const PLACES_MIN: usize = 32;

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

/// Compiles beside running consumers, one component after the other on the same threads.
///
/// The threads start when they are first needed, and then stay. The C library's allocator gives every new thread another arena,
/// and an arena keeps most of the memory that a compilation once took in it. With that allocator and new threads for every component, a host on two processors
/// grew to 87 MB in 300 swaps of a small plugin, and to 800 MB in 40 swaps of a plugin of 11 MiB.
#[derive(Default)]
pub(super) struct Background {
    /// Those that have started, by number: first those of the first step. Each works where it is sent to.
    threads: Mutex<BTreeMap<usize, Sender<ThreadBuilder>>>,
}

impl Background {
    /// Runs work on threads that have a lower priority than those of the consumers at first, and an ordinary one when
    /// the work takes long. Blocks.
    pub(super) fn run<T: Send>(
        &self,
        path: &Path,
        work: impl FnOnce() -> Result<T, LoadError> + Send,
    ) -> Result<T, LoadError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        compile_in_steps(&mut threads, work)
            .map_err(|error| format!("cannot start the compiler's threads: {error}"))
            .and_then(|done| done.map_err(|error| format!("the compiler broke down: {error}")))
            .unwrap_or_else(|reason| Err(LoadError::Invalid { path: path.to_owned(), reason }))
    }
}

/// Runs work on a pool of threads that join in steps; those that are missing are started.
fn compile_in_steps<T: Send>(
    threads: &mut BTreeMap<usize, Sender<ThreadBuilder>>,
    work: impl FnOnce() -> T + Send,
) -> Result<Result<T, RecvError>, Box<dyn Error>> {
    let in_a_step = available_parallelism().map_or(1, usize::from);
    let mut places = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(PLACES_MIN.max(in_a_step * STEPS.len()))
        .spawn_handler(|place| {
            places.push(place);
            Ok(())
        })
        .build()?;
    let mut places = places.into_iter().enumerate();
    let mut join =
        |niceness| places.by_ref().take(in_a_step).try_for_each(|place| take_place(threads, place, niceness));

    let [(_, niceness), later @ ..] = STEPS;
    let begin = Instant::now();
    join(niceness)?;
    let (tell, done) = mpsc::channel();
    // Wasmtime compiles on the pool of threads that it is called from.
    Ok(pool.in_place_scope(|scope| {
        scope.spawn(move |_| drop(tell.send(work())));
        for (delay, niceness) in later {
            match done.recv_timeout(delay.saturating_sub(begin.elapsed())) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = join(niceness) {
                tracing::debug!("cannot compile on more threads: {error}");
            }
        }
        done.recv()
    }))
}

/// Has a thread take its place in a pool. The thread of this number is started if there is none yet.
fn take_place(
    threads: &mut BTreeMap<usize, Sender<ThreadBuilder>>,
    (number, place): (usize, ThreadBuilder),
    niceness: i32,
) -> io::Result<()> {
    let thread = match threads.entry(number) {
        Entry::Occupied(thread) => thread.into_mut(),
        Entry::Vacant(vacant) => vacant.insert(start(number, niceness)?),
    };
    thread.send(place).map_err(|_| io::Error::other("a thread of the compiler has ended"))
}

/// Starts a thread that takes one place after the other, until nobody can send any more.
fn start(number: usize, niceness: i32) -> io::Result<Sender<ThreadBuilder>> {
    let (thread, places) = mpsc::channel();
    thread::Builder::new().name(format!("compiler-{number}")).spawn(move || {
        give_way(niceness);
        places.into_iter().for_each(ThreadBuilder::run);
    })?;
    Ok(thread)
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

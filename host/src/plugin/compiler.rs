//! The threads on which a plugin is compiled, and their priority, in the process that compiles. This file knows no component.

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, RecvError, RecvTimeoutError};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use rayon::ThreadBuilder;

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

/// Runs work that compiles, and so starts threads that take part in it. Blocks.
///
/// # Errors
/// When the threads cannot be started, or one of them broke down.
pub(super) fn run<T: Send>(haste: Haste, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    match haste {
        Haste::Now => Ok(work()),
        Haste::Background => compile_in_steps(work)
            .map_err(|error| format!("cannot start the compiler's threads: {error}"))
            .and_then(|done| done.map_err(|error| format!("the compiler broke down: {error}"))),
    }
}

/// Runs work on threads that have a lower priority than those of the consumers at first, and an ordinary one when the work
/// takes long.
fn compile_in_steps<T: Send>(work: impl FnOnce() -> T + Send) -> Result<Result<T, RecvError>, Box<dyn Error>> {
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
    let mut join = |niceness| places.by_ref().take(in_a_step).try_for_each(|place| take_place(place, niceness));

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
            // Without more threads it takes longer.
            let _ = join(niceness);
        }
        done.recv()
    }))
}

/// Starts a thread that takes its place in a pool.
fn take_place((number, place): (usize, ThreadBuilder), niceness: i32) -> io::Result<()> {
    thread::Builder::new().name(format!("compiler-{number}")).spawn(move || {
        give_way(niceness);
        place.run();
    })?;
    Ok(())
}

/// Lowers the priority of this thread.
fn give_way(niceness: i32) {
    // On other systems the call would lower the priority of the whole process.
    #[cfg(target_os = "linux")]
    if niceness > 0 {
        // A system that does not allow it has its reasons.
        let _ = rustix::process::setpriority_process(None, niceness);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

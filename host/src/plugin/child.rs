//! What the process does that compiles a plugin: it limits itself, reads the component, compiles it, and leaves the code in
//! a folder of its own. The process holds nothing of a host, and whatever becomes of it, a host goes on. The counterpart
//! is `apart`.

use std::io::{self, Read as _, Write as _};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;

use super::apart::{Answer, Order, Report};
use super::cache;
use super::compiler;
use super::engine::tuning::{Features, Tuning};
use super::functions::Functions;
use super::image;
use super::shape;
use super::text::one_line;

/// Makes the system end this process before any other when memory is short. Anybody may do that to a process of theirs.
const FIRST_TO_GO: &str = "1000";

/// Compiles the component on standard input as the order says, and writes the answer to standard output.
///
/// # Errors
/// When the order is not understood, or the process cannot be limited.
pub fn serve(order: &str) -> io::Result<()> {
    let order: Order = serde_json::from_str(order)?;
    limit(order.memory_bytes_max)?;
    let bytes = receive()?;
    // The process that gave the order keeps this pipe open for as long as it waits for the answer.
    thread::Builder::new().name("waits-for-the-end".into()).spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(1);
    })?;
    let answer = serde_json::to_vec(&work(&order, &bytes))?;
    let mut output = io::stdout().lock();
    output.write_all(&answer)?;
    output.flush()
}

fn limit(memory_bytes_max: usize) -> io::Result<()> {
    // Private memory that can be written to. Address space is no measure: wasmtime reserves much of it.
    let set = |resource, value: u64| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    set(Resource::Data, memory_bytes_max as u64)?;
    set(Resource::Core, 0)?;
    // Other systems have no such file.
    let _ = std::fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    Ok(())
}

fn receive() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Compiles a component into the folder of the order.
pub(super) fn work(order: &Order, bytes: &[u8]) -> Answer {
    let functions = order.functions.as_deref().map(|path| (path, Arc::new(Functions::read(path))));
    let compiled = cache::in_folder(&order.folder).and_then(|cache| {
        let tuning = Tuning {
            stack_bytes_max: order.stack_bytes_max,
            instances: order.instances,
            cache: Some(cache),
            functions: functions.as_ref().map(|(_, functions)| functions.clone()),
        };
        compiler::run(order.haste(), || compile(&tuning, bytes))
    });
    let report = match compiled {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return refused(bytes, one_line(&error)),
        Err(reason) => return Answer::Invalid(reason),
    };
    if let Some((path, functions)) = functions {
        // Without them, everything is compiled the next time.
        let _ = functions.write(path);
    }
    if !cache::holds_code(&order.folder) {
        return Answer::Invalid(format!("cannot write the code into {}; is the disk full?", order.folder.display()));
    }
    Answer::Compiled(report)
}

/// Compiles for the fast engine, or for the full engine if the component needs it. Compiling takes up to seconds of
/// processor time, so the right engine is chosen before.
fn compile(tuning: &Tuning, bytes: &[u8]) -> wasmtime::Result<Report> {
    let start = Instant::now();
    let compile_for = |features| {
        let engine = tuning.compiler(features)?;
        image::bounded(&Component::from_binary(&engine, bytes)?, bytes.len())
    };
    let report = |is_full, needs| Report { is_full, needs, time: start.elapsed() };
    let needs = || shape::needs(bytes);
    if !shape::looks_fast(bytes) {
        let needs = needs();
        if !needs.is_empty() {
            return compile_for(Features::Full).map(|()| report(true, needs));
        }
    }
    match compile_for(Features::Fast) {
        Ok(()) => Ok(report(false, Vec::new())),
        // A function can need more than the sections show. A broken component also comes here.
        Err(error) => match needs() {
            needs if needs.is_empty() => Err(error),
            needs => compile_for(Features::Full).map(|()| report(true, needs)),
        },
    }
}

/// Why a component was not compiled. The engine's text decides, because the causes differ.
fn refused(bytes: &[u8], reason: String) -> Answer {
    shape::refusal(bytes).map_or(Answer::Invalid(reason), Answer::Refused)
}

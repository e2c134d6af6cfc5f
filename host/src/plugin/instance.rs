//! A consumer's own instance: one call at a time, under a time limit, and a fresh store after every call that ended
//! without an answer. This file knows no other consumer.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::{v0_1, v1};
use super::compiled::Plugin;
use super::contract::Guest;
use super::imports::{self, Context, Setup};
use super::journal::Journal;
use super::limits;
use super::outcome::{Failure, Outcome};
use super::state::Session;
use super::text::printable;
use crate::config::PluginLimits;
use crate::traces::context::TraceId;

/// Maximum length of a failure's text from a guest, in bytes.
const REASON_BYTES_MAX: usize = 2 << 10;
/// Number of epoch ticks that a guest runs before it gives way to other tasks. The first tick is never a whole one.
const TICKS: u64 = 1;

/// A consumer's own instance. After a trap or an exceeded limit the instance is replaced by a fresh one.
pub struct Instance {
    plugin: Plugin,
    consumer_id: Arc<str>,
    /// `None` after a call without an answer, until the next call.
    live: Option<Live>,
    /// The trace of the message in process.
    trace_id: Option<TraceId>,
    /// The state for the next messages.
    session: Option<Arc<Session>>,
    /// Time that the guest gave to others during its calls.
    others: Duration,
}

/// A store with the guest.
struct Live {
    store: Store<imports::Store>,
    guest: Guest,
    /// Shared with the store's callback for the epoch.
    turn: Arc<Turn>,
    /// Number of answered messages.
    messages: u64,
    /// Memory after the first of them.
    memory_bytes_first: usize,
}

/// Reason why a guest was not running before it continued.
#[derive(Default)]
struct Turn {
    /// The guest gave way to other tasks, so the time until it continues is not the guest's time.
    gave_way: AtomicBool,
    /// The guest waited for something. Ticks that passed meanwhile are no reason to give way.
    waited: AtomicBool,
    /// Nanoseconds for which others had the thread.
    others_ns: AtomicU64,
}

impl Turn {
    fn take_time_of_others(&self) -> Duration {
        // Almost always there was none, and a look is cheaper than a change.
        match self.others_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(self.others_ns.swap(0, Ordering::Relaxed)),
        }
    }
}

/// Return value of the guest's `process`.
type Answer = Result<Outcome, String>;

/// Calls `process` of a guest of this version, in place. Not a function: the future of a call has half a kilobyte, and
/// each function around it would copy the future once more.
macro_rules! call {
    ($version:ident, $guest:ident, $live:ident, $limits:ident, $($field:ident),+) => {{
        let function = $guest.host_plugin_processor().func_process();
        let message = $version::exports::host::plugin::processor::Message { $($field),+ };
        let call = pin!(function.call_async(&mut $live.store, (message,)));
        let ended = within($limits.time_max, &$live.turn, call).await;
        ended.map(|ended| ended.map(|(answer,)| answer.map(Outcome::from)))
    }};
}

impl Plugin {
    /// An instance for the consumer with this id. The plugin's log lines contain the id.
    pub async fn instantiate(&self, consumer_id: Arc<str>) -> Result<Instance, Failure> {
        Instance::start(self.clone(), consumer_id).await
    }

    /// Like `new`, but the instance is created with its first message. That message fails if the instance cannot be
    /// created.
    pub fn instance_to_be(&self, consumer_id: Arc<str>) -> Instance {
        Instance::to_be(self.clone(), consumer_id)
    }
}

impl Instance {
    pub(super) async fn start(plugin: Plugin, consumer_id: Arc<str>) -> Result<Instance, Failure> {
        let live = Live::start(&plugin, &consumer_id).await?;
        Ok(Instance { plugin, consumer_id, live: Some(live), trace_id: None, session: None, others: Duration::ZERO })
    }

    pub(super) fn to_be(plugin: Plugin, consumer_id: Arc<str>) -> Instance {
        Instance { plugin, consumer_id, live: None, trace_id: None, session: None, others: Duration::ZERO }
    }

    /// Present memory of the instance in bytes; 0 after a trap or an exceeded limit, until the next message.
    pub fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().limits.memory_bytes())
    }

    /// Time that the guest gave to other tasks during its calls, since the last call of this function.
    pub fn take_time_of_others(&mut self) -> Duration {
        std::mem::take(&mut self.others)
    }

    /// Whether the instance has answered a message, so that it may have less memory than a fresh one.
    pub fn is_used(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.messages > 0)
    }

    /// Whether the plugin may ask for facts about the message. Other plugins need no context.
    pub fn asks_for_context(&self) -> bool {
        self.plugin.asks_for_context()
    }

    /// Log lines of the next messages have this trace.
    pub fn set_trace(&mut self, trace_id: Option<TraceId>) {
        self.trace_id = trace_id;
    }

    /// Whether the plugin uses state.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.plugin.has_state()
    }

    /// The next messages have this state.
    pub fn set_session(&mut self, session: Option<&Arc<Session>>) {
        match (&self.session, session) {
            (None, None) => {}
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (_, new) => self.session = new.cloned(),
        }
    }

    /// Runs the plugin's `process` on one message, under the limits. Without a context the plugin gets the facts of the
    /// instance's start.
    ///
    /// A call that is dropped before its end costs the instance, like a trap.
    pub async fn process(
        &mut self,
        id: &str,
        body: &str,
        attempt: u32,
        context: Option<Context<'_>>,
    ) -> Result<Outcome, Failure> {
        // Taken out for the duration of the call: only an answer puts the store back.
        let mut live = match self.live.take() {
            Some(live) => live,
            // Boxed, because a start is rare, and without the box the future of a call would be as long as the future
            // of a start.
            None => Box::pin(Live::start(&self.plugin, &self.consumer_id)).await?,
        };
        let limits = self.plugin.limits();
        live.prepare(id, self.trace_id, context, self.session.as_ref());
        let ended = match &live.guest {
            Guest::V1(guest) => call!(v1, guest, live, limits, id, body, attempt),
            Guest::V0_1(guest) => call!(v0_1, guest, live, limits, id, body, attempt),
        };
        live.store.data().journal.end();
        self.others += live.turn.take_time_of_others();
        let answer = live.answer(ended, limits).inspect_err(|failure| {
            let trace_id = self.trace_id.map(tracing::field::display);
            tracing::debug!(
                consumer = &*self.consumer_id,
                message_id = id,
                trace_id,
                "an instance is given up: {failure}"
            );
        })?;
        live.messages += 1;
        let refused_memory = live.store.data().limits.memory_refused();
        let decision = answer.map_err(|reason| {
            let reason = printable(&reason, REASON_BYTES_MAX).into_owned();
            if !refused_memory {
                return Failure::Failed(reason);
            }
            // An interpreter makes an exception of a refusal. Others trap.
            Failure::OutOfMemory { bytes_max: limits.memory_bytes_max, words: format!(" ({reason})") }
        });
        // An instance that failed without memory keeps what it has taken, so a fresh one is better.
        let is_spent = matches!(decision, Err(Failure::OutOfMemory { .. })) || live.is_nearly_full(&self.plugin);
        if !is_spent && !limits.instance_per_message && live.messages != limits.instance_messages_max {
            self.live = Some(live);
        }
        checked(decision?, limits)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("consumer_id", &self.consumer_id)
            .field("plugin", &self.plugin)
            .field("live", &self.live.is_some())
            .finish()
    }
}

impl Live {
    async fn start(plugin: &Plugin, consumer_id: &Arc<str>) -> Result<Live, Failure> {
        let limits = plugin.limits();
        let ready = plugin.ready();
        let journal = Journal::new(Arc::clone(plugin.log_budget()), Arc::clone(consumer_id));
        let setup = Setup {
            journal,
            configuration: Arc::clone(plugin.configuration()),
            buckets: Arc::clone(plugin.buckets()),
            channel: Arc::clone(plugin.channel()),
            generation: plugin.generation(),
            consumer_id: Arc::clone(consumer_id),
            usage: Arc::clone(plugin.usage()),
        };
        let mut store = Store::new(ready.engine(), imports::Store::new(limits, setup));
        store.limiter(|state| &mut state.limits);
        store.set_max_component_handles(limits.handles_max as usize);
        store.set_hostcall_fuel(limits::hand_over_bytes_max(limits.result_bytes_max));
        let turn = Arc::new(Turn::default());
        let current = Arc::clone(&turn);
        store.epoch_deadline_callback(move |_| {
            // A guest that has slept for a tick need not queue again behind all others: that cost about a tenth of the
            // host's CPU time for a call that waits 10 ms.
            if current.waited.swap(false, Ordering::Relaxed) {
                return Ok(UpdateDeadline::Continue(TICKS));
            }
            current.gave_way.store(true, Ordering::Relaxed);
            // Wasmtime's own way to yield wakes the task at once, and tokio would then run that task next.
            Ok(UpdateDeadline::YieldCustom(TICKS, Box::pin(tokio::task::yield_now())))
        });
        store.set_epoch_deadline(TICKS);
        let started = within(limits.time_max, &turn, pin!(ready.instantiate(&mut store))).await;
        store.data().journal.end();
        match started {
            Some(Ok(guest)) => Ok(Live { store, guest, turn, messages: 0, memory_bytes_first: 0 }),
            Some(Err(error)) => Err(Failure::Start(match why(&error, &store, limits) {
                Failure::Trapped(reason) => reason,
                failure => failure.to_string(),
            })),
            None => Err(Failure::Start(Failure::TimedOut(limits.time_max).to_string())),
        }
    }

    /// Prepares the store for a call with the message of this id and trace.
    fn prepare(
        &mut self,
        message_id: &str,
        trace_id: Option<TraceId>,
        context: Option<Context<'_>>,
        session: Option<&Arc<Session>>,
    ) {
        let state = self.store.data_mut();
        state.follow(session);
        if let Some(context) = context {
            state.begin(context);
        }
        state.limits.reset_refusal();
        state.journal.begin(message_id, trace_id);
        self.store.set_epoch_deadline(TICKS);
    }

    /// Whether the memory of the instance has grown close to its limit, so that the next message may be the one that suffers.
    fn is_nearly_full(&mut self, plugin: &Plugin) -> bool {
        let (limits, memory_bytes) = (plugin.limits(), self.store.data().limits.memory_bytes());
        if self.messages == 1 {
            self.memory_bytes_first = memory_bytes;
        }
        let growth = memory_bytes.saturating_sub(self.memory_bytes_first);
        let percent = limits.memory_replace_percent as usize;
        // An instance that has not grown would be as full again after its first message.
        if percent >= 100 || growth == 0 || memory_bytes < limits.memory_bytes_max / 100 * percent {
            return false;
        }
        if plugin.growth_is_new() {
            let messages = self.messages;
            tracing::warn!(
                digest = plugin.short_digest(),
                memory_bytes,
                messages,
                "the plugin's memory grows by {} bytes with each message; an instance is replaced by a fresh one at {percent} % of the \
                 limit, between two messages",
                growth as u64 / messages
            );
        }
        true
    }

    /// The guest's answer. After an error the store must not be called again.
    fn answer(&self, ended: Option<wasmtime::Result<Answer>>, limits: &PluginLimits) -> Result<Answer, Failure> {
        match ended {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => {
                tracing::debug!("a call of the plugin ended: {error:?}");
                Err(why(&error, &self.store, limits))
            }
            None => Err(Failure::TimedOut(limits.time_max)),
        }
    }
}

/// Runs `call` to its end, or returns `None` when the call has taken longer than `limit`.
///
/// The guest's time is the time in which it computes or waits. While the guest has given way to other tasks, its clock
/// stands still: with ten thousand consumers on two cores a guest may wait seconds for its turn, and that is not its
/// fault. The first turn, at most a tick long, is free, so that almost every call ends without a timer.
fn within<T>(
    limit: Duration,
    turn: &Turn,
    mut call: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = Option<T>> {
    let mut timer: Option<(Pin<Box<Sleep>>, Instant)> = None;
    // A notification may be left from the previous call.
    turn.waited.store(false, Ordering::Relaxed);
    poll_fn(move |context| {
        if let Some((timer, turn_ended)) = &mut timer {
            let gave_way = turn.gave_way.swap(false, Ordering::Relaxed);
            turn.waited.store(!gave_way, Ordering::Relaxed);
            if gave_way {
                let others = turn_ended.elapsed();
                turn.others_ns.fetch_add(u64::try_from(others.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
                let deadline = timer.deadline() + others;
                timer.as_mut().reset(deadline);
            }
        }
        if let Poll::Ready(value) = call.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        let (timer, turn_ended) = timer.get_or_insert_with(|| (Box::pin(sleep(limit)), Instant::now()));
        *turn_ended = Instant::now();
        timer.as_mut().poll(context).map(|()| None)
    })
}

/// The reason for the loss of a store.
fn why(error: &wasmtime::Error, store: &Store<imports::Store>, limits: &PluginLimits) -> Failure {
    let state = store.data();
    if state.limits.memory_refused() {
        return Failure::OutOfMemory { bytes_max: limits.memory_bytes_max, words: String::new() };
    }
    // A guest that passes something to an import is on the stack. A guest that returns something is not.
    let is_returning = error.downcast_ref::<WasmBacktrace>().is_none();
    let reason = match (error.downcast_ref::<Trap>(), error.downcast_ref::<I32Exit>()) {
        (Some(trap), _) => trap.to_string(),
        // Any exit code is a failure: a plugin that ends itself has no outcome.
        (_, Some(I32Exit(code))) => format!("it called exit({code})"),
        _ => error.root_cause().to_string(),
    };
    // The type is private to wasmtime; a test compares this text with the version in use.
    if reason.contains("fuel allocated for hostcalls has been exhausted") {
        let bytes_max = limits::hand_over_bytes_max(limits.result_bytes_max);
        if is_returning {
            return Failure::ResultTooLong { bytes_max };
        }
        return Failure::Trapped(format!(
            "it passed more than {bytes_max} bytes to the host at once, such as a log line; four times --max-result-bytes is the most"
        ));
    }
    if error.is::<std::str::Utf8Error>() && is_returning {
        return Failure::NotText;
    }
    // The guest's own words come first: they say more than the kind of the trap, and a long text is cut at its end.
    let last_words = state.journal.last_words();
    let text = if last_words.is_empty() { reason } else { format!("{last_words} ({reason})") };
    Failure::Trapped(printable(&text, REASON_BYTES_MAX).into_owned())
}

/// The guest's outcome, unless a result is too long or there are too many results.
fn checked(outcome: Outcome, limits: &PluginLimits) -> Result<Outcome, Failure> {
    let bytes_max = limits.result_bytes_max;
    if let Outcome::EmitAll(results) = &outcome
        && results.len() > limits.results_max as usize
    {
        return Err(Failure::TooManyResults(limits.results_max));
    }
    let too_long = match &outcome {
        Outcome::Emit(result) => result.len() > bytes_max,
        Outcome::EmitAll(results) => results.iter().any(|result| result.body.len() > bytes_max),
        _ => false,
    };
    if too_long {
        return Err(Failure::ResultTooLong { bytes_max });
    }
    Ok(match outcome {
        Outcome::Reject(reason) => Outcome::Reject(printable(&reason, REASON_BYTES_MAX).into_owned()),
        outcome => outcome,
    })
}

//! What a guest may take: time, memory, tables, a stack, and the length of its results.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use wasmtime::ResourceLimiter;

use super::super::limits::{StoreLimits, Usage};
use super::*;

#[tokio::test]
async fn a_busy_guest_is_ended_and_lets_other_tasks_run() {
    let short = PluginLimits { time_max: Duration::from_millis(200), ..limits() };
    let mut puppet = instance("puppet", &short).await;
    let turns = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&turns);
    // On the only thread of this test.
    let other = tokio::spawn(async move {
        loop {
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let failure = order(&mut puppet, json!({"do": "loop"})).await.unwrap_err();
    other.abort();
    assert_eq!(failure, Failure::TimedOut(short.time_max));
    assert!(turns.load(Ordering::Relaxed) > 2, "the other task had no turn");
    assert_eq!(calls(&mut puppet).await, 1);
}

#[tokio::test]
async fn a_guest_that_has_waited_goes_on_at_once() {
    let mut puppet = instance("puppet", &limits()).await;
    // Five ticks pass while it waits. That a tick ends while it computes is rare, but may happen in any call.
    for _ in 0..20 {
        let mut turns = 0;
        let mut call = pin!(order(&mut puppet, json!({"do": "wait", "ms": 50})));
        let counted = poll_fn(|context| {
            turns += 1;
            call.as_mut().poll(context)
        });
        assert!(matches!(counted.await, Ok(Outcome::Emit(_))));
        if turns == 2 {
            return;
        }
    }
    panic!("it always gave way when it had waited");
}

#[tokio::test]
async fn waiting_for_a_thread_is_not_the_guests_time() {
    // Alone each of them needs a twentieth of its limit; together a hundred need several times as much.
    let short = PluginLimits { time_max: Duration::from_millis(400), ..limits() };
    let plugin = load_for(100, &short).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let plugin = plugin.clone();
        tasks.spawn(async move {
            let mut puppet = plugin.instantiate(format!("host-1:{number}").into()).await?;
            // A fixed amount of work, not of time: for the guest the clock also runs while it waits for a thread.
            order(&mut puppet, json!({"do": "count", "millions": 10})).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert!(matches!(done.unwrap(), Ok(Outcome::Emit(_))));
    }
}

async fn load_for(instances: u32, limits: &PluginLimits) -> Plugin {
    Engine::new(limits, instances).unwrap().load(&guest("puppet"), &PluginConfig::default()).await.unwrap()
}

#[tokio::test]
async fn a_sleeping_guest_is_ended() {
    let short = PluginLimits { time_max: Duration::from_millis(50), ..limits() };
    let mut puppet = instance("puppet", &short).await;
    let failure = order(&mut puppet, json!({"do": "sleep"})).await.unwrap_err();
    assert_eq!(failure, Failure::TimedOut(short.time_max));
    assert_eq!(
        failure.to_string(),
        "the plugin took longer than 50ms; raise --max-plugin-time or make the plugin faster"
    );
    assert_eq!(calls(&mut puppet).await, 1);
}

#[tokio::test]
async fn a_guest_that_eats_memory_is_ended() {
    let small = PluginLimits { memory_bytes_max: 8 << 20, ..limits() };
    let mut puppet = instance("puppet", &small).await;
    let failure = order(&mut puppet, json!({"do": "eat-memory"})).await.unwrap_err();
    assert_eq!(failure, Failure::OutOfMemory { bytes_max: 8 << 20, words: String::new() });
    assert_eq!(calls(&mut puppet).await, 1);
}

#[test]
fn all_memories_of_a_store_share_its_limit() {
    let usage: Arc<Usage> = Arc::default();
    let mut store = StoreLimits::new(&PluginLimits { memory_bytes_max: 1_000, ..limits() }, Arc::clone(&usage));
    assert!(store.memory_growing(0, 600, None).unwrap());
    assert!(!store.memory_growing(0, 600, None).unwrap(), "a second memory");
    assert!(store.memory_refused());
    // A granted growth that then failed does not count any more.
    store.reset_refusal();
    assert!(store.memory_growing(600, 1_000, None).unwrap());
    store.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
    assert!(store.memory_refused());
    assert!(store.memory_growing(0, 400, None).unwrap());
    assert_eq!((usage.instances(), usage.memory_bytes()), (1, 1_000));
    drop(store);
    assert_eq!((usage.instances(), usage.memory_bytes()), (0, 0));
}

#[tokio::test]
async fn a_plugin_that_does_not_fit_its_memory_does_not_start() {
    let tiny = PluginLimits { memory_bytes_max: 64 << 10, ..limits() };
    let error = load("puppet", &tiny).await.unwrap_err();
    assert!(matches!(error, LoadError::DoesNotStart { .. }), "{error}");
    assert!(error.to_string().contains("more than 65536 bytes of memory"), "{error}");
}

#[tokio::test]
async fn results_have_a_longest_length() {
    let short = PluginLimits { result_bytes_max: 1_000, ..limits() };
    let mut puppet = instance("puppet", &short).await;
    // The host finds a result that is slightly too long, and the instance stays in use.
    let failure = order(&mut puppet, json!({"do": "grow", "bytes": 1_000})).await.unwrap_err();
    assert_eq!(failure, Failure::ResultTooLong { bytes_max: 1_000 });
    assert_eq!(calls(&mut puppet).await, 2);
    // Far too long is never copied out of the guest.
    let failure = order(&mut puppet, json!({"do": "grow", "bytes": 1_000_000})).await.unwrap_err();
    assert_eq!(failure, Failure::ResultTooLong { bytes_max: 4_000 });
    assert_eq!(calls(&mut puppet).await, 1);
}

#[tokio::test]
async fn the_memory_in_use_is_known() {
    let mut puppet = instance("puppet", &limits()).await;
    let start = puppet.memory_bytes();
    order(&mut puppet, json!({"do": "grow", "bytes": 3 << 20})).await.unwrap();
    assert!(puppet.memory_bytes() >= start + (3 << 20), "{start} bytes, then {}", puppet.memory_bytes());
    order(&mut puppet, json!({"do": "trap"})).await.unwrap_err();
    assert_eq!(puppet.memory_bytes(), 0);
}

#[tokio::test]
async fn tables_and_core_instances_are_limited() {
    for limits in [
        PluginLimits { tables_max: 1, ..limits() },
        PluginLimits { table_elements_max: 100, ..limits() },
        PluginLimits { instances_max: 1, ..limits() },
    ] {
        let error = load("puppet", &limits).await.unwrap_err().to_string();
        assert!(error.contains("does not start") || error.contains("cannot compile"), "{error}");
    }
}

#[tokio::test]
async fn a_stack_has_its_limit() {
    let failure = order(&mut instance("puppet", &limits()).await, json!({"do": "recurse"})).await.unwrap_err();
    assert!(failure.to_string().contains("call stack exhausted"), "{failure}");
}

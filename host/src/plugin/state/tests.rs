use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;

/// A call of a plugin, on one of a few keys.
#[derive(Clone, Debug)]
enum Call {
    Get(String),
    Set(String, String),
    Delete(String),
    Add(String, i64),
}

/// A message: its calls, and whether it succeeds.
type Message = (Vec<Call>, bool);

/// What a call returned, if it depends on the state and is compared.
type Seen = Option<Bytes>;

fn calls() -> impl Strategy<Value = Call> {
    let key = || "[ab]";
    prop_oneof![
        key().prop_map(Call::Get),
        (key(), "[0-9]|word").prop_map(|(key, value)| Call::Set(key, value)),
        key().prop_map(Call::Delete),
        (key(), -5_i64..=5).prop_map(|(key, delta)| Call::Add(key, delta)),
    ]
}

fn deliveries() -> impl Strategy<Value = Vec<Vec<Message>>> {
    vec(vec((vec(calls(), 1..5), prop::bool::weighted(0.8)), 1..4), 1..5)
}

fn buckets() -> Arc<Buckets> {
    let mut config = crate::config::Config::default();
    let variable = |name: &str| (name == "HOST_ALLOW_KEYVALUE").then(|| "b".into());
    if let Ok(loaded) = crate::config::load(&crate::config::Given::default(), variable) {
        config = loaded.config;
    }
    Arc::new(config.allow.keyvalue)
}

/// A delivery in process.
struct Run {
    session: Session,
    messages: Vec<Message>,
    at: (usize, usize),
    seen: Vec<Seen>,
}

impl Run {
    fn new(messages: Vec<Message>, memory: &Memory) -> Run {
        Run { session: Session::new(Box::new(memory.clone()), buckets()), messages, at: (0, 0), seen: Vec::new() }
    }

    /// One step. Returns whether the delivery is done.
    async fn step(&mut self) -> bool {
        let (message, call) = self.at;
        let Some((calls, succeeds)) = self.messages.get(message) else { return true };
        match calls.get(call).cloned() {
            None if *succeeds => self.session.keep(),
            None => self.session.discard(),
            Some(Call::Get(key)) => {
                self.seen.push(self.session.get("b", &[key]).await.unwrap().pop().flatten());
            }
            Some(Call::Set(key, value)) => self.session.change("b", vec![(key, Some(value.into()))]).unwrap(),
            Some(Call::Delete(key)) => self.session.change("b", vec![(key, None)]).unwrap(),
            // A value that is no number is refused.
            Some(Call::Add(key, delta)) => drop(self.session.increment("b", key, delta).await),
        }
        self.at = if call == calls.len() { (message + 1, 0) } else { (message, call + 1) };
        false
    }

    async fn begin_again(&mut self) {
        self.session.begin_again().await;
        (self.at, self.seen) = ((0, 0), Vec::new());
    }
}

/// One delivery after the other, on plain values.
fn in_turn(values: &mut BTreeMap<String, Bytes>, messages: &[Message]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (calls, succeeds) in messages {
        let mut own = values.clone();
        for call in calls {
            match call.clone() {
                Call::Get(key) => seen.push(own.get(&key).cloned()),
                Call::Set(key, value) => drop(own.insert(key, value.into())),
                Call::Delete(key) => drop(own.remove(&key)),
                Call::Add(key, delta) => {
                    if let Some(before) = own.get(&key).map_or(Some(0), |value| number(value)) {
                        own.insert(key, (before + delta).to_string().into());
                    }
                }
            }
        }
        if *succeeds {
            *values = own;
        }
    }
    seen
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn deliveries_side_by_side_do_what_they_would_do_one_after_the_other(
        deliveries in deliveries(),
        schedule in vec(any::<prop::sample::Index>(), 1..64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (memory, mut values) = (Memory::default(), BTreeMap::new());
        let mut runs: Vec<Run> = deliveries.into_iter().map(|messages| Run::new(messages, &memory)).collect();
        let mut schedule = schedule.iter().cycle();
        while !runs.is_empty() {
            let turn = schedule.next().unwrap().index(runs.len());
            let run = &mut runs[turn];
            if !runtime.block_on(run.step()) {
                continue;
            }
            if memory.commit(run.session.effects()) {
                let run = runs.swap_remove(turn);
                prop_assert_eq!(run.seen, in_turn(&mut values, &run.messages));
                for key in ["a", "b"] {
                    let kept = runtime.block_on(memory.read(&[format!("b:{key}")])).pop().flatten();
                    prop_assert_eq!(kept.as_ref(), values.get(key), "{}", key);
                }
            } else {
                runtime.block_on(run.begin_again());
            }
        }
    }
}

#[tokio::test]
async fn bounds_hold_for_each_message_anew() {
    let session = Session::new(Box::new(Memory::default()), buckets());
    let set = |key: String| session.change("b", vec![(key, Some(Bytes::from_static(b"x")))]);
    for _ in 0..3 {
        session.begin();
        for n in 0..KEYS_MAX {
            assert_eq!(set(format!("k-{n}")), Ok(()));
        }
        assert!(set("one-more".to_owned()).is_err());
        assert_eq!(set("k-0".to_owned()), Ok(()), "a key that was used before");
        session.keep();
    }
    session.begin();
    let long = Bytes::from(vec![0; VALUE_BYTES_MAX]);
    let fits =
        (0..).take_while(|n| session.change("b", vec![(format!("l-{}", n % 4), Some(long.clone()))]).is_ok()).count();
    assert_eq!(fits, BYTES_MAX / VALUE_BYTES_MAX);
    session.discard();
    assert_eq!(session.effects().len(), KEYS_MAX);
}

#[test]
fn a_bucket_that_is_not_granted_is_named_with_its_grant() {
    let refused = Session::open(&buckets(), "no\nway").unwrap_err().to_string();
    assert!(refused.contains("--allow-keyvalue no\\nway"), "{refused}");
    assert_eq!(Session::open(&buckets(), "b"), Ok(()));
}

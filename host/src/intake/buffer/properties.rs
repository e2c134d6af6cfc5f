//! The buffer against a model that says the same with lists of lists.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;

/// What is done to a buffer. Shares are of 255, times are milliseconds.
#[derive(Clone, Debug)]
enum Step {
    Push { lengths: Vec<usize>, after: u64 },
    Consume { share: u8 },
    Forget { after: u64, age_max: u64, bytes_max: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (vec(0_usize..120, 0..8), 0_u64..50).prop_map(|(lengths, after)| Step::Push { lengths, after }),
        2 => any::<u8>().prop_map(|share| Step::Consume { share }),
        1 => (0_u64..80, 0_u64..200, 0_usize..2_000)
            .prop_map(|(after, age_max, bytes_max)| Step::Forget { after, age_max, bytes_max }),
    ]
}

/// Messages received at once, of which the first may be gone; memory is given back when all are.
struct Received {
    at: Instant,
    cost: usize,
    waiting: VecDeque<Vec<u8>>,
}

#[derive(Default)]
struct Model {
    chunks: VecDeque<Received>,
    bytes_max: usize,
}

impl Model {
    fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.cost).sum()
    }

    fn waiting(&self) -> Vec<&[u8]> {
        self.chunks.iter().flat_map(|chunk| chunk.waiting.iter().map(Vec::as_slice)).collect()
    }

    fn push(&mut self, payloads: &[Vec<u8>], at: Instant) -> usize {
        let (before, mut cost) = (self.bytes(), 0);
        let mut waiting = VecDeque::new();
        for payload in payloads {
            if before + cost + payload.len() + MESSAGE_OVERHEAD_BYTES <= self.bytes_max {
                cost += payload.len() + MESSAGE_OVERHEAD_BYTES;
                waiting.push_back(payload.clone());
            }
        }
        let shed = payloads.len() - waiting.len();
        if !waiting.is_empty() {
            self.chunks.push_back(Received { at, cost, waiting });
        }
        shed
    }

    fn consume(&mut self, count: usize) {
        for _ in 0..count {
            let first = self.chunks.front_mut().expect("no more is consumed than waits");
            first.waiting.pop_front();
            if first.waiting.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn forget(&mut self, now: Instant, age_max: Duration, bytes_max: usize) -> usize {
        let mut young = 0;
        while let Some(first) = self.chunks.front() {
            let old = now - first.at > age_max;
            if !old && self.bytes() <= bytes_max {
                break;
            }
            young += if old { 0 } else { first.waiting.len() };
            self.chunks.pop_front();
        }
        young
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_buffer_holds_what_its_model_holds(bytes_max in 0_usize..3_000, steps in vec(step(), 0..40)) {
        let (mut buffer, mut model) = (Buffer::new(bytes_max), Model { bytes_max, ..Model::default() });
        let (mut now, mut number) = (Instant::now(), 0_u8);
        for step in steps {
            match step {
                Step::Push { lengths, after } => {
                    now += Duration::from_millis(after);
                    // Each payload tells which one it is.
                    let payloads: Vec<Vec<u8>> = lengths.iter().map(|length| {
                        number = number.wrapping_add(1);
                        vec![number; *length]
                    }).collect();
                    let shed = buffer.push(payloads.iter().map(Vec::as_slice), now);
                    prop_assert_eq!(shed, model.push(&payloads, now));
                }
                Step::Consume { share } => {
                    let count = buffer.len() * usize::from(share) / 255;
                    buffer.consume(count);
                    model.consume(count);
                }
                Step::Forget { after, age_max, bytes_max } => {
                    now += Duration::from_millis(after);
                    let age_max = Duration::from_millis(age_max);
                    prop_assert_eq!(buffer.forget_old(now, age_max, bytes_max), model.forget(now, age_max, bytes_max));
                }
            }
            prop_assert_eq!(buffer.iter().collect::<Vec<_>>(), model.waiting());
            prop_assert_eq!((buffer.len(), buffer.is_empty()), (model.waiting().len(), model.waiting().is_empty()));
            prop_assert_eq!(buffer.oldest(), model.chunks.front().map(|chunk| chunk.at));
            prop_assert_eq!(buffer.bytes, model.bytes());
            prop_assert!(buffer.bytes <= bytes_max);
        }
    }
}

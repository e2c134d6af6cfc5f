//! Whatever waits in the buffer is covered once, in its order, within the bounds.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{almost_json, cases};

const LIMITS: MessageLimits = MessageLimits { bytes_max: 1 << 20, depth_max: 8 };

fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (any::<u16>(), 0_usize..300)
            .prop_map(|(id, filler)| format!(r#"{{"message_id":{id},"x":"{}"}}"#, "y".repeat(filler))),
        3 => almost_json(),
        1 => Just("rubbish".to_owned()),
    ]
}

/// A few kinds of large messages and floods of small ones, which fill more than one round.
fn large() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        vec(
            (200_000_usize..900_000).prop_map(|length| format!(r#"{{"message_id":1,"x":"{}"}}"#, "y".repeat(length))),
            3..8
        ),
        (8_000_usize..20_000).prop_map(|count| vec![r#"{"message_id":1}"#.to_owned(); count]),
    ]
}

fn delivery_config() -> impl Strategy<Value = DeliveryConfig> {
    (1_u32..=128, prop_oneof![1_usize..2_000, Just(256 << 10)]).prop_map(|(messages_max, bytes_max)| DeliveryConfig {
        messages_max,
        bytes_max,
        time_target: Duration::from_millis(50),
    })
}

fn pace() -> impl Strategy<Value = Pace> {
    (0_u64..20, prop::option::of(0_u64..60_000_000)).prop_map(|(consumers, message_ns)| {
        let pace = Pace::default();
        pace.set_group(1, consumers);
        if let Some(message_ns) = message_ns {
            pace.observe(1, Duration::from_nanos(message_ns));
        }
        pace
    })
}

/// A dead letter's field of this name.
fn field<'a>(letter: &'a [String], name: &str) -> &'a str {
    let index = letter.iter().step_by(2).position(|field| field == name).expect("the dead letter has the field");
    &letter[2 * index + 1]
}

/// Fills and consumes round after round, and checks each against what it covers.
fn cover_everything(payloads: &[String], config: &DeliveryConfig, pace: &Pace) -> Result<(), TestCaseError> {
    let mut buffer = Buffer::new(1 << 30);
    buffer.push(payloads.iter().map(|payload| payload.as_bytes()), Instant::now());
    let (mut round, mut waiting) = (Round::default(), payloads);
    while !buffer.is_empty() {
        let messages_max = pace.delivery_messages(buffer.len(), config);
        round.fill(&buffer, pace, config, &LIMITS, ("host", 1));
        prop_assert!((1..=ROUND_MESSAGES_MAX).contains(&round.messages));
        let (covered, rest) = waiting.split_at(round.messages);
        let bytes = |payloads: &[String]| payloads.iter().map(String::len).sum::<usize>();
        prop_assert!(bytes(&covered[..covered.len() - 1]) <= ROUND_BYTES_MAX);
        prop_assert!(rest.is_empty() || round.messages == ROUND_MESSAGES_MAX || bytes(covered) > ROUND_BYTES_MAX);

        let mut delivered = Vec::new();
        for delivery in round.deliveries.texts() {
            let bodies: Vec<&String> = delivery.iter().skip(1).step_by(2).collect();
            let bytes: usize = bodies.iter().map(|body| body.len()).sum();
            prop_assert!((1..=messages_max).contains(&bodies.len()));
            prop_assert!(bytes <= config.bytes_max || bodies.len() == 1);
            delivered.extend(delivery);
        }
        let mut dead = Vec::new();
        let mut expected = (Vec::new(), Vec::new());
        for letter in round.dead_letters.texts() {
            dead.push((field(&letter, "payload").to_owned(), field(&letter, "reason").to_owned()));
        }
        for payload in covered {
            match message::read_id(payload.as_bytes(), &LIMITS) {
                Ok(id) => expected.0.extend([id.into_owned(), payload.clone()]),
                Err(refusal) => expected.1.push((payload.clone(), refusal.reason.to_string())),
            }
        }
        prop_assert_eq!((delivered, dead), expected);
        buffer.consume(round.messages);
        round.done();
        waiting = rest;
    }
    prop_assert!(waiting.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn every_message_is_in_one_delivery_or_is_one_dead_letter(
        payloads in vec(payload(), 0..60), config in delivery_config(), pace in pace(),
    ) {
        cover_everything(&payloads, &config, &pace)?;
    }

    #[test]
    fn a_replay_keeps_nothing_twice_and_loses_nothing(
        payloads in vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just(r#"{"message_id":1}"#)], 0..30),
        replayed in 0_usize..30, kept in vec(0_usize..4, 2),
    ) {
        let mut buffer = Buffer::new(1 << 20);
        buffer.push(payloads.iter().map(|payload| payload.as_bytes()), Instant::now());
        let digests = [("a", kept[0]), ("b", kept[1])].map(|(text, count)| (PayloadDigest::of(text.as_bytes()), count));
        let mut round = Round::after_replay(replayed, HashMap::from(digests));
        let config = DeliveryConfig { messages_max: 128, bytes_max: 1 << 20, time_target: Duration::from_millis(50) };
        round.fill(&buffer, &Pace::default(), &config, &LIMITS, ("host", 1));
        let letters = round.dead_letters.texts();
        for (text, kept) in [("a", kept[0]), ("b", kept[1]), ("c", 0)] {
            let count = |payloads: &[&str]| payloads.iter().filter(|payload| **payload == text).count();
            let (old, new) = payloads.split_at(replayed.min(payloads.len()));
            let expected = count(old).saturating_sub(kept) + count(new);
            prop_assert_eq!(letters.iter().filter(|letter| field(letter, "payload") == text).count(), expected);
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn what_fills_several_rounds_is_covered_too(payloads in large(), config in delivery_config(), pace in pace()) {
        cover_everything(&payloads, &config, &pace)?;
    }
}

//! Every message of a round is covered once, in its order, within the bounds.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{almost_json, cases};
use crate::config::Config;

fn limits() -> MessageConfig {
    MessageConfig { bytes_max: 1 << 20, depth_max: 8, ..Config::default().message }
}

fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (any::<u16>(), 0_usize..300)
            .prop_map(|(id, filler)| format!(r#"{{"message_id":{id},"x":"{}"}}"#, "y".repeat(filler))),
        3 => almost_json(),
        1 => Just("rubbish".to_owned()),
    ]
}

fn delivery_config() -> impl Strategy<Value = DeliveryConfig> {
    (1_u32..=128, prop_oneof![1_usize..2_000, Just(256 << 10)]).prop_map(|(messages_max, bytes_max)| DeliveryConfig {
        messages_max,
        bytes_max,
        time_target: Duration::from_millis(50),
    })
}

/// A dead letter's field of this name.
fn field<'a>(letter: &'a [String], name: &str) -> &'a str {
    let index = letter.iter().step_by(2).position(|field| field == name).expect("the dead letter has the field");
    &letter[2 * index + 1]
}

/// Fills a round and checks it against what it covers.
fn cover_everything(payloads: &[String], config: &DeliveryConfig, messages_max: usize) -> Result<(), TestCaseError> {
    let mut round = Round::default();
    round.fill(payloads.iter().map(|payload| payload.as_bytes()), messages_max, config, &limits(), ("host", 1));
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
    for payload in payloads {
        match message::read_id(payload.as_bytes(), &limits()) {
            Ok(id) => expected.0.extend([id.into_owned(), payload.clone()]),
            Err(refusal) => expected.1.push((payload.clone(), refusal.reason.to_string())),
        }
    }
    prop_assert_eq!((delivered, dead), expected);
    Ok(())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn every_message_is_in_one_delivery_or_is_one_dead_letter(
        payloads in vec(payload(), 0..60), config in delivery_config(), messages_max in 1_usize..=128,
    ) {
        cover_everything(&payloads, &config, messages_max)?;
    }
}

//! A delivery is within its bounds, whatever was learnt and however strange.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;

fn config() -> impl Strategy<Value = DeliveryConfig> {
    (1_u32..=128, 1_u64..60_000).prop_map(|(messages_max, target_ms)| DeliveryConfig {
        messages_max,
        bytes_max: 256 << 10,
        time_target: Duration::from_millis(target_ms),
    })
}

/// Mostly times that plugins take, and now and then any.
fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0_u64..5_000_000).prop_map(Duration::from_nanos),
        1 => (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn a_delivery_is_within_its_bounds(
        config in config(), consumers in prop_oneof![0_u64..2_000, any::<u64>()],
        waiting in prop_oneof![0_usize..5_000, any::<usize>()], observed in vec((0_usize..300, time()), 0..6),
    ) {
        let pace = Pace::default();
        pace.set_group(1, consumers);
        for (messages, took) in observed {
            pace.observe(1, messages, took);
        }
        let messages = pace.delivery_messages(waiting, &config) as u64;
        prop_assert!((1..=u64::from(config.messages_max)).contains(&messages));
        let share = (waiting as u64).div_ceil(consumers.max(1));
        match pace.message_ns.load(Ordering::Relaxed) {
            0 => prop_assert!(messages <= share.clamp(1, UNKNOWN_SPEED_MESSAGES_MAX)),
            message_ns => {
                let work = Duration::from_nanos(message_ns.saturating_mul(messages));
                prop_assert!(messages == 1 || work <= config.time_target, "{:?}", work);
                // More than an equal share only for as much work as pays.
                prop_assert!(messages <= share.max(1) || work <= Duration::from_nanos(WORTHWHILE_NS), "{:?}", work);
            }
        }
        prop_assert!(messages <= pace.delivery_messages(waiting.saturating_add(1_000), &config) as u64);
    }

    #[test]
    fn the_usual_time_stays_within_what_was_observed(observed in vec((1_usize..300, time()), 1..20)) {
        let pace = Pace::default();
        let (mut least, mut most) = (u64::MAX, 0);
        for (messages, took) in observed {
            let mean = (u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / messages as u64).max(1);
            (least, most) = (least.min(mean), most.max(mean));
            pace.observe(1, messages, took);
            let usual = pace.message_ns.load(Ordering::Relaxed);
            prop_assert!((least..=most).contains(&usual), "{} of {}..={}", usual, least, most);
        }
    }
}

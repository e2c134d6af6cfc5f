//! When a standby takes the lease of an active intake that has died.

use super::*;

/// Lease of the dead host, which had just renewed it.
const LEASE_MS: u64 = 3_000;

const DATA: ReplicationId = ReplicationId(1);

const SETTINGS: Settings = Settings {
    buffer_bytes_max: 1 << 20,
    silence_max: Duration::from_secs(3),
    claim_age_max: Duration::from_secs(60),
    round_messages_max: 128,
    round_bytes_max: 1 << 20,
};

/// How long after the last renewal a standby asks for the lease, and gets it.
fn taken_after(covered: &str, seed: u64) -> Duration {
    let start = Instant::now();
    let mut protocol = Protocol::new("standby".into(), SETTINGS, start, seed);
    protocol.opened(1, Beginning { is_at_replica: false, data: DATA }, start);
    let (mut now, mut number) = (start, 2);
    loop {
        let passed_ms = u64::try_from((now - start).as_millis()).unwrap();
        match protocol.next(now) {
            Step::Mark(Wish::Take) if passed_ms >= LEASE_MS => return now - start,
            Step::Mark(_) => {
                number += 1;
                let has_ended = passed_ms >= LEASE_MS;
                let announcement = Announcement {
                    mark: Mark { history: 1_000, number, at_ms: 5_000 + passed_ms },
                    holder: if has_ended { Holder::Nobody } else { Holder::Host("dead".to_owned()) },
                    lease_left: Duration::from_millis(LEASE_MS.saturating_sub(passed_ms)),
                    covered: covered.parse().unwrap_or_default(),
                };
                protocol.announced(&announcement, DATA, now);
                protocol.mark(1, &announcement, now);
            }
            Step::Wait(until) => now = until,
            step => panic!("{step:?} after {passed_ms} ms"),
        }
        assert!(passed_ms < 2 * LEASE_MS, "nobody takes the lease");
    }
}

#[test]
fn a_standby_takes_the_lease_when_it_ends() {
    for seed in 0..200 {
        // The list is empty, so this host has heard everything since; and it ends before the first mark that this host has heard.
        let (has_heard, has_not) = (taken_after("", seed), taken_after("1000.1.3000.0~1000.2.3500.0", seed));
        let ms = |from, to| Duration::from_millis(from)..Duration::from_millis(to);
        assert!(ms(3_000, 3_060).contains(&has_heard), "{has_heard:?}");
        assert!(ms(3_200, 3_260).contains(&has_not), "{has_not:?}");
    }
}

#[test]
fn a_lease_stays_with_a_host_that_continues_under_another_id() {
    let start = Instant::now();
    let mut protocol = Protocol::new("before".into(), SETTINGS, start, 1);
    protocol.opened(1, Beginning { is_at_replica: false, data: DATA }, start);
    let marked = |protocol: &mut Protocol, number, holder: &str| {
        let announcement = Announcement {
            mark: Mark { history: 1_000, number, at_ms: 5_000 },
            holder: Holder::Host(holder.to_owned()),
            lease_left: Duration::from_millis(LEASE_MS),
            covered: Covered::default(),
        };
        protocol.announced(&announcement, DATA, start);
        protocol.mark(1, &announcement, start);
        protocol.state(start)
    };
    assert_eq!(marked(&mut protocol, 1, "before"), State::Active);
    protocol.known_as(&"after".into(), false);
    // What was published under the id of before arrives later.
    assert_eq!(
        (marked(&mut protocol, 2, "before"), protocol.former_id().map(|id| &**id)),
        (State::Active, Some("before"))
    );
    assert_eq!(marked(&mut protocol, 3, "after"), State::Active);
    assert_eq!(marked(&mut protocol, 4, "another"), State::Standby);
}

//! The brake: what it holds back, for how long, and what it leaves alone.

use super::*;

#[test]
fn a_new_leader_holds_back_for_the_whole_time_again() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 4);
    for _ in 0..3 {
        leader.pass(TTL * 2 / 3);
        leader.settle();
        leader.pass(HOLD - TTL * 2 / 3 - Duration::from_secs(1));
        leader.settle();
        assert_eq!(leader.leases.brakes().len(), 1);
        leader.leases.lead(leader.now, TERM);
    }
    assert_eq!(leader.left(&keys), 4);
}

#[test]
fn the_brake_holds_back_what_would_empty_a_service() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    // Eight die, with renewals spread over a third of the TTL.
    let (dead, alive) = keys.split_at(8);
    for key in dead {
        leader.pass(TTL / 3 / 8);
        leader.renew(std::slice::from_ref(key));
    }
    for _ in 0..30 {
        leader.pass(TTL / 15);
        leader.renew(alive);
        leader.settle();
    }
    assert_eq!(leader.left(&keys), 10, "held back");
    let brakes = leader.leases.brakes();
    assert_eq!(brakes.len(), 1);
    assert_eq!(
        (brakes[0].held, brakes[0].unwell, brakes[0].leases),
        (8, 8, 10)
    );
    assert!(brakes[0].to_string().contains("8 of 10"), "{}", brakes[0]);

    // It ends by itself.
    for _ in 0..60 {
        leader.pass(HOLD / 60);
        leader.renew(alive);
        leader.settle();
    }
    assert_eq!(leader.left(dead), 0);
    assert_eq!(leader.left(alive), 2);
    assert!(leader.leases.brakes().is_empty());
}

#[test]
fn the_brake_ends_when_enough_come_back() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    let (back, rest) = keys.split_at(5);
    leader.pass(TTL * 2 / 3);
    leader.settle();
    leader.pass(TTL / 3);
    leader.settle();
    assert_eq!(leader.left(&keys), 10);
    leader.renew(back);
    leader.settle();
    assert_eq!(leader.left(back), 5);
    assert_eq!(leader.left(rest), 0);
    assert!(leader.leases.brakes().is_empty());

    // A later alarm is a new one, with a whole hold of its own.
    leader.pass(HOLD);
    leader.settle();
    leader.settle();
    assert_eq!(leader.left(back), 5);
    assert_eq!(leader.leases.brakes().len(), 1);
}

#[test]
fn the_brake_leaves_small_losses_alone() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    let both = leader.register_many("tiny", 2);
    for _ in 0..4 {
        leader.pass(TTL / 4);
        leader.renew(&keys[5..]);
        leader.settle();
    }
    assert_eq!(leader.left(&keys[..5]), 0, "half is not most");
    assert_eq!(leader.left(&both), 0, "two are too few for the brake");
    assert!(leader.leases.brakes().is_empty());
}

#[test]
fn a_hold_of_zero_is_no_brake() {
    let mut leader = Leader::new();
    leader.leases = Leases::new(LeaseSettings {
        brake_hold: Duration::ZERO,
        ..LeaseSettings::default()
    });
    leader.leases.lead(leader.now, TERM);
    let keys = leader.register_many("catalog", 10);
    leader.pass(TTL * 2 / 3);
    leader.settle();
    leader.pass(TTL / 3);
    leader.settle();
    assert_eq!(leader.left(&keys), 0);
}

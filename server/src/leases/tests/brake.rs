//! The brake: what it holds back, for how long, and what it leaves alone.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl Leader {
    /// So many instances in each of the zones.
    fn register_zones(&mut self, zones: &[&str], each: usize) -> Vec<Vec<LeaseKey>> {
        let of = |zone: &&str| {
            let ids = (0..each).map(|i| format!("{zone}{i}"));
            ids.map(|id| self.register_in(zone, "catalog", &id))
                .collect()
        };
        zones.iter().map(of).collect()
    }

    /// Time goes by, in which these renew and nobody else.
    fn live(&mut self, alive: &[LeaseKey], duration: Duration) {
        for _ in 0..duration.as_secs() {
            self.pass(SECOND);
            self.renew(alive);
            self.settle();
        }
    }

    fn brake(&self) -> Brake {
        let brakes = self.brakes();
        assert_eq!(brakes.len(), 1, "{brakes:?}");
        brakes[0].clone()
    }
}

fn numbers(brake: &Brake) -> (usize, u32, u32) {
    (brake.held, brake.unwell, brake.leases)
}

fn zone(name: &str) -> Scope {
    Scope::Zone(Zone::parse(name).unwrap())
}

#[test]
fn most_of_a_service_is_held_and_goes_at_once_when_the_time_is_up() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    // Eight die, with renewals spread over a third of the TTL.
    let (dead, alive) = keys.split_at(8);
    for key in dead {
        leader.pass(TTL / 3 / 8);
        leader.renew(std::slice::from_ref(key));
    }
    leader.live(alive, TTL + HOLD - 6 * SECOND);
    assert_eq!(leader.left(&keys), 10, "held back");
    let brake = leader.brake();
    assert_eq!(
        (numbers(&brake), &brake.scope),
        ((8, 8, 10), &Scope::Service)
    );
    assert!(brake.to_string().contains("8 of 10"), "{brake}");
    assert!(brake.ends_in <= 6 * SECOND && brake.age + brake.ends_in == HOLD);

    leader.live(alive, 6 * SECOND);
    assert_eq!(leader.left(dead), 0, "at once, and not held again");
    assert_eq!(leader.left(alive), 2);
    assert!(leader.brakes().is_empty());
}

#[test]
fn a_zone_that_goes_dark_is_held_though_it_is_a_third_of_the_service() {
    let mut leader = Leader::new();
    let zones = leader.register_zones(&["a", "b", "c"], 4);
    let [dark, rest] = [zones[0].clone(), zones[1..].concat()];
    // One more dies elsewhere: that is its own affair.
    let (died, alive) = rest.split_at(1);
    leader.live(alive, TTL + SECOND);
    assert_eq!((leader.left(&dark), leader.left(died)), (4, 0));
    let brake = leader.brake();
    assert_eq!((numbers(&brake), &brake.scope), ((4, 4, 4), &zone("a")));
    assert!(
        brake.reason().contains("4 of 4 instances in zone a"),
        "{brake}"
    );

    leader.live(alive, HOLD);
    assert_eq!((leader.left(&dark), leader.left(alive)), (0, 7));
}

#[test]
fn a_service_that_is_lost_says_which_zone_it_was_in() {
    let mut leader = Leader::new();
    let zones = leader.register_zones(&["a", "b"], 4);
    let gone = [&zones[0][..], &zones[1][..1]].concat();
    leader.live(&zones[1][1..], TTL + SECOND);
    let brake = leader.brake();
    assert_eq!(
        (numbers(&brake), &brake.scope),
        ((5, 5, 8), &Scope::Service)
    );
    assert_eq!((leader.left(&gone), brake.zone()), (5, None));

    let mut leader = Leader::new();
    let keys = leader.register_zones(&["a"], 4).concat();
    leader.live(&[], TTL + SECOND);
    assert_eq!(leader.left(&keys), 4);
    let brake = leader.brake();
    assert_eq!(brake.zone().map(Zone::as_str), Some("a"));
    assert!(brake.reason().contains("all in zone a"), "{brake}");
}

#[test]
fn what_a_replica_is_cut_off_from_is_held_though_it_is_half_or_less() {
    for lost in [3, 5] {
        let mut leader = Leader::new();
        let keys = leader.register_zones(&["a", "b"], 5).concat();
        let (dead, alive) = keys.split_at(lost);
        leader.leases.renew(leader.now, 2, dead);
        leader.live(alive, TTL + SECOND);
        assert_eq!(leader.left(dead), lost);
        let brake = leader.brake();
        if lost == 3 {
            assert_eq!(brake.scope, zone("a"), "most of that zone as well");
        }
        assert_eq!(brake.via_replica(), Some(2));
        assert!(brake.reason().contains("replica 2"), "{brake}");
    }
    // A tenth of the service is too little to say anything.
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 30);
    let (dead, alive) = keys.split_at(3);
    leader.leases.renew(leader.now, 2, dead);
    leader.live(alive, TTL + SECOND);
    assert_eq!(leader.left(dead), 0);
}

#[test]
fn what_the_leader_of_before_took_with_it_is_held() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    leader.renew(&keys);
    // It is cut off, with half of the instances; another one takes office.
    leader.leases.lead(leader.now, TERM);
    let (dead, alive) = keys.split_at(5);
    leader.live(alive, TTL + SECOND);
    assert_eq!(leader.left(dead), 5);
    assert_eq!(leader.brake().scope, Scope::Unheard);
    leader.live(alive, HOLD);
    assert_eq!(leader.left(&keys), 5);
}

#[test]
fn it_ends_when_enough_came_back_and_the_rest_had_as_long_to_follow() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 10);
    leader.live(&[], TTL + SECOND);
    assert_eq!(leader.left(&keys), 10);
    let (back, rest) = keys.split_at(5);
    leader.live(back, TTL - 3 * SECOND);
    assert_eq!(leader.left(&keys), 10);
    assert!(leader.brake().calm && leader.brake().ends_in <= 4 * SECOND);
    // One is slow to find its way.
    let back = &keys[..6];
    leader.live(back, 5 * SECOND);
    assert_eq!((leader.left(back), leader.left(&rest[1..])), (6, 0));
    assert!(leader.brakes().is_empty());

    // A later loss is a new one, with a whole hold of its own.
    leader.live(&[], TTL + HOLD - SECOND);
    assert_eq!(leader.left(back), 6);
    leader.live(&[], 2 * SECOND);
    assert_eq!(leader.left(back), 0);
}

#[test]
fn all_three_of_a_small_service_are_known_to_be_lost_when_the_first_is_due() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 3);
    for key in &keys {
        leader.renew(std::slice::from_ref(key));
        leader.pass(TTL / 6);
        leader.settle();
    }
    for _ in 0..200 {
        leader.pass(Duration::from_millis(100));
        leader.settle();
    }
    assert_eq!(leader.left(&keys), 3);
}

#[test]
fn ordinary_deaths_are_not_held() {
    let mut leader = Leader::new();
    let zones = leader.register_zones(&["a", "b", "c"], 3);
    let tiny = leader.register_many("tiny", 2);
    // One of each zone, and all of a service of two.
    let dead: Vec<LeaseKey> = zones.iter().map(|zone| zone[0].clone()).collect();
    let alive: Vec<LeaseKey> = zones.iter().flat_map(|zone| zone[1..].to_vec()).collect();
    leader.live(&alive, TTL);
    assert_eq!(leader.left(&dead), 0);
    assert_eq!(leader.left(&tiny), 0, "two are too few for the brake");

    let half = leader.register_many("half", 10);
    leader.renew(&half);
    leader.live(&[&alive[..], &half[5..]].concat(), TTL);
    assert_eq!(leader.left(&half[..5]), 0, "half is not most");
    assert!(leader.brakes().is_empty());
}

#[test]
fn who_was_expected_to_go_is_neither_held_nor_counted() {
    let mut leader = Leader::new();
    let keys = leader.register_zones(&["a"], 10).concat();
    leader.renew(&keys);
    // Nine drain and are killed; the tenth goes on.
    for lease in keys[..9].iter().cloned() {
        let status = DeclaredStatus::Draining;
        leader.apply(&Command::SetStatus(SetStatus { lease, status }));
    }
    leader.live(&keys[9..], TTL);
    assert_eq!(leader.left(&keys), 1);
    assert!(leader.brakes().is_empty());

    // The same when their leases are found by a new leader.
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 4);
    for lease in keys.iter().cloned() {
        let status = DeclaredStatus::Draining;
        leader.apply(&Command::SetStatus(SetStatus { lease, status }));
    }
    let registry = leader.registry.clone();
    leader.leases.reset(leader.now, &registry);
    leader.live(&[], TTL);
    assert_eq!(leader.left(&keys), 0);
}

#[test]
fn a_rolling_restart_by_kill_raises_nothing() {
    let mut leader = Leader::new();
    let mut alive = leader.register_zones(&["a", "b", "c"], 4).concat();
    for i in 0..alive.len() {
        // Killed, and its stream broke; another takes its place.
        let dead = alive[i].clone();
        let broken = std::slice::from_ref(&dead);
        leader.leases.broken(leader.now, HERE, broken);
        alive[i] = leader.register_in(["a", "b", "c"][i / 4], "catalog", &format!("new{i}"));
        leader.live(&alive, 8 * SECOND);
        assert!(leader.brakes().is_empty());
    }
    leader.live(&alive, TTL);
    assert_eq!(leader.leases.len(), 12);
}

#[test]
fn all_killed_and_all_started_anew_under_other_names_raises_nothing() {
    let mut leader = Leader::new();
    let old = leader.register_many("catalog", 6);
    leader.renew(&old);
    leader.leases.broken(leader.now, HERE, &old);
    let ids = (0..6).map(|i| format!("new{i}"));
    let new: Vec<LeaseKey> = ids.map(|id| leader.register("catalog", &id)).collect();
    leader.live(&new, TTL);
    assert_eq!((leader.left(&old), leader.left(&new)), (0, 6));
}

#[test]
fn each_new_leader_costs_one_ttl_and_one_hold_at_most() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 4);
    for _ in 0..3 {
        leader.live(&[], TTL + HOLD - SECOND);
        assert_eq!((leader.left(&keys), leader.brakes().len()), (4, 1));
        leader.leases.lead(leader.now, TERM);
        assert!(leader.brakes().is_empty());
    }
    leader.live(&[], TTL + HOLD + SECOND);
    assert_eq!(leader.left(&keys), 0);
}

#[test]
fn a_hold_shorter_than_the_loss_is_spread_is_not_begun_again() {
    let mut leader = Leader::new();
    leader.leases = Leases::new(LeaseSettings {
        brake_hold: 2 * SECOND,
        ..LeaseSettings::default()
    });
    leader.leases.lead(leader.now, TERM);
    let keys = leader.register_many("catalog", 6);
    for key in &keys {
        leader.renew(std::slice::from_ref(key));
        leader.pass(SECOND);
    }
    leader.live(&[], TTL);
    assert_eq!(leader.left(&keys), 0);
}

#[test]
fn a_judgement_that_is_lost_on_its_way_is_not_held_when_made_again() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 4);
    leader.live(&[], TTL + HOLD - SECOND);
    leader.pass(2 * SECOND);
    let lost = leader.judge().unwrap();
    assert_eq!(lost.expire.len(), 4);
    leader.live(&[], 3 * SECOND);
    assert_eq!(leader.left(&keys), 0);
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
    leader.live(&[], TTL);
    assert_eq!(leader.left(&keys), 0);
}

#[test]
fn share_and_number_are_the_operators() {
    for (share, min, held) in [(20, 3, 3), (30, 3, 0), (20, 4, 0)] {
        let mut leader = Leader::new();
        leader.leases = Leases::new(LeaseSettings {
            brake_share: share,
            brake_min: min,
            ..LeaseSettings::default()
        });
        leader.leases.lead(leader.now, TERM);
        let keys = leader.register_many("catalog", 10);
        leader.live(&keys[3..], TTL + SECOND);
        assert_eq!(leader.left(&keys[..3]), held, "{share} {min}");
    }
}

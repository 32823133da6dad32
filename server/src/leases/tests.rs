//! Leases judged over hours of lease time, without waiting for any of it.

use std::time::Duration;

use trimtab_registry::command::{
    Command, Deregister, JudgeLeases, LEASES_PER_JUDGEMENT_MAX, Register, SetStatus,
};
use trimtab_registry::event::Event;
use trimtab_registry::instance::{
    Capacity, DeclaredStatus, InstanceSpec, LeaseKey, Metadata, Status, Ttl,
};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::outcome::Outcome;
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;

use super::brake::{Brake, Scope};
use super::{Judge, LeaseSettings, LeaseTime, Leases};

mod brake;
mod clock;
mod journal;
mod random;

const TERM: u64 = 3;
const TTL: Duration = Duration::from_secs(15);
const HOLD: Duration = Duration::from_secs(60);
/// The replica that renewals come through unless a test says otherwise.
const HERE: u64 = 1;

/// A leader's leases beside the registry that its judgements are applied to.
struct Leader {
    leases: Leases,
    registry: Registry,
    now: LeaseTime,
}

impl Leader {
    fn new() -> Self {
        let mut leases = Leases::new(LeaseSettings {
            brake_hold: HOLD,
            ..LeaseSettings::default()
        });
        leases.lead(LeaseTime::default(), TERM);
        Self {
            leases,
            registry: Registry::new(),
            now: LeaseTime::default(),
        }
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        let at = Position {
            index: self.registry.applied().index + 1,
            term: TERM,
        };
        let applied = self.registry.apply(at, command);
        for event in &applied.events {
            self.leases.observe(self.now, event);
        }
        applied.outcome.unwrap()
    }

    fn register(&mut self, service: &str, id: &str) -> LeaseKey {
        self.register_in("", service, id)
    }

    fn register_in(&mut self, zone: &str, service: &str, id: &str) -> LeaseKey {
        let service = ServiceName::parse(service).unwrap();
        let id = InstanceId::parse(id).unwrap();
        self.apply(&Command::Register(Register {
            service: service.clone(),
            instance: InstanceSpec {
                id: id.clone(),
                group: GroupName::parse("v1").unwrap(),
                address: Address::parse("127.0.0.1:80").unwrap(),
                zone: Zone::parse(zone).unwrap(),
                capacity: Capacity::default(),
                metadata: Metadata::default(),
                status: DeclaredStatus::Ready,
            },
            ttl: Ttl::from_millis(TTL.as_millis() as u64).unwrap(),
            at_ms: 0,
        }));
        let instance = self.registry.service(&service).unwrap().instance(&id);
        instance.unwrap().lease_key(&service)
    }

    fn register_many(&mut self, service: &str, count: usize) -> Vec<LeaseKey> {
        (0..count)
            .map(|i| self.register(service, &format!("i{i}")))
            .collect()
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    fn renew(&mut self, keys: &[LeaseKey]) {
        assert_eq!(self.leases.renew(self.now, HERE, keys), Vec::new());
    }

    fn judge(&mut self) -> Option<JudgeLeases> {
        match self.leases.judge(self.now)? {
            Command::JudgeLeases(judged) => Some(judged),
            other => panic!("not a judgement: {other:?}"),
        }
    }

    /// Judges and applies until there is nothing more to judge, now and in the
    /// next step: what is due is removed in the step after.
    fn settle(&mut self) {
        for _ in 0..2 {
            while let Some(judged) = self.judge() {
                self.apply(&Command::JudgeLeases(judged));
            }
            self.pass(Duration::from_nanos(1));
        }
    }

    fn brakes(&self) -> Vec<Brake> {
        self.leases.brakes(self.now)
    }

    fn status(&self, key: &LeaseKey) -> Option<Status> {
        let instance = self
            .registry
            .service(&key.service)?
            .instance(&key.instance)?;
        (instance.lease == key.lease).then(|| instance.status())
    }

    /// As applied, whatever else the instance says of itself.
    fn is_suspect(&self, key: &LeaseKey) -> bool {
        let service = self.registry.service(&key.service);
        let instance = service.and_then(|service| service.instance(&key.instance));
        instance.is_some_and(|it| it.lease == key.lease && it.suspect_since.is_some())
    }

    fn left(&self, keys: &[LeaseKey]) -> usize {
        keys.iter().filter(|key| self.status(key).is_some()).count()
    }
}

#[test]
fn who_renews_stays_ready() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    for _ in 0..100 {
        leader.pass(TTL / 3);
        leader.renew(std::slice::from_ref(&key));
        leader.settle();
        assert_eq!(leader.status(&key), Some(Status::Ready));
    }
}

#[test]
fn silence_is_suspect_at_two_thirds_and_over_at_the_ttl() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader.pass(TTL / 3);
    leader.renew(std::slice::from_ref(&key));

    leader.pass(TTL * 2 / 3 - Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));
    leader.pass(Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));

    leader.pass(TTL / 3 - Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
    leader.pass(Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.status(&key), None);
    assert!(leader.leases.is_empty());
}

#[test]
fn nothing_is_removed_that_was_not_suspect_before() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader.pass(TTL * 10);
    let judged = leader.judge().unwrap();
    assert_eq!(judged.suspect, vec![key]);
    assert!(judged.expire.is_empty());
}

#[test]
fn a_renewal_revives() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader.pass(TTL * 2 / 3);
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
    leader.renew(std::slice::from_ref(&key));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));
    leader.pass(TTL * 2 / 3);
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
}

#[test]
fn a_renewal_while_the_judgement_is_under_way_revives() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader.pass(TTL * 2 / 3);
    let judged = leader.judge().unwrap();
    leader.renew(std::slice::from_ref(&key));
    leader.apply(&Command::JudgeLeases(judged));
    assert_eq!(leader.status(&key), Some(Status::Suspect));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));
}

#[test]
fn a_broken_stream_is_suspect_within_a_second() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader.renew(std::slice::from_ref(&key));
    leader
        .leases
        .broken(leader.now, HERE, std::slice::from_ref(&key));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));
    leader.pass(Duration::from_millis(500));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));

    // The mark for removal still counts from the last renewal.
    leader.pass(TTL - Duration::from_millis(500));
    leader.settle();
    assert_eq!(leader.status(&key), None);
}

#[test]
fn several_breaks_count_from_the_first() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    for _ in 0..5 {
        let keys = std::slice::from_ref(&key);
        leader.leases.broken(leader.now, HERE, keys);
        leader.pass(Duration::from_millis(100));
    }
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
}

#[test]
fn a_new_leader_does_not_know_through_whom_leases_were_renewed() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    let keys = std::slice::from_ref(&key);
    leader.leases.renew(leader.now, 1, keys);
    leader.leases.lead(leader.now, TERM);
    leader.leases.broken(leader.now, 2, keys);
    leader.pass(Duration::from_millis(500));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
}

#[test]
fn a_renewal_after_the_break_keeps_it_ready() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    leader
        .leases
        .broken(leader.now, HERE, std::slice::from_ref(&key));
    leader.pass(Duration::from_millis(300));
    leader.renew(std::slice::from_ref(&key));
    leader.pass(Duration::from_secs(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));
}

#[test]
fn a_break_heard_of_after_it_moved_to_another_replica_is_passed_over() {
    let mut leader = Leader::new();
    let key = leader.register("catalog", "a");
    let keys = std::slice::from_ref(&key);
    leader.leases.renew(leader.now, 1, keys);
    leader.leases.renew(leader.now, 2, keys);
    leader.leases.broken(leader.now, 1, keys);
    leader.pass(Duration::from_secs(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Ready));

    leader.leases.broken(leader.now, 2, keys);
    leader.pass(Duration::from_secs(1));
    leader.settle();
    assert_eq!(leader.status(&key), Some(Status::Suspect));
}

#[test]
fn a_new_leader_grants_one_whole_ttl() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 2);
    leader.pass(TTL * 2 / 3);
    leader.settle();
    leader.leases.follow();
    leader.pass(TTL * 5);
    leader.settle();
    assert_eq!(leader.left(&keys), 2, "a follower judges nobody");

    leader.leases.lead(leader.now, TERM);
    leader.pass(TTL - Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.left(&keys), 2);
    leader.pass(Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.left(&keys), 0);
}

#[test]
fn a_new_leader_forgets_breaks_and_dues_of_before() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 4);
    leader.leases.broken(leader.now, HERE, &keys[..1]);
    leader.pass(TTL * 2 / 3);
    leader.settle();
    leader.pass(TTL / 3);
    leader.settle();
    assert_eq!(leader.brakes().len(), 1);

    leader.leases.lead(leader.now, TERM);
    assert!(leader.brakes().is_empty());
    leader.pass(TTL - Duration::from_millis(1));
    leader.settle();
    assert_eq!(leader.left(&keys), 4);
    leader.renew(&keys);
    leader.settle();
    assert!(
        keys.iter()
            .all(|key| leader.status(key) == Some(Status::Ready))
    );
}

#[test]
fn unknown_and_replaced_leases_are_lost() {
    let mut leader = Leader::new();
    let old = leader.register("catalog", "a");
    let new = leader.register("catalog", "a");
    let lost = leader
        .leases
        .renew(leader.now, HERE, &[old.clone(), new.clone()]);
    assert_eq!(lost, vec![old]);
    assert_eq!(leader.leases.len(), 1);
    assert_eq!(leader.status(&new), Some(Status::Ready));
}

#[test]
fn a_judgement_is_made_again_only_when_nothing_came_of_it() {
    let mut leader = Leader::new();
    leader.register("catalog", "a");
    leader.pass(TTL * 2 / 3);
    let first = leader.judge().unwrap();
    assert!(leader.judge().is_none());
    leader.pass(Duration::from_millis(1_999));
    assert!(leader.judge().is_none());
    leader.pass(Duration::from_millis(1));
    assert_eq!(leader.judge().unwrap(), first);
}

#[test]
fn a_judgement_is_bounded() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", LEASES_PER_JUDGEMENT_MAX + 10);
    leader.pass(TTL * 2 / 3);
    let first = leader.judge().unwrap();
    assert_eq!(first.len(), LEASES_PER_JUDGEMENT_MAX);
    let second = leader.judge().unwrap();
    assert_eq!(first.len() + second.len(), keys.len());
    assert!(leader.judge().is_none());
}

#[test]
fn leases_are_rebuilt_from_a_registry() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 3);
    leader.pass(TTL * 2 / 3);
    leader.renew(&keys[1..]);
    leader.settle();
    assert_eq!(leader.status(&keys[0]), Some(Status::Suspect));

    let registry = leader.registry.clone();
    leader.leases.reset(leader.now, &registry);
    assert_eq!(leader.leases.len(), 3);
    leader.renew(&keys);
    leader.settle();
    assert_eq!(leader.status(&keys[0]), Some(Status::Ready));
    leader.pass(TTL * 2 / 3);
    leader.settle();
    assert!(
        keys.iter()
            .all(|key| leader.status(key) == Some(Status::Suspect))
    );
}

#[test]
fn leases_that_end_are_forgotten() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 5);
    leader.pass(TTL * 2 / 3);
    leader.settle();
    leader.pass(TTL / 3);
    leader.settle();
    assert_eq!(leader.brakes().len(), 1);
    for key in keys {
        leader
            .leases
            .observe(leader.now, &Event::LeaseEnded { key });
    }
    leader.settle();
    let leases = &leader.leases;
    assert!(leases.is_empty() && leases.agenda.is_empty());
    assert!(leases.wards.is_empty() && leases.restless.is_empty());
}

//! What holds after any sequence of commands, sensible or not.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use trimtab_registry::command::{
    Adjustment, Change, Command, Expiry, JudgeLeases, RollbackTarget, Share, Target,
};
use trimtab_registry::event::Event;
use trimtab_registry::history::RouteChange;
use trimtab_registry::instance::{DeclaredStatus, LeaseKey};
use trimtab_registry::outcome::{Effect, Outcome};
use trimtab_registry::policy::{Count, RoutePolicy};
use trimtab_registry::revision::Revision;
use trimtab_registry::route::{BasisPoints, Route, WHOLE, Weights};
use trimtab_registry::snapshot::Snapshot;
use trimtab_registry::state::Registry;
use trimtab_registry::view::ServiceView;

use crate::world::*;

const SERVICES: [&str; 2] = ["s0", "s1"];
const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
/// The first three are there from the start, one in each group.
const INSTANCES: [&str; 5] = ["g0-0", "g1-0", "g2-0", "i3", "i4"];

/// A command to be: what it refers to is looked up when its turn comes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Register {
        of: &'static str,
        group: &'static str,
        id: &'static str,
        capacity: u32,
        status: DeclaredStatus,
    },
    SetStatus(Ref, DeclaredStatus),
    Deregister(Ref),
    Judge {
        term: u64,
        suspect: Vec<Ref>,
        revive: Vec<Ref>,
        expire: Vec<Ref>,
    },
    Shift {
        targets: Vec<(&'static str, Target, Option<bool>, Option<RoutePolicy>)>,
        change: Change,
    },
    Rollback {
        of: Vec<&'static str>,
        to: Option<usize>,
        change: Change,
    },
    Teardown(&'static str, &'static str, Change),
    Adjust(&'static str, &'static str, Adjustment),
}

/// A lease: the present one of an instance, or a wrong one.
#[derive(Clone, Debug)]
pub(crate) struct Ref {
    of: &'static str,
    id: &'static str,
    wrong: Option<u64>,
}

fn refs() -> impl Strategy<Value = Ref> {
    let wrong = prop_oneof![4 => Just(None), 1 => (0..30u64).prop_map(Some)];
    (select(&SERVICES), select(&INSTANCES), wrong).prop_map(|(of, id, wrong)| Ref { of, id, wrong })
}

fn statuses() -> impl Strategy<Value = DeclaredStatus> {
    prop_oneof![
        8 => Just(DeclaredStatus::Ready),
        1 => Just(DeclaredStatus::Starting),
        1 => Just(DeclaredStatus::Draining),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    let ids = prop_oneof![8 => Just(""), 1 => Just("one"), 1 => Just("two")];
    (prop::bool::weighted(0.3), ids).prop_map(|(force, id)| Change { force, ..named(id) })
}

fn any_weights() -> impl Strategy<Value = Weights> {
    let cuts = vec(1..WHOLE, 0..3);
    (cuts, any::<proptest::sample::Index>()).prop_map(|(mut cuts, first)| {
        cuts.extend([0, WHOLE]);
        cuts.sort_unstable();
        cuts.dedup();
        let first = first.index(GROUPS.len());
        let parts = cuts.windows(2).enumerate();
        let pairs =
            parts.map(|(i, cut)| (group(GROUPS[(first + i) % GROUPS.len()]), cut[1] - cut[0]));
        Weights::new(pairs).unwrap()
    })
}

fn shares() -> impl Strategy<Value = Share> {
    let exact = (1..=WHOLE).prop_map(|share| Share::BasisPoints(BasisPoints::new(share).unwrap()));
    prop_oneof![Just(Share::Even), exact]
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        any_weights().prop_map(Target::Weights),
        select(&GROUPS).prop_map(switch),
        (select(&GROUPS), shares()).prop_map(|(name, share)| Target::Canary {
            group: group(name),
            share,
        }),
        Just(Target::Keep),
    ]
}

fn policies() -> impl Strategy<Value = RoutePolicy> + Clone {
    prop_oneof![
        Just(RoutePolicy::default()),
        Just(every_policy()),
        (0..=10_000u32).prop_map(|size| RoutePolicy {
            subset_size: Count::new("subset_size", size).unwrap(),
            ..RoutePolicy::default()
        }),
    ]
}

/// Mostly one or several services, each once; seldom none or the same twice.
fn services() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        8 => proptest::sample::subsequence(&SERVICES, 1..=SERVICES.len()),
        1 => vec(select(&SERVICES), 0..3),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let register = (
        select(&SERVICES),
        select(&GROUPS),
        select(&INSTANCES),
        select(&[1u32, 50, 100, 10_000][..]),
        statuses(),
    )
        .prop_map(|(of, group, id, capacity, status)| Step::Register {
            of,
            group,
            id,
            capacity,
            status,
        });
    let judge = (
        select(&[TERM, TERM, TERM, TERM - 1][..]),
        vec(refs(), 0..4),
        vec(refs(), 0..3),
        vec(refs(), 0..4),
    )
        .prop_map(|(term, suspect, revive, expire)| Step::Judge {
            term,
            suspect,
            revive,
            expire,
        });
    let maybe = prop_oneof![6 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let policy = prop_oneof![3 => Just(None), 1 => policies().prop_map(Some)];
    let one = move |of| (Just(of), targets(), maybe.clone(), policy.clone());
    let each = services().prop_flat_map(move |of| of.into_iter().map(&one).collect::<Vec<_>>());
    let shift = (each, changes()).prop_map(|(targets, change)| Step::Shift { targets, change });
    let to = prop_oneof![3 => Just(None), 1 => (0..6usize).prop_map(Some)];
    let rollback =
        (services(), to, changes()).prop_map(|(of, to, change)| Step::Rollback { of, to, change });
    let adjustment = prop_oneof![
        any::<bool>().prop_map(Adjustment::Drain),
        Just(Adjustment::Capacity(None)),
        (1..=10_000u32).prop_map(|new| Adjustment::Capacity(Some(capacity(new)))),
    ];
    prop_oneof![
        6 => register,
        2 => (refs(), statuses()).prop_map(|(lease, status)| Step::SetStatus(lease, status)),
        1 => refs().prop_map(Step::Deregister),
        3 => judge,
        5 => shift,
        3 => rollback,
        1 => (select(&SERVICES), select(&GROUPS), changes())
            .prop_map(|(of, name, change)| Step::Teardown(of, name, change)),
        1 => (select(&SERVICES), select(&INSTANCES), adjustment)
            .prop_map(|(of, id, adjustment)| Step::Adjust(of, id, adjustment)),
    ]
}

impl Ref {
    fn key(&self, registry: &Registry) -> LeaseKey {
        let present = registry
            .service(&service(self.of))
            .and_then(|found| found.instance(&instance(self.id)))
            .map(|found| found.lease);
        LeaseKey {
            service: service(self.of),
            instance: instance(self.id),
            lease: self.wrong.map(Revision).or(present).unwrap_or_default(),
        }
    }

    fn expiry(&self, registry: &Registry) -> Expiry {
        let key = self.key(registry);
        let since = registry
            .service(&key.service)
            .and_then(|found| found.instance(&key.instance))
            .and_then(|found| found.suspect_since);
        Expiry {
            suspect_since: since.unwrap_or_default(),
            key,
        }
    }
}

impl Step {
    pub(crate) fn command(&self, registry: &Registry) -> Command {
        match self.clone() {
            Step::Register {
                of,
                group,
                id,
                capacity: new,
                status,
            } => {
                let mut spec = spec(group, id);
                spec.capacity = capacity(new);
                spec.status = status;
                register_spec(of, spec)
            }
            Step::SetStatus(lease, status) => set_status(lease.key(registry), status),
            Step::Deregister(lease) => deregister(lease.key(registry)),
            Step::Judge {
                term,
                suspect,
                revive,
                expire,
            } => Command::JudgeLeases(JudgeLeases {
                term,
                suspect: suspect.iter().map(|lease| lease.key(registry)).collect(),
                revive: revive.iter().map(|lease| lease.key(registry)).collect(),
                expire: expire.iter().map(|lease| lease.expiry(registry)).collect(),
            }),
            Step::Shift { targets, change } => {
                let shifts = targets.into_iter().map(|(of, target, expected, policy)| {
                    let mut asked = to(of, target);
                    let route = registry.service(&service(of));
                    let route = route.map_or(Revision(1), |found| found.route_revision());
                    asked.expected = expected.map(|right| Revision(route.0 + u64::from(!right)));
                    asked.policy = policy;
                    asked
                });
                shift(shifts.collect(), change)
            }
            Step::Rollback { of, to, change } => {
                let targets = of.into_iter().map(|of| {
                    let found = registry.service(&service(of));
                    let nth = |n| found?.history().nth(n).map(|change| change.revision);
                    RollbackTarget {
                        service: service(of),
                        to: to.map(|n| nth(n).unwrap_or(Revision(9_999))),
                        expected: None,
                    }
                });
                let targets = targets.collect();
                Command::Rollback(trimtab_registry::command::Rollback { targets, change })
            }
            Step::Teardown(of, name, change) => teardown(of, name, change),
            Step::Adjust(of, id, adjustment) => adjust(of, id, adjustment),
        }
    }
}

/// A world in which each service has one instance in each group.
pub(crate) fn populated() -> World {
    let mut world = World::default();
    for of in SERVICES {
        for name in GROUPS {
            world.grow(of, name, 1);
        }
    }
    world
}

pub(crate) fn views(registry: &Registry) -> BTreeMap<String, ServiceView> {
    let views = registry.services().filter_map(|service| service.view());
    views.map(|view| (view.service.to_string(), view)).collect()
}

/// All leases, and of each whether its instance is expected to go.
fn leases(registry: &Registry) -> BTreeMap<LeaseKey, bool> {
    let of = |service: &trimtab_registry::service::Service| {
        let name = service.name().clone();
        let leases = service
            .instances()
            .map(|it| (it.lease_key(&name), service.is_leaving(it)));
        leases.collect::<Vec<_>>()
    };
    registry.services().flat_map(of).collect()
}

/// What must be true of every registry.
fn check_invariants(registry: &Registry) {
    for service in registry.services() {
        assert!(service.revision() <= registry.applied().revision());
        assert!(service.route_revision() <= service.revision());
        let Some(view) = service.view() else {
            assert!(service.groups().all(|group| group.retiring));
            assert!(service.instances().len() > 0);
            continue;
        };
        let sum: u32 = view.route.weights.iter().map(|(_, weight)| weight).sum();
        assert_eq!(sum, WHOLE);
        assert!(view.route.salt <= view.route_revision);
        for (name, weight) in view.route.weights.iter() {
            let group = service.group(name).unwrap();
            assert!(weight > 0 && group.carried && !group.retiring);
        }
        let newest = service.history().next().unwrap();
        assert_eq!(newest.after, view.route);
        assert_eq!(newest.revision, view.route_revision);
        for (name, tally) in service.tally() {
            let group = service.group(&name).unwrap();
            assert_eq!(group.instances, tally.instances);
            assert!(tally.instances > 0 || (group.carried && !group.retiring));
        }
    }
}

/// What one applied command must have done, by its outcome and its events.
fn check_step(before: &Registry, world: &World, command: &Command, outcome: &Outcome) {
    let at = world.registry.applied().revision();
    let (old, new) = (views(before), views(&world.registry));
    for name in SERVICES {
        let changed = world.events.contains(&Event::ServiceChanged(service(name)));
        let ended = world
            .events
            .contains(&Event::ServiceEnded(service(name), at));
        assert_eq!(
            changed,
            new.contains_key(name) && old.get(name) != new.get(name)
        );
        assert_eq!(ended, old.contains_key(name) && !new.contains_key(name));
        if changed {
            assert_eq!(new[name].revision, at);
        }
    }
    let mut expected = leases(before);
    for event in &world.events {
        match event {
            Event::LeaseGranted { key, leaving, .. } | Event::LeaseLeaving { key, leaving } => {
                expected.insert(key.clone(), *leaving);
            }
            Event::LeaseEnded { key } => {
                expected.remove(key);
            }
            _ => {}
        }
    }
    assert_eq!(expected, leases(&world.registry));

    if let Command::Register(asked) = command {
        let name = asked.service.as_str();
        let route = old.get(name).map(|view| &view.route);
        let dark = route.is_none_or(|route| *route == new[name].route);
        assert!(dark, "a registration never moves traffic");
    }
    if let Outcome::Shifted(routed) | Outcome::RolledBack(routed) = outcome {
        assert_eq!(routed.effect == Effect::Changed, !world.events.is_empty());
        for change in &routed.changes {
            if routed.effect == Effect::Changed {
                check_salt(change);
                assert_eq!(change.revision, at);
                assert_eq!(new[change.service.as_str()].route_revision, at);
            }
        }
    }
}

/// A rollout draws its salt when the service leaves a single group and keeps
/// it until one group has all.
fn check_salt(change: &RouteChange) {
    let (old, new) = (change.before.as_ref().unwrap(), &change.after);
    let is_split = |route: &Route| route.weights.iter().len() > 1;
    let expected = match (is_split(old), is_split(new)) {
        (_, false) => Revision(0),
        (true, true) => old.salt,
        (false, true) => change.revision,
    };
    match change.restored {
        // Its bytes are compared with those of the route it restores.
        Some(_) => assert_eq!(is_split(new), new.salt > Revision(0)),
        None => assert_eq!(new.salt, expected),
    }
}

/// The outcome without the revisions that a dry run cannot know.
pub(crate) fn undated(outcome: Outcome) -> Outcome {
    let none = Revision::default();
    match outcome {
        Outcome::Registered { .. } => Outcome::Registered {
            revision: none,
            lease: none,
        },
        Outcome::StatusSet { .. } => Outcome::StatusSet { revision: none },
        Outcome::Deregistered { existed, .. } => Outcome::Deregistered {
            revision: none,
            existed,
        },
        Outcome::TornDown {
            instances,
            warnings,
            ..
        } => Outcome::TornDown {
            revision: none,
            instances,
            warnings,
        },
        Outcome::Adjusted {
            instance, warnings, ..
        } => Outcome::Adjusted {
            revision: none,
            instance,
            warnings,
        },
        Outcome::Shifted(mut routed) | Outcome::RolledBack(mut routed) => {
            routed.revision = none;
            for change in &mut routed.changes {
                let change = std::sync::Arc::make_mut(change);
                let drawn = std::mem::replace(&mut change.revision, none);
                if change.after.salt == drawn {
                    std::sync::Arc::make_mut(&mut change.after).salt = none;
                }
            }
            Outcome::Shifted(routed)
        }
        judged @ Outcome::Judged(_) => judged,
    }
}

pub(crate) fn reborn(registry: &Registry) -> Registry {
    let bytes = postcard::to_allocvec(&registry.snapshot()).unwrap();
    let snapshot: Snapshot = postcard::from_bytes(&bytes).unwrap();
    Registry::restore(snapshot).unwrap()
}

proptest! {
    #[test]
    fn any_sequence_keeps_every_promise(steps in vec(steps(), 1..80)) {
        let mut world = populated();
        for step in &steps {
            let command = step.command(&world.registry);
            let before = world.registry.clone();
            let planned = world.registry.plan(&command);
            match world.ask(&command) {
                Ok(outcome) => {
                    check_step(&before, &world, &command, &outcome);
                    assert_eq!(planned.map(undated), Ok(undated(outcome)));
                }
                Err(rejection) => {
                    assert!(world.events.is_empty());
                    assert_same_contents(&before, &world.registry);
                    assert!(!rejection.to_string().is_empty());
                    assert_eq!(planned, Err(rejection));
                }
            }
            check_invariants(&world.registry);
        }
        assert_eq!(reborn(&world.registry), world.registry);
    }

    /// One replica applies all; another one starts in the middle from the
    /// first one's snapshot, and gets its commands as bytes.
    #[test]
    fn replicas_agree(steps in vec(steps(), 1..60), middle in any::<proptest::sample::Index>()) {
        let middle = middle.index(steps.len());
        let mut world = populated();
        let mut other = Registry::new();
        for (i, step) in steps.iter().enumerate() {
            if i == middle {
                other = reborn(&world.registry);
            }
            let command = step.command(&world.registry);
            let bytes = postcard::to_allocvec(&command).unwrap();
            let at = world.next();
            let answer = world.ask(&command);
            if i >= middle {
                let received: Command = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(&received, &command);
                let applied = other.apply(at, &received);
                prop_assert_eq!(&applied.outcome, &answer);
                prop_assert_eq!(&applied.events, &world.events);
                let bytes = postcard::to_allocvec(&answer).unwrap();
                prop_assert_eq!(postcard::from_bytes(&bytes), Ok(answer));
            }
        }
        prop_assert_eq!(other, world.registry);
    }

    /// Shifts push a route, rollbacks pop one: whatever the order, a rollback
    /// restores the bytes of the route below.
    #[test]
    fn rollbacks_restore_the_very_bytes(moves in vec(prop::option::weighted(0.6, targets()), 1..90)) {
        let mut world = World::default();
        for name in GROUPS {
            world.grow("s", name, 1);
        }
        let bytes = |world: &World| {
            let view = world.registry.view(&service("s")).unwrap();
            postcard::to_allocvec(&*view.route).unwrap()
        };
        let mut routes = vec![bytes(&world)];
        for target in moves {
            match target {
                Some(target) => {
                    let asked = shift(vec![to("s", target)], forced());
                    if world.routed(&asked).is_ok_and(|routed| routed.effect == Effect::Changed) {
                        routes.push(bytes(&world));
                    }
                }
                None => {
                    let rolled_back = world.rollback();
                    if routes.len() > 1 {
                        prop_assert_eq!(rolled_back.unwrap().effect, Effect::Changed);
                        routes.pop();
                    } else {
                        prop_assert!(rolled_back.is_err());
                    }
                }
            }
            prop_assert_eq!(routes.last(), Some(&bytes(&world)));
        }
    }

    #[test]
    fn the_rest_is_shared_in_proportion(
        weights in any_weights(),
        name in select(&GROUPS),
        share in 1..=WHOLE,
    ) {
        let canary = group(name);
        let result = weights.with_share(&canary, BasisPoints::new(share).unwrap());
        let others: u32 = WHOLE - weights.get(&canary);
        let Some(result) = result else {
            prop_assert!(others == 0 && share < WHOLE);
            return Ok(());
        };
        prop_assert_eq!(result.get(&canary), share);
        prop_assert_eq!(result.iter().map(|(_, weight)| weight).sum::<u32>(), WHOLE);
        for (name, before) in weights.iter().filter(|(name, _)| **name != canary) {
            let exact = f64::from(before) * f64::from(WHOLE - share) / f64::from(others);
            let error = (f64::from(result.get(name)) - exact).abs();
            prop_assert!(error < 1.0, "{} of {}", error, name);
        }
    }

    #[test]
    fn names_survive_and_nothing_else_passes(text in "[ -~]{0,70}") {
        use trimtab_registry::name::{Address, ServiceName};
        let bytes = postcard::to_allocvec(&text).unwrap();
        let decoded = postcard::from_bytes::<ServiceName>(&bytes);
        prop_assert_eq!(ServiceName::parse(&text).ok(), decoded.ok());
        let decoded = postcard::from_bytes::<Address>(&bytes);
        prop_assert_eq!(Address::parse(&text).ok(), decoded.ok());
    }

    #[test]
    fn any_bytes_are_refused_or_decoded_but_never_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(command) = postcard::from_bytes::<Command>(&bytes) {
            let mut world = World::with(&[("g0", 1)]);
            let _ = world.ask(&command);
        }
        if let Ok(snapshot) = postcard::from_bytes::<Snapshot>(&bytes) {
            let _ = Registry::restore(snapshot);
        }
    }
}

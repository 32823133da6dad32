//! A registry under test with a log that counts for it, and short ways to ask it for things.

use std::collections::BTreeMap;

use trimtab_registry::command::{
    AdjustInstance, Adjustment, Change, Command, Deregister, JudgeLeases, Register, Rollback,
    RollbackTarget, ServiceShift, SetStatus, Share, Shift, Target, Teardown,
};
use trimtab_registry::event::Event;
use trimtab_registry::instance::{
    Capacity, DeclaredStatus, InstanceSpec, LeaseKey, Metadata, Status, Ttl,
};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::outcome::{Applied, Outcome, Routed};
use trimtab_registry::policy::{Balancing, Count, OutlierPolicy, RoutePolicy, Span};
use trimtab_registry::rejection::Rejection;
use trimtab_registry::revision::{Position, Revision};
use trimtab_registry::route::{BasisPoints, Weights};
use trimtab_registry::state::Registry;
use trimtab_registry::text::{Actor, Reason, RequestId};

pub(crate) const TERM: u64 = 7;

/// A registry and what it last said.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) events: Vec<Event>,
}

impl World {
    /// A world in which each of `groups` of service "s" has so many ready
    /// instances of capacity 100, the first one with all of the weight.
    pub(crate) fn with(groups: &[(&str, usize)]) -> Self {
        let mut world = Self::default();
        for (name, count) in groups {
            world.grow("s", name, *count);
        }
        world
    }

    /// Adds ready instances "GROUP-0", "GROUP-1", ... to a group.
    pub(crate) fn grow(&mut self, of: &str, in_group: &str, count: usize) {
        for i in 0..count {
            self.register(of, in_group, &format!("{in_group}-{i}"));
        }
    }

    pub(crate) fn next(&self) -> Position {
        Position {
            index: self.registry.applied().index + 1,
            term: TERM,
        }
    }

    pub(crate) fn ask(&mut self, command: &Command) -> Result<Outcome, Rejection> {
        let Applied { outcome, events } = self.registry.apply(self.next(), command);
        self.events = events;
        outcome
    }

    pub(crate) fn register(&mut self, of: &str, in_group: &str, id: &str) -> LeaseKey {
        self.ask(&register(of, in_group, id)).unwrap();
        self.lease(of, id)
    }

    pub(crate) fn lease(&self, of: &str, id: &str) -> LeaseKey {
        let found = self.registry.service(&service(of)).unwrap();
        let instance = found.instance(&instance(id)).unwrap();
        instance.lease_key(&service(of))
    }

    pub(crate) fn status(&self, of: &str, id: &str) -> Option<Status> {
        let found = self.registry.service(&service(of))?;
        Some(found.instance(&instance(id))?.status())
    }

    /// The weights of a service as "v1=9000 v2=1000".
    pub(crate) fn weights(&self, of: &str) -> String {
        let view = self.registry.view(&service(of)).unwrap();
        show(&view.route.weights)
    }

    /// The groups of a service as "v1:ACTIVE v2:DARK".
    pub(crate) fn groups(&self, of: &str) -> String {
        let view = self.registry.view(&service(of)).unwrap();
        let groups = view.groups.iter();
        let shown: Vec<String> = groups
            .map(|(name, state)| format!("{name}:{state}"))
            .collect();
        shown.join(" ")
    }

    pub(crate) fn route_revision(&self, of: &str) -> Revision {
        self.registry
            .service(&service(of))
            .unwrap()
            .route_revision()
    }

    pub(crate) fn shift(&mut self, target: Target) -> Result<Routed, Rejection> {
        self.routed(&shift(vec![to("s", target)], change()))
    }

    pub(crate) fn rollback(&mut self) -> Result<Routed, Rejection> {
        self.routed(&rollback("s", None))
    }

    pub(crate) fn routed(&mut self, command: &Command) -> Result<Routed, Rejection> {
        match self.ask(command)? {
            Outcome::Shifted(routed) | Outcome::RolledBack(routed) => Ok(routed),
            other => panic!("not an answer to a change of routes: {other:?}"),
        }
    }

    /// Applies a command that must be refused and leave everything as it is.
    pub(crate) fn refused(&mut self, command: &Command) -> Rejection {
        let before = self.registry.clone();
        let planned = self.registry.plan(command).unwrap_err();
        let rejection = self.ask(command).unwrap_err();
        assert_eq!(planned, rejection, "a dry run must tell what would happen");
        assert!(self.events.is_empty());
        assert_same_contents(&before, &self.registry);
        rejection
    }
}

/// Equal but for the position of the last entry.
pub(crate) fn assert_same_contents(a: &Registry, b: &Registry) {
    let (a_services, b_services): (Vec<_>, Vec<_>) =
        (a.services().collect(), b.services().collect());
    assert_eq!(a_services, b_services);
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub(crate) fn instance(id: &str) -> InstanceId {
    InstanceId::parse(id).unwrap()
}

pub(crate) fn capacity(capacity: u32) -> Capacity {
    Capacity::new(capacity).unwrap()
}

pub(crate) fn change() -> Change {
    Change {
        actor: Actor::parse("ops").unwrap(),
        reason: Reason::parse("release").unwrap(),
        at_ms: 1_700_000_000_000,
        request_id: RequestId::default(),
        force: false,
    }
}

pub(crate) fn forced() -> Change {
    Change {
        force: true,
        ..change()
    }
}

pub(crate) fn named(request_id: &str) -> Change {
    Change {
        request_id: RequestId::parse(request_id).unwrap(),
        ..change()
    }
}

pub(crate) fn spec(in_group: &str, id: &str) -> InstanceSpec {
    InstanceSpec {
        id: instance(id),
        group: group(in_group),
        address: Address::parse("127.0.0.1:8080").unwrap(),
        zone: Zone::parse("eu-west-1a").unwrap(),
        capacity: Capacity::default(),
        metadata: Metadata::new(BTreeMap::from([("build".into(), "42".into())])).unwrap(),
        status: DeclaredStatus::Ready,
    }
}

pub(crate) fn register(of: &str, in_group: &str, id: &str) -> Command {
    register_spec(of, spec(in_group, id))
}

pub(crate) fn register_spec(of: &str, spec: InstanceSpec) -> Command {
    Command::Register(Register {
        service: service(of),
        instance: spec,
        ttl: Ttl::default(),
        at_ms: 1_700_000_000_000,
    })
}

pub(crate) fn set_status(lease: LeaseKey, status: DeclaredStatus) -> Command {
    Command::SetStatus(SetStatus { lease, status })
}

pub(crate) fn deregister(lease: LeaseKey) -> Command {
    Command::Deregister(Deregister { lease })
}

pub(crate) fn judge(judged: JudgeLeases) -> Command {
    Command::JudgeLeases(JudgeLeases {
        term: TERM,
        ..judged
    })
}

pub(crate) fn suspect(leases: Vec<LeaseKey>) -> Command {
    judge(JudgeLeases {
        suspect: leases,
        ..JudgeLeases::default()
    })
}

pub(crate) fn shift(shifts: Vec<ServiceShift>, change: Change) -> Command {
    Command::Shift(Shift { shifts, change })
}

pub(crate) fn to(of: &str, target: Target) -> ServiceShift {
    ServiceShift {
        service: service(of),
        target,
        expected: None,
        min_ready: None,
        policy: None,
    }
}

pub(crate) fn weights(pairs: &[(&str, u32)]) -> Target {
    let pairs = pairs.iter().map(|(name, weight)| (group(name), *weight));
    Target::Weights(Weights::new(pairs).unwrap())
}

pub(crate) fn switch(name: &str) -> Target {
    Target::SwitchTo(group(name))
}

pub(crate) fn canary(name: &str, basis_points: u32) -> Target {
    Target::Canary {
        group: group(name),
        share: Share::BasisPoints(BasisPoints::new(basis_points).unwrap()),
    }
}

pub(crate) fn even(name: &str) -> Target {
    Target::Canary {
        group: group(name),
        share: Share::Even,
    }
}

/// No field as it is by default.
pub(crate) fn every_policy() -> RoutePolicy {
    RoutePolicy {
        fall_back_to_dark: true,
        balancing: Balancing::ConsistentHash,
        prefer_zone: true,
        subset_size: Count::new("subset_size", 50).unwrap(),
        warm_up: Span::from_millis("warm_up", 30_000).unwrap(),
        outliers: OutlierPolicy {
            disabled: true,
            consecutive_failures: Count::new("consecutive_failures", 3).unwrap(),
            max_ejected_percent: Count::new("max_ejected_percent", 20).unwrap(),
            base_ejection: Span::from_millis("base_ejection", 10_000).unwrap(),
        },
    }
}

/// The policy alone, the weights as they are.
pub(crate) fn policy(of: &str, policy: RoutePolicy) -> Command {
    let keep = to(of, Target::Keep);
    let asked = ServiceShift {
        policy: Some(policy),
        ..keep
    };
    shift(vec![asked], change())
}

pub(crate) fn rollback(of: &str, revision: Option<Revision>) -> Command {
    rollback_all(&[of], revision, change())
}

pub(crate) fn rollback_all(of: &[&str], revision: Option<Revision>, change: Change) -> Command {
    let targets = of.iter().map(|name| RollbackTarget {
        service: service(name),
        to: revision,
        expected: None,
    });
    Command::Rollback(Rollback {
        targets: targets.collect(),
        change,
    })
}

pub(crate) fn teardown(of: &str, name: &str, change: Change) -> Command {
    Command::Teardown(Teardown {
        service: service(of),
        group: group(name),
        expected: None,
        change,
    })
}

pub(crate) fn adjust(of: &str, id: &str, adjustment: Adjustment) -> Command {
    Command::AdjustInstance(AdjustInstance {
        service: service(of),
        instance: instance(id),
        adjustment,
        expected: None,
        change: change(),
    })
}

pub(crate) fn show(weights: &Weights) -> String {
    let shown: Vec<String> = weights
        .iter()
        .map(|(name, weight)| format!("{name}={weight}"))
        .collect();
    shown.join(" ")
}

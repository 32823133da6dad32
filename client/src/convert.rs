//! Wire views to the client's own, and policies both ways.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use trimtab_proto::{digest, v1 as wire};

use crate::delta::Base;
use crate::error::Error;
use crate::policy::{
    BASE_EJECTION_MAX, Balancing, CONSECUTIVE_FAILURES_MAX, OutlierPolicy, Policy, SUBSET_SIZE_MAX,
    WARM_UP_MAX,
};
use crate::view::{Group, GroupState, Instance, InstanceStatus, View};

/// The largest weight and the largest capacity that the protocol has: what is
/// larger, as no registry says, is brought down to it before it is summed up.
const PARTS_MAX: u32 = 10_000;

/// Checks and reads a view as it travels.
///
/// # Errors
/// [`Error::Malformed`] when the checksum is not that of the bytes, or the
/// bytes are not a view of that service and revision.
pub(crate) fn taken_from_wire(update: &wire::ViewUpdate) -> Result<(View, Base), Error> {
    let malformed = |what: &str| Error::Malformed(format!("view of {}: {what}", update.service));
    if trimtab_proto::checksum(&update.view) != update.checksum {
        return Err(malformed("its checksum is another"));
    }
    let mut view = wire::View::decode(update.view.clone())
        .map_err(|error| malformed(&format!("it cannot be decoded: {error}")))?;
    if view.service != update.service || view.revision != update.revision {
        return Err(malformed(&format!(
            "it says revision {} of {}, its envelope revision {}",
            view.revision, view.service, update.revision
        )));
    }
    let digest = digest::view(&view);
    let mut members: BTreeMap<Arc<str>, Vec<Instance>> = BTreeMap::new();
    for mut instance in std::mem::take(&mut view.instances) {
        let group = std::mem::take(&mut instance.group);
        let instance = instance_from_wire(instance);
        match members.get_mut(group.as_str()) {
            Some(members) => members.push(instance),
            None => drop(members.insert(group.into(), vec![instance])),
        }
    }
    Ok((assemble(&view, members), Base::new(view, digest)))
}

#[cfg(test)]
pub(crate) fn view_from_wire(update: &wire::ViewUpdate) -> Result<View, Error> {
    taken_from_wire(update).map(|(view, _)| view)
}

/// A view from everything but its instances, and these by group.
pub(crate) fn assemble(head: &wire::View, members: BTreeMap<Arc<str>, Vec<Instance>>) -> View {
    let mut groups: BTreeMap<Arc<str>, Group> = members
        .into_iter()
        .map(|(name, instances)| {
            let group = Group {
                name: Arc::clone(&name),
                state: GroupState::Dark,
                weight: 0,
                instances,
            };
            (name, group)
        })
        .collect();
    for group in &head.groups {
        group_entry(&mut groups, &group.name).state = state_from_wire(group.state());
    }
    let route = head.route.as_ref();
    for weight in route.iter().flat_map(|route| &route.weights) {
        group_entry(&mut groups, &weight.group).weight = weight.basis_points.min(PARTS_MAX);
    }
    View {
        revision: head.revision,
        groups: groups.into_values().collect(),
        policy: policy_from_wire(&route.and_then(|route| route.policy).unwrap_or_default()),
        salt: route.map_or(0, |route| route.salt),
    }
}

/// What a registry leaves out has its default; what is out of range, as only
/// another version of it could send, is brought into it.
pub(crate) fn policy_from_wire(policy: &wire::RoutePolicy) -> Policy {
    Policy {
        fall_back_to_dark: policy.fall_back_to_dark,
        balancing: match policy.balancing() {
            wire::Balancing::RoundRobin => Balancing::RoundRobin,
            wire::Balancing::ConsistentHash => Balancing::ConsistentHash,
            wire::Balancing::LeastLoaded | wire::Balancing::Unspecified => Balancing::LeastLoaded,
        },
        prefer_zone: policy.prefer_zone,
        subset_size: NonZeroU32::new(policy.subset_size.min(SUBSET_SIZE_MAX)),
        warm_up: duration_from_wire(policy.warm_up).min(WARM_UP_MAX),
        outliers: outliers_from_wire(&policy.outliers.unwrap_or_default()),
    }
}

fn outliers_from_wire(outliers: &wire::OutlierPolicy) -> OutlierPolicy {
    let default = OutlierPolicy::default();
    let or = |number: u32, default: u32| if number == 0 { default } else { number };
    let base_ejection = match duration_from_wire(outliers.base_ejection) {
        Duration::ZERO => default.base_ejection,
        span => span.min(BASE_EJECTION_MAX),
    };
    OutlierPolicy {
        enabled: !outliers.disabled,
        consecutive_failures: or(outliers.consecutive_failures, default.consecutive_failures)
            .min(CONSECUTIVE_FAILURES_MAX),
        max_ejected_percent: or(outliers.max_ejected_percent, default.max_ejected_percent).min(100),
        base_ejection,
    }
}

/// A negative duration is none.
fn duration_from_wire(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| trimtab_proto::duration::parse(&duration))
        .unwrap_or_default()
}

/// A policy as it is asked for. Too long a duration is sent as the longest
/// there is, which the registry refuses.
pub(crate) fn policy_to_wire(policy: &Policy) -> wire::RoutePolicy {
    let duration = |duration: Duration| {
        prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
            seconds: i64::MAX,
            nanos: 0,
        })
    };
    let outliers = &policy.outliers;
    wire::RoutePolicy {
        fall_back_to_dark: policy.fall_back_to_dark,
        balancing: match policy.balancing {
            Balancing::LeastLoaded => wire::Balancing::LeastLoaded,
            Balancing::RoundRobin => wire::Balancing::RoundRobin,
            Balancing::ConsistentHash => wire::Balancing::ConsistentHash,
        }
        .into(),
        prefer_zone: policy.prefer_zone,
        subset_size: policy.subset_size.map_or(0, NonZeroU32::get),
        warm_up: Some(duration(policy.warm_up)),
        outliers: Some(wire::OutlierPolicy {
            disabled: !outliers.enabled,
            consecutive_failures: outliers.consecutive_failures,
            max_ejected_percent: outliers.max_ejected_percent,
            base_ejection: Some(duration(outliers.base_ejection)),
        }),
    }
}

fn group_entry<'a>(groups: &'a mut BTreeMap<Arc<str>, Group>, name: &str) -> &'a mut Group {
    let name: Arc<str> = name.into();
    groups.entry(Arc::clone(&name)).or_insert_with(|| Group {
        name,
        state: GroupState::Dark,
        weight: 0,
        instances: Vec::new(),
    })
}

fn state_from_wire(state: wire::GroupState) -> GroupState {
    match state {
        wire::GroupState::Active => GroupState::Active,
        wire::GroupState::Standby => GroupState::Standby,
        wire::GroupState::Retiring => GroupState::Retiring,
        // What a newer registry may add gets no calls of its own.
        wire::GroupState::Dark | wire::GroupState::Unspecified => GroupState::Dark,
    }
}

pub(crate) fn instance_from_wire(instance: wire::Instance) -> Instance {
    let status = match instance.status() {
        wire::InstanceStatus::Ready => InstanceStatus::Ready,
        wire::InstanceStatus::Suspect => InstanceStatus::Suspect,
        wire::InstanceStatus::Draining => InstanceStatus::Draining,
        // What a newer registry may add gets no calls.
        wire::InstanceStatus::Starting | wire::InstanceStatus::Unspecified => {
            InstanceStatus::Starting
        }
    };
    Instance {
        id: instance.id.into(),
        address: instance.address.into(),
        zone: instance.zone.into(),
        capacity: instance.capacity.clamp(1, PARTS_MAX),
        metadata: Arc::new(instance.metadata),
        status,
    }
}

/// An instance as the registry sent it.
pub(crate) fn instance_to_wire(instance: &Instance, group: &str) -> wire::Instance {
    let status = match instance.status {
        InstanceStatus::Starting => wire::InstanceStatus::Starting,
        InstanceStatus::Ready => wire::InstanceStatus::Ready,
        // The second is never sent, nor part of a view that was.
        InstanceStatus::Suspect | InstanceStatus::Held => wire::InstanceStatus::Suspect,
        InstanceStatus::Draining => wire::InstanceStatus::Draining,
    };
    wire::Instance {
        id: (*instance.id).to_owned(),
        group: group.to_owned(),
        address: (*instance.address).to_owned(),
        zone: (*instance.zone).to_owned(),
        capacity: instance.capacity,
        metadata: BTreeMap::clone(&instance.metadata),
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(view: &wire::View) -> wire::ViewUpdate {
        let bytes = bytes::Bytes::from(view.encode_to_vec());
        wire::ViewUpdate {
            service: view.service.clone(),
            revision: view.revision,
            checksum: trimtab_proto::checksum(&bytes),
            view: bytes,
        }
    }

    fn sample() -> wire::View {
        wire::View {
            service: "catalog".into(),
            revision: 9,
            route: Some(wire::Route {
                weights: vec![wire::GroupWeight {
                    group: "v1".into(),
                    basis_points: 10_000,
                }],
                policy: None,
                salt: 0,
            }),
            route_revision: 3,
            groups: vec![wire::Group {
                name: "v1".into(),
                state: wire::GroupState::Active.into(),
            }],
            instances: vec![wire::Instance {
                id: "a".into(),
                group: "v1".into(),
                address: "127.0.0.1:1".into(),
                status: wire::InstanceStatus::Ready.into(),
                ..Default::default()
            }],
        }
    }

    #[test]
    fn a_view_is_read_whole() {
        let view = view_from_wire(&update(&sample())).unwrap();
        assert_eq!(view.revision, 9);
        assert_eq!(view.groups.len(), 1);
        assert_eq!(view.groups[0].weight, 10_000);
        assert_eq!(view.groups[0].instances[0].status, InstanceStatus::Ready);
    }

    #[test]
    fn a_status_of_a_newer_registry_gets_no_calls() {
        let mut newer = sample();
        newer.instances[0].status = 77;
        let view = view_from_wire(&update(&newer)).unwrap();
        assert!(!view.groups[0].instances[0].status.takes_calls());
    }

    #[test]
    fn a_view_without_a_policy_has_the_documented_defaults() {
        let view = view_from_wire(&update(&sample())).unwrap();
        assert_eq!((view.policy, view.salt), (Policy::default(), 0));
        let outliers = view.policy.outliers;
        assert!(outliers.enabled);
        assert_eq!(outliers.consecutive_failures, 5);
        assert_eq!(outliers.max_ejected_percent, 10);
        assert_eq!(outliers.base_ejection, Duration::from_secs(30));
    }

    #[test]
    fn a_policy_comes_back_as_it_was_sent() {
        let policy = Policy {
            fall_back_to_dark: true,
            balancing: Balancing::ConsistentHash,
            prefer_zone: true,
            subset_size: NonZeroU32::new(7),
            warm_up: Duration::from_millis(1_500),
            outliers: OutlierPolicy {
                enabled: false,
                consecutive_failures: 3,
                max_ejected_percent: 50,
                base_ejection: Duration::from_secs(10),
            },
        };
        assert_eq!(policy_from_wire(&policy_to_wire(&policy)), policy);
        let default = Policy::default();
        assert_eq!(policy_from_wire(&policy_to_wire(&default)), default);
    }

    #[test]
    fn what_another_version_says_beyond_the_bounds_is_brought_into_them() {
        let endless = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let policy = policy_from_wire(&wire::RoutePolicy {
            balancing: 99,
            subset_size: u32::MAX,
            warm_up: endless(i64::MAX),
            outliers: Some(wire::OutlierPolicy {
                disabled: false,
                consecutive_failures: u32::MAX,
                max_ejected_percent: u32::MAX,
                base_ejection: endless(i64::MAX),
            }),
            ..Default::default()
        });
        assert_eq!(policy.balancing, Balancing::LeastLoaded);
        assert_eq!(policy.subset_size, NonZeroU32::new(SUBSET_SIZE_MAX));
        assert_eq!(policy.warm_up, WARM_UP_MAX);
        let outliers = policy.outliers;
        assert_eq!(outliers.consecutive_failures, CONSECUTIVE_FAILURES_MAX);
        assert_eq!(outliers.max_ejected_percent, 100);
        assert_eq!(outliers.base_ejection, BASE_EJECTION_MAX);
        let negative = policy_from_wire(&wire::RoutePolicy {
            warm_up: endless(-1),
            ..Default::default()
        });
        assert_eq!(negative.warm_up, Duration::ZERO);
    }

    #[test]
    fn damage_is_noticed() {
        let mut damaged = update(&sample());
        let mut bytes = damaged.view.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        damaged.view = bytes.into();
        assert!(matches!(view_from_wire(&damaged), Err(Error::Malformed(_))));

        let mut other = update(&sample());
        other.revision = 10;
        assert!(matches!(view_from_wire(&other), Err(Error::Malformed(_))));
    }
}

//! Wire views to the client's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use trimtab_proto::v1 as wire;

use crate::error::Error;
use crate::view::{Group, GroupState, Instance, InstanceStatus, View};

/// Checks and reads a view as it travels.
///
/// # Errors
/// [`Error::Malformed`] when the checksum is not that of the bytes, or the
/// bytes are not a view of that service and revision.
pub(crate) fn view_from_wire(update: &wire::ViewUpdate) -> Result<View, Error> {
    let malformed = |what: &str| Error::Malformed(format!("view of {}: {what}", update.service));
    if trimtab_proto::checksum(&update.view) != update.checksum {
        return Err(malformed("its checksum is another"));
    }
    let view = wire::View::decode(update.view.clone())
        .map_err(|error| malformed(&format!("it cannot be decoded: {error}")))?;
    if view.service != update.service || view.revision != update.revision {
        return Err(malformed(&format!(
            "it says revision {} of {}, its envelope revision {}",
            view.revision, view.service, update.revision
        )));
    }
    Ok(assemble(view))
}

fn assemble(view: wire::View) -> View {
    let route = view.route.unwrap_or_default();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for group in view.groups {
        let state = state_from_wire(group.state());
        group_entry(&mut groups, &group.name).state = state;
    }
    for weight in route.weights {
        group_entry(&mut groups, &weight.group).weight = weight.basis_points;
    }
    for instance in view.instances {
        let group = group_entry(&mut groups, &instance.group);
        group.instances.push(instance_from_wire(instance));
    }
    View {
        revision: view.revision,
        groups: groups.into_values().collect(),
        fall_back_to_dark: route.policy.is_some_and(|policy| policy.fall_back_to_dark),
    }
}

fn group_entry<'a>(groups: &'a mut BTreeMap<String, Group>, name: &str) -> &'a mut Group {
    groups.entry(name.to_owned()).or_insert_with(|| Group {
        name: name.into(),
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

fn instance_from_wire(instance: wire::Instance) -> Instance {
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
        capacity: instance.capacity.max(1),
        metadata: Arc::new(instance.metadata),
        status,
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

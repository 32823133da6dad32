//! From a view and what changed in it to the next view (pure).
//!
//! The digest says whether that is what the registry has (`ViewDelta` in
//! `view.proto`): a delta that was made for another view, or lost a part, is
//! refused, and the view asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use trimtab_proto::{digest, v1 as wire};

use crate::convert::{assemble, instance_from_wire, instance_to_wire};
use crate::error::Error;
use crate::view::{Instance, View};

/// What of a view as it travelled is needed to follow what changes in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Base {
    /// Everything but the instances.
    head: Arc<wire::View>,
    /// Of the whole view.
    pub(crate) digest: u64,
}

impl Base {
    /// Of a view as it travelled, without its instances and with the digest of
    /// all of it.
    pub(crate) fn new(head: wire::View, digest: u64) -> Self {
        Self {
            head: Arc::new(head),
            digest,
        }
    }
}

/// The view that a delta leads to.
///
/// # Errors
/// [`Error::Malformed`] when the delta is for another view than this one.
pub(crate) fn apply(
    view: &View,
    base: &Base,
    delta: &wire::ViewDelta,
) -> Result<(View, Base), Error> {
    let malformed = |what: String| Error::Malformed(format!("delta of {}: {what}", delta.service));
    if delta.from_revision != view.revision || delta.revision <= view.revision {
        return Err(malformed(format!(
            "it leads from revision {} to {}, the view held is of {}",
            delta.from_revision, delta.revision, view.revision
        )));
    }
    let applied = unchecked(view, base, delta)?;
    if applied.1.digest != delta.digest {
        return Err(malformed(format!(
            "what comes of it is not revision {} as the registry has it",
            delta.revision
        )));
    }
    Ok(applied)
}

/// The same whatever the delta is for.
///
/// # Errors
/// [`Error::Malformed`] when it changes an instance that is not there.
pub(crate) fn unchecked(
    view: &View,
    base: &Base,
    delta: &wire::ViewDelta,
) -> Result<(View, Base), Error> {
    let mut head = wire::View::clone(&base.head);
    change_head(&mut head, delta);
    let mut members = Members::of(view);
    members.change(delta)?;
    let digest = (base.digest)
        .wrapping_sub(digest::head(&base.head))
        .wrapping_add(digest::head(&head))
        .wrapping_add(members.digest);
    let view = assemble(&head, members.groups);
    Ok((view, Base::new(head, digest)))
}

fn change_head(head: &mut wire::View, delta: &wire::ViewDelta) {
    head.revision = delta.revision;
    let route = head.route.get_or_insert_default();
    if !delta.weights.is_empty() {
        route.weights.clone_from(&delta.weights);
    }
    if let Some(policy) = &delta.policy {
        route.policy = Some(*policy);
    }
    if let Some(salt) = delta.salt {
        route.salt = salt;
    }
    if delta.route_revision > 0 {
        head.route_revision = delta.route_revision;
    }
    if delta.groups.is_empty() && delta.removed_groups.is_empty() {
        return;
    }
    let kept = std::mem::take(&mut head.groups).into_iter();
    let mut groups: BTreeMap<String, wire::Group> =
        kept.map(|group| (group.name.clone(), group)).collect();
    for name in &delta.removed_groups {
        groups.remove(name);
    }
    for group in &delta.groups {
        groups.insert(group.name.clone(), group.clone());
    }
    head.groups = groups.into_values().collect();
}

/// The instances of a view, about to change.
struct Members {
    groups: BTreeMap<Arc<str>, Vec<Instance>>,
    /// What the changes so far add to the digest.
    digest: u64,
}

impl Members {
    fn of(view: &View) -> Self {
        let groups = view.groups.iter();
        Self {
            groups: groups
                .filter(|group| !group.instances.is_empty())
                .map(|group| (Arc::clone(&group.name), group.instances.clone()))
                .collect(),
            digest: 0,
        }
    }

    fn change(&mut self, delta: &wire::ViewDelta) -> Result<(), Error> {
        let replaced = delta.instances.iter().map(|instance| &instance.id);
        let gone = delta.removed_instances.iter().chain(replaced);
        self.take_out(&gone.map(String::as_str).collect());
        for change in &delta.statuses {
            self.set_status(change)?;
        }
        let mut grown: BTreeSet<&str> = BTreeSet::new();
        for instance in &delta.instances {
            self.digest = self.digest.wrapping_add(digest::instance(instance));
            let group = instance.group.as_str();
            grown.insert(group);
            if !self.groups.contains_key(group) {
                self.groups.insert(group.into(), Vec::new());
            }
            if let Some(members) = self.groups.get_mut(group) {
                members.push(instance_from_wire(instance.clone()));
            }
        }
        for group in grown {
            if let Some(members) = self.groups.get_mut(group) {
                members.sort_by(|a, b| a.id.cmp(&b.id));
            }
        }
        self.groups.retain(|_, members| !members.is_empty());
        Ok(())
    }

    fn take_out(&mut self, ids: &BTreeSet<&str>) {
        if ids.is_empty() {
            return;
        }
        let sum = &mut self.digest;
        for (group, members) in &mut self.groups {
            members.retain(|instance| {
                let goes = ids.contains(&*instance.id);
                if goes {
                    let digest = digest::instance(&instance_to_wire(instance, group));
                    *sum = sum.wrapping_sub(digest);
                }
                !goes
            });
        }
    }

    fn set_status(&mut self, change: &wire::InstanceStatusChange) -> Result<(), Error> {
        for (group, members) in &mut self.groups {
            let found = members.binary_search_by(|it| (*it.id).cmp(change.id.as_str()));
            let Some(instance) = found.ok().and_then(|at| members.get_mut(at)) else {
                continue;
            };
            let before = instance_to_wire(instance, group);
            let mut after = before.clone();
            after.status = change.status;
            self.digest = (self.digest)
                .wrapping_sub(digest::instance(&before))
                .wrapping_add(digest::instance(&after));
            *instance = instance_from_wire(after);
            return Ok(());
        }
        Err(Error::Malformed(format!(
            "delta changes the status of {:?}, which is not there",
            change.id
        )))
    }
}

/// A view as it would travel, for the disk.
pub(crate) fn update_of(view: &View, base: &Base) -> wire::ViewUpdate {
    let mut whole = wire::View::clone(&base.head);
    let groups = view.groups.iter();
    whole.instances = groups
        .flat_map(|group| {
            let members = group.instances.iter();
            members.map(|instance| instance_to_wire(instance, &group.name))
        })
        .collect();
    whole.instances.sort_by(|a, b| a.id.cmp(&b.id));
    let bytes = bytes::Bytes::from(whole.encode_to_vec());
    wire::ViewUpdate {
        service: whole.service,
        revision: whole.revision,
        checksum: trimtab_proto::checksum(&bytes),
        view: bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::taken_from_wire;
    use crate::view::InstanceStatus;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use wire::InstanceStatus as Status;

    fn instance(id: &str, group: &str) -> wire::Instance {
        wire::Instance {
            id: id.to_owned(),
            group: group.to_owned(),
            address: format!("127.0.0.1:{}", 1_000 + id.len()),
            capacity: 100,
            status: Status::Ready.into(),
            ..wire::Instance::default()
        }
    }

    fn weight(group: &str, basis_points: u32) -> wire::GroupWeight {
        wire::GroupWeight {
            group: group.to_owned(),
            basis_points,
        }
    }

    fn group(name: &str, state: wire::GroupState) -> wire::Group {
        wire::Group {
            name: name.to_owned(),
            state: state.into(),
        }
    }

    fn sample() -> wire::View {
        wire::View {
            service: "catalog".to_owned(),
            revision: 9,
            route: Some(wire::Route {
                weights: vec![weight("v1", 10_000)],
                policy: Some(wire::RoutePolicy::default()),
                salt: 0,
            }),
            route_revision: 3,
            groups: vec![
                group("v1", wire::GroupState::Active),
                group("v2", wire::GroupState::Dark),
            ],
            instances: vec![
                instance("a", "v1"),
                instance("bb", "v2"),
                instance("ccc", "v1"),
            ],
        }
    }

    fn held(view: &wire::View) -> (View, Base) {
        let bytes = bytes::Bytes::from(view.encode_to_vec());
        taken_from_wire(&wire::ViewUpdate {
            service: view.service.clone(),
            revision: view.revision,
            checksum: trimtab_proto::checksum(&bytes),
            view: bytes,
        })
        .unwrap()
    }

    /// To revision 12: half of the calls to v2, an instance more, one less,
    /// one suspect.
    fn step() -> (wire::ViewDelta, wire::View) {
        let mut after = sample();
        after.revision = 12;
        after.route_revision = 12;
        let weights = vec![weight("v1", 5_000), weight("v2", 5_000)];
        after.route.as_mut().unwrap().weights.clone_from(&weights);
        after.groups[1] = group("v2", wire::GroupState::Active);
        after.instances.remove(0);
        after.instances.insert(1, instance("bbb", "v2"));
        after.instances[2].status = Status::Suspect.into();
        let delta = wire::ViewDelta {
            service: "catalog".to_owned(),
            from_revision: 9,
            revision: 12,
            digest: digest::view(&after),
            weights,
            route_revision: 12,
            groups: vec![group("v2", wire::GroupState::Active)],
            instances: vec![instance("bbb", "v2")],
            statuses: vec![wire::InstanceStatusChange {
                id: "ccc".to_owned(),
                status: Status::Suspect.into(),
            }],
            removed_instances: vec!["a".to_owned()],
            ..wire::ViewDelta::default()
        };
        (delta, after)
    }

    #[test]
    fn a_delta_leads_to_the_view_that_would_have_been_sent() {
        let (view, base) = held(&sample());
        let (delta, after) = step();
        let (next, next_base) = apply(&view, &base, &delta).unwrap();
        assert_eq!((&next, &next_base), (&held(&after).0, &held(&after).1));
        let suspect = &next.groups[0].instances[0];
        assert_eq!(suspect.status, InstanceStatus::Suspect);
        let kept = update_of(&next, &next_base);
        assert_eq!(kept.view, after.encode_to_vec());
    }

    #[test]
    fn a_delta_for_another_view_is_refused() {
        let (view, base) = held(&sample());
        let (delta, after) = step();
        let (later, later_base) = held(&after);
        assert!(apply(&later, &later_base, &delta).is_err());
        let mut other = sample();
        other.instances[2].zone = "z".to_owned();
        let (other, other_base) = held(&other);
        assert!(apply(&other, &other_base, &delta).is_err());
        let back = wire::ViewDelta {
            revision: 9,
            ..delta
        };
        assert!(apply(&view, &base, &back).is_err());
    }

    #[test]
    fn a_damaged_delta_is_refused_and_nothing_worse() {
        let (view, base) = held(&sample());
        let (delta, after) = step();
        let sound = delta.encode_to_vec();
        let right = held(&after).0;
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut bytes = sound.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] ^= 1 << rng.random_range(0..8),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.random()),
                }
            }
            let Ok(damaged) = wire::ViewDelta::decode(&bytes[..]) else {
                continue;
            };
            // What is taken all the same says the same.
            if let Ok((next, _)) = apply(&view, &base, &damaged) {
                assert_eq!(next, right);
            }
        }
    }
}

//! The digest of a view: what both ends of a watch stream reckon without encoding the view again for each change.
//!
//! A sum, so that what changed is taken out and put in. The contract is with
//! `ViewDelta` in `view.proto`.

use prost::Message;

use crate::checksum;
use crate::v1::{Instance, View};

/// Everything but the instances. A view that carries some is read without them.
pub fn head(view: &View) -> u64 {
    if view.instances.is_empty() {
        return checksum(&view.encode_to_vec());
    }
    let head = View {
        service: view.service.clone(),
        revision: view.revision,
        route: view.route.clone(),
        route_revision: view.route_revision,
        groups: view.groups.clone(),
        instances: Vec::new(),
    };
    checksum(&head.encode_to_vec())
}

/// One instance.
pub fn instance(instance: &Instance) -> u64 {
    checksum(&instance.encode_to_vec())
}

/// A whole view.
pub fn view(view: &View) -> u64 {
    let instances = view.instances.iter();
    instances.fold(head(view), |sum, it| sum.wrapping_add(instance(it)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Group;

    fn sample() -> View {
        let named = |id: &str| Instance {
            id: id.to_owned(),
            ..Instance::default()
        };
        View {
            service: "catalog".to_owned(),
            revision: 9,
            groups: vec![Group::default()],
            instances: vec![named("a"), named("b")],
            ..View::default()
        }
    }

    #[test]
    fn every_part_counts_and_the_order_of_instances_does_not() {
        let whole = view(&sample());
        let mut other = sample();
        other.instances.reverse();
        assert_eq!(view(&other), whole);
        other.instances[0].zone = "z".to_owned();
        assert_ne!(view(&other), whole);
        let mut other = sample();
        other.revision = 10;
        assert_ne!(view(&other), whole);
    }

    #[test]
    fn it_is_the_sum_that_the_contract_says() {
        let head = b"\x0a\x07catalog\x10\x09\x2a\x00";
        let (a, b) = (b"\x0a\x01a", b"\x0a\x01b");
        let parts = [&head[..], &a[..], &b[..]];
        let sum = parts
            .iter()
            .fold(0, |sum: u64, part| sum.wrapping_add(checksum(part)));
        assert_eq!(view(&sample()), sum);
    }
}

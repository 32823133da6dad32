//! Views and what changes in them, encoded once for all who read them.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use trimtab_proto::v1;
use trimtab_registry::instance::Instance;
use trimtab_registry::view::ServiceView;

use super::frame;
use super::instance::{instance, status};
use super::route::{self, kind_of_group};
use crate::views::published::{self, Encoded, Wire};
use crate::views::step::{Extent, Step};

/// Field of the view in `ResolveResponse` as in `WatchResponse`, which is why
/// the bytes of one answer both.
const VIEW_OF_ANSWER: u32 = 1;
/// Field of the encoded view in `ViewUpdate`, the last one.
const VIEW_OF_UPDATE: u32 = 4;

/// How views travel.
pub const WIRE: Wire = Wire {
    view: encode_view,
    delta: encode_delta,
    head_digest,
    instance_digest,
};

/// The bytes of a view and their checksum, in the answer that carries them.
/// Nothing is copied but what the view is made of.
pub fn encode_view(view: &ServiceView) -> Encoded {
    let mut message = head(view);
    message.instances = view.instances.iter().map(|it| instance(it)).collect();
    let view_bytes = message.encoded_len();
    let update = v1::ViewUpdate {
        service: message.service.clone(),
        revision: message.revision,
        // Written over below; the last of its fields, and always of 8 bytes.
        checksum: u64::MAX,
        view: Bytes::new(),
    };
    let field = |number, length| key_len(number) + encoded_len_varint(length as u64) + length;
    let update_bytes = update.encoded_len() + field(VIEW_OF_UPDATE, view_bytes);
    let mut frame = frame::head(field(VIEW_OF_ANSWER, update_bytes));
    begin_field(&mut frame, VIEW_OF_ANSWER, update_bytes);
    update.encode_raw(&mut frame);
    let checksum_ends = frame.len();
    begin_field(&mut frame, VIEW_OF_UPDATE, view_bytes);
    let begins = frame.len();
    message.encode_raw(&mut frame);
    let checksum = trimtab_proto::checksum(&frame[begins..]);
    frame[checksum_ends - 8..checksum_ends].copy_from_slice(&checksum.to_le_bytes());
    let frame = frame.freeze();
    Encoded {
        bytes: frame.slice(begins..),
        frame,
        checksum,
    }
}

fn begin_field(bytes: &mut BytesMut, number: u32, length: usize) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(length as u64, bytes);
    bytes.reserve(length);
}

/// What a step changed, as an answer on a watch stream.
fn encode_delta(step: &Step, view: &ServiceView, digest: u64) -> Bytes {
    frame::frame(&v1::WatchResponse {
        kind: Some(v1::watch_response::Kind::Delta(delta(step, view, digest))),
        possibly_stale: false,
    })
}

fn delta(step: &Step, view: &ServiceView, digest: u64) -> v1::ViewDelta {
    let route = route::route(&view.route);
    let mut delta = v1::ViewDelta {
        service: view.service.to_string(),
        from_revision: step.from,
        revision: step.to,
        digest,
        weights: if step.weights {
            route.weights
        } else {
            Vec::new()
        },
        policy: route.policy.filter(|_| step.policy),
        salt: step.salt.then_some(route.salt),
        route_revision: if step.route_revision {
            view.route_revision.0
        } else {
            0
        },
        ..v1::ViewDelta::default()
    };
    for name in &step.groups {
        match view.groups.binary_search_by(|(it, _)| it.cmp(name)) {
            Ok(at) => delta.groups.push(v1::Group {
                name: name.to_string(),
                state: kind_of_group(view.groups[at].1).into(),
            }),
            Err(_) => delta.removed_groups.push(name.to_string()),
        }
    }
    for (id, extent) in &step.instances {
        match (published::instance(view, id), extent) {
            (None, _) => delta.removed_instances.push(id.to_string()),
            (Some(it), Extent::Whole) => delta.instances.push(instance(it)),
            (Some(it), Extent::Status) => delta.statuses.push(v1::InstanceStatusChange {
                id: id.to_string(),
                status: status(it.status()).into(),
            }),
        }
    }
    delta
}

fn head_digest(view: &ServiceView) -> u64 {
    trimtab_proto::digest::head(&head(view))
}

fn instance_digest(it: &Instance) -> u64 {
    trimtab_proto::digest::instance(&instance(it))
}

/// Everything but the instances.
fn head(view: &ServiceView) -> v1::View {
    v1::View {
        service: view.service.to_string(),
        revision: view.revision.0,
        route: Some(route::route(&view.route)),
        route_revision: view.route_revision.0,
        groups: view
            .groups
            .iter()
            .map(|(name, state)| v1::Group {
                name: name.to_string(),
                state: kind_of_group(*state).into(),
            })
            .collect(),
        instances: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trimtab_registry::group::GroupState;
    use trimtab_registry::name::{GroupName, ServiceName};
    use trimtab_registry::policy::RoutePolicy;
    use trimtab_registry::revision::Revision;
    use trimtab_registry::route::{Route, Weights};

    fn sample() -> ServiceView {
        let group = GroupName::parse("v1").expect("valid");
        ServiceView {
            service: ServiceName::parse("catalog").expect("valid"),
            revision: Revision(300),
            route: Arc::new(Route {
                weights: Weights::whole(group.clone()),
                policy: RoutePolicy::default(),
                salt: Revision(0),
            }),
            route_revision: Revision(299),
            groups: vec![(group, GroupState::Active)],
            instances: Default::default(),
        }
    }

    #[test]
    fn what_is_written_by_hand_is_what_the_generated_code_reads_and_writes() {
        let encoded = encode_view(&sample());
        let message = &encoded.frame[frame::FRAME_HEAD_BYTES..];
        let read = v1::ResolveResponse::decode(message).expect("an answer");
        let Some(v1::resolve_response::Result::View(update)) = &read.result else {
            panic!("a view");
        };
        assert_eq!(frame::frame(&read), encoded.frame);
        assert_eq!(update.checksum, trimtab_proto::checksum(&update.view));
        assert_eq!(
            (&update.view, update.checksum),
            (&encoded.bytes, encoded.checksum)
        );
        let watched = v1::WatchResponse::decode(message).expect("an answer");
        assert_eq!(
            watched.kind,
            Some(v1::watch_response::Kind::View(update.clone()))
        );
    }

    #[test]
    fn a_view_without_instances_is_its_head() {
        let view = sample();
        let read = v1::View::decode(encode_view(&view).bytes).expect("a view");
        assert_eq!(trimtab_proto::digest::view(&read), head_digest(&view));
    }
}

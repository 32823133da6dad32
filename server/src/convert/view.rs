//! Views, encoded once.

use bytes::Bytes;
use prost::Message;
use trimtab_proto::v1;
use trimtab_registry::view::ServiceView;

use super::instance::instance;
use super::route::{kind_of_group, route};
use crate::views::Encoded;

/// The bytes of a view and their checksum.
pub fn encode_view(view: &ServiceView) -> Encoded {
    let message = v1::View {
        service: view.service.to_string(),
        revision: view.revision.0,
        route: Some(route(&view.route)),
        route_revision: view.route_revision.0,
        groups: view
            .groups
            .iter()
            .map(|(name, state)| v1::Group {
                name: name.to_string(),
                state: kind_of_group(*state).into(),
            })
            .collect(),
        instances: view
            .instances
            .iter()
            .map(|shared| instance(shared))
            .collect(),
    };
    let bytes = Bytes::from(message.encode_to_vec());
    let checksum = trimtab_proto::checksum(&bytes);
    Encoded { bytes, checksum }
}

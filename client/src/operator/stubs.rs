//! The operator's end of each gRPC service.

use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::routing_client::RoutingClient;

use crate::cluster::{Line, MESSAGE_BYTES_MAX};

pub(super) fn routing(channel: Line) -> RoutingClient<Line> {
    RoutingClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(super) fn discovery(channel: Line) -> DiscoveryClient<Line> {
    DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// What it answers fits the usual bound: it names replicas only.
pub(super) fn cluster(channel: Line) -> ClusterClient<Line> {
    ClusterClient::new(channel)
}

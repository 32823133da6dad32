//! The operator's end of each gRPC service.

use tonic::transport::Channel;
use trimtab_proto::v1::cluster_client::ClusterClient;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::routing_client::RoutingClient;

use crate::cluster::MESSAGE_BYTES_MAX;

pub(super) fn routing(channel: Channel) -> RoutingClient<Channel> {
    RoutingClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(super) fn discovery(channel: Channel) -> DiscoveryClient<Channel> {
    DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// What it answers fits the usual bound: it names replicas only.
pub(super) fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel)
}

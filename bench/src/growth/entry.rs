//! Instances of any group, which the backends' clients do not register.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tonic::transport::Channel;
use trimtab_proto::v1::registration_client::RegistrationClient;
use trimtab_proto::v1::{Instance, InstanceStatus, RegisterRequest};

use crate::failure::Failure;
use crate::sample::{GROUP, METADATA, Sample};
use crate::wire::{Received, connect};

/// Nobody renews: longer than any point takes.
const TTL_SECONDS: i64 = 600;
/// Connections to the one that leads, in turn.
const CONNECTIONS: usize = 4;

/// Ways to register.
#[derive(Debug)]
pub(super) struct Entrance {
    channels: Vec<Channel>,
    turn: AtomicUsize,
}

impl Entrance {
    /// To the first of these servers.
    pub(super) async fn to(servers: &[SocketAddr]) -> Result<Self, Failure> {
        let mut channels = Vec::new();
        for &server in servers.iter().take(1).cycle().take(CONNECTIONS) {
            channels.push(connect(server, &Received::default()).await?);
        }
        let turn = AtomicUsize::new(0);
        Ok(Self { channels, turn })
    }

    /// Registers an instance of a group; the revision of that.
    pub(super) async fn enter(&self, sample: &Sample, group: usize) -> Result<u64, Failure> {
        let turn = self.turn.fetch_add(1, Relaxed) % self.channels.len().max(1);
        let channel = self.channels.get(turn).cloned();
        let channel = channel.ok_or_else(|| Failure::Wrong("there is no server".to_owned()))?;
        let request = RegisterRequest {
            service: sample.service.clone(),
            instance: Some(instance(sample, group)),
            ttl: Some(prost_types::Duration {
                seconds: TTL_SECONDS,
                nanos: 0,
            }),
        };
        let answer = RegistrationClient::new(channel).register(request).await;
        let answer = answer.map_err(Failure::call("registering"))?.into_inner();
        // A lease is named by the revision of the registration.
        Ok(answer.lease)
    }
}

fn instance(sample: &Sample, group: usize) -> Instance {
    let pairs = METADATA.iter();
    Instance {
        id: sample.id.clone(),
        group: group_name(group),
        address: sample.address.to_string(),
        zone: sample.zone.to_owned(),
        capacity: 0,
        metadata: pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        status: InstanceStatus::Ready.into(),
    }
}

/// The first two are those that calls are shifted between: "v41", "v42".
fn group_name(number: usize) -> String {
    match number {
        0 => GROUP.to_owned(),
        more => format!("v{}", more + 41),
    }
}

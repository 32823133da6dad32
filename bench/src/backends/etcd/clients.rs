//! Clients of etcd's v3 gRPC: registering is a lease and a key, looking up is reading a prefix.

use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;

use super::streams::{self, EtcdRenewals};
use super::v3::kv_client::KvClient;
use super::v3::lease_client::LeaseClient;
use super::v3::watch_client::WatchClient;
use super::v3::{
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, request_op,
};
use crate::backends::{
    Clients, Fanout, Lease, Lines, Lookup, Outcome, Register, Renew, Renewals, Watcher,
};
use crate::failure::Failure;
use crate::sample::{GROUP, METADATA, Sample};
use crate::wire::ANSWER_BYTES_MAX;

/// What changes in the service that is watched: a key of about what a view of two instances has in bytes.
const WEIGHTS: &str = "weights";

/// Clients over some connections.
#[derive(Debug)]
struct EtcdClients {
    channels: Vec<Channel>,
}

/// Clients over connections that are opened now.
pub(super) fn connect<'a>(lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
    Box::pin(async move {
        let channels = lines.open().await?;
        let clients: Box<dyn Clients> = Box::new(EtcdClients { channels });
        Ok(clients)
    })
}

impl EtcdClients {
    fn channel(&self, at: usize) -> Result<Channel, Failure> {
        let channel = self.channels.get(at % self.channels.len().max(1));
        let channel = channel.cloned();
        channel.ok_or_else(|| Failure::Wrong("no connection was opened".to_owned()))
    }

    fn kv(&self, at: usize) -> Result<KvClient<Channel>, Failure> {
        let client = KvClient::new(self.channel(at)?);
        Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    async fn grant(&self, at: usize, ttl: Duration) -> Result<i64, Failure> {
        let request = LeaseGrantRequest {
            ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            id: 0,
        };
        let mut client = LeaseClient::new(self.channel(at)?);
        let granted = client.lease_grant(request).await;
        Ok(granted
            .map_err(Failure::call("granting a lease"))?
            .into_inner()
            .id)
    }

    async fn put(&self, at: usize, put: PutRequest) -> Result<u64, Failure> {
        let answer = self
            .kv(at)?
            .put(put)
            .await
            .map_err(Failure::call("putting"))?;
        let revision = answer
            .into_inner()
            .header
            .map_or(0, |header| header.revision);
        Ok(u64::try_from(revision).unwrap_or(0))
    }

    async fn range(&self, at: usize, request: RangeRequest) -> Result<RangeResponse, Failure> {
        let answer = self.kv(at)?.range(request).await;
        Ok(answer.map_err(Failure::call("looking up"))?.into_inner())
    }
}

fn key(instance: &Sample) -> Bytes {
    format!("{}/{}", instance.service, instance.id).into()
}

/// The same facts that Trimtab is given, as JSON.
fn value(instance: &Sample) -> Bytes {
    let metadata: serde_json::Map<String, serde_json::Value> = METADATA
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    let value = serde_json::json!({
        "group": GROUP,
        "address": instance.address.to_string(),
        "zone": instance.zone,
        "capacity": 100,
        "metadata": metadata,
    });
    value.to_string().into()
}

fn put(instance: &Sample, lease: i64) -> PutRequest {
    PutRequest {
        key: key(instance),
        value: value(instance),
        lease,
    }
}

/// All keys that begin with the service's name and a slash.
fn all_of(service: &str) -> (Bytes, Bytes) {
    // '0' follows '/'.
    (format!("{service}/").into(), format!("{service}0").into())
}

impl Clients for EtcdClients {
    fn register(&self) -> &dyn Register {
        self
    }

    fn lookup(&self) -> &dyn Lookup {
        self
    }

    fn renew(&self) -> Option<&dyn Renew> {
        Some(self)
    }

    fn fanout(&self) -> &dyn Fanout {
        self
    }
}

impl Register for EtcdClients {
    fn one<'a>(&'a self, at: usize, instance: &'a Sample, ttl: Duration) -> Outcome<'a, Lease> {
        Box::pin(async move {
            let lease = self.grant(at, ttl).await?;
            self.put(at, put(instance, lease)).await?;
            Ok(Lease {
                instance: instance.clone(),
                number: lease.cast_unsigned(),
            })
        })
    }

    /// One lease for all of them, and one transaction of puts.
    fn many<'a>(
        &'a self,
        at: usize,
        instances: &'a [Sample],
        ttl: Duration,
    ) -> Option<Outcome<'a, ()>> {
        Some(Box::pin(async move {
            let lease = self.grant(at, ttl).await?;
            let success = instances
                .iter()
                .map(|instance| RequestOp {
                    request: Some(request_op::Request::RequestPut(put(instance, lease))),
                })
                .collect();
            let answer = self.kv(at)?.txn(TxnRequest { success }).await;
            answer.map(drop).map_err(Failure::call("putting many"))
        }))
    }

    fn leave<'a>(&'a self, at: usize, lease: &'a Lease) -> Outcome<'a, ()> {
        Box::pin(async move {
            // Its key goes with it.
            let request = LeaseRevokeRequest {
                id: lease.number.cast_signed(),
            };
            let mut client = LeaseClient::new(self.channel(at)?);
            let answer = client.lease_revoke(request).await;
            answer.map(drop).map_err(Failure::call("revoking a lease"))
        })
    }
}

impl Lookup for EtcdClients {
    fn instances<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, (usize, u64)> {
        Box::pin(async move {
            let answer = self.range(at, newer_than(service, 0)).await?;
            let revision = answer.header.map_or(0, |header| header.revision);
            Ok((answer.kvs.len(), u64::try_from(revision).unwrap_or(0)))
        })
    }

    fn answer<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, ()> {
        Box::pin(async move { self.range(at, newer_than(service, 0)).await.map(drop) })
    }

    fn unchanged<'a>(
        &'a self,
        at: usize,
        service: &'a str,
        revision: u64,
    ) -> Option<Outcome<'a, ()>> {
        Some(Box::pin(async move {
            let answer = self.range(at, newer_than(service, revision)).await?;
            match answer.kvs.is_empty() {
                true => Ok(()),
                false => Err(Failure::Wrong(format!("{service} changed"))),
            }
        }))
    }
}

/// A read from the member's own state, as Trimtab's lookups are.
fn newer_than(service: &str, revision: u64) -> RangeRequest {
    let (key, range_end) = all_of(service);
    RangeRequest {
        key,
        range_end,
        serializable: true,
        count_only: false,
        min_mod_revision: match revision {
            0 => 0,
            revision => i64::try_from(revision + 1).unwrap_or(i64::MAX),
        },
    }
}

impl Renew for EtcdClients {
    /// etcd renews one lease with each message, however many are on their way.
    fn open<'a>(
        &'a self,
        at: usize,
        leases: &'a [Lease],
        _per_message: usize,
    ) -> Outcome<'a, Box<dyn Renewals>> {
        Box::pin(async move {
            let client = LeaseClient::new(self.channel(at)?);
            let renewals = EtcdRenewals::open(client, leases).await?;
            let renewals: Box<dyn Renewals> = Box::new(renewals);
            Ok(renewals)
        })
    }
}

impl Fanout for EtcdClients {
    fn shares_connections(&self) -> bool {
        true
    }

    fn found<'a>(&'a self, service: &'a str, instances: usize) -> Outcome<'a, ()> {
        Box::pin(async move {
            for number in 0..instances {
                self.put(0, put(&Sample::of(service, number), 0)).await?;
            }
            self.change(service, 0).await.map(drop)
        })
    }

    fn change<'a>(&'a self, service: &'a str, number: u64) -> Outcome<'a, u64> {
        let weights =
            serde_json::json!({ "v41": number % 10_000, "v42": 10_000 - number % 10_000 });
        let put = PutRequest {
            key: format!("{service}/{WEIGHTS}").into(),
            value: weights.to_string().into(),
            lease: 0,
        };
        Box::pin(self.put(0, put))
    }

    fn watch<'a>(
        &'a self,
        at: usize,
        _name: String,
        service: &'a str,
    ) -> Outcome<'a, Box<dyn Watcher>> {
        Box::pin(async move {
            let (key, range_end) = all_of(service);
            streams::watch(WatchClient::new(self.channel(at)?), key, range_end).await
        })
    }

    fn receipts<'a>(&'a self, _service: &'a str, _revision: u64) -> Option<Outcome<'a, ()>> {
        None
    }
}

//! Clients of Trimtab's gRPC, which the null server speaks as well.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::registration_client::RegistrationClient;
use trimtab_proto::v1::routing_client::RoutingClient;
use trimtab_proto::v1::{
    DeregisterRequest, GroupWeight, Instance, InstanceStatus, LeaseRef, ReceiptsRequest,
    RegisterManyRequest, RegisterManyResult, RegisterRequest, RenewRequest, RenewResponse,
    ResolveRequest, ServiceShift, ShiftRequest, View, Weights, register_many_result,
    resolve_response, service_shift,
};

use super::watcher;
use crate::backends::{
    Clients, Fanout, Lease, Lines, Lookup, Outcome, Register, Renew, Renewals, Watcher,
};
use crate::failure::Failure;
use crate::sample::{GROUP, METADATA, Sample};
use crate::wire::ANSWER_BYTES_MAX;

/// The release beside `GROUP` in the service that is watched.
const OTHER_GROUP: &str = "v42";
const WATCHED_TTL: Duration = Duration::from_secs(600);

/// Clients over some connections.
#[derive(Debug)]
struct TrimtabClients {
    channels: Vec<Channel>,
}

/// Clients over connections that are opened now.
pub(in crate::backends) fn connect<'a>(lines: &'a Lines<'a>) -> Outcome<'a, Box<dyn Clients>> {
    Box::pin(async move {
        let channels = lines.open().await?;
        let clients: Box<dyn Clients> = Box::new(TrimtabClients { channels });
        Ok(clients)
    })
}

impl TrimtabClients {
    fn channel(&self, at: usize) -> Result<Channel, Failure> {
        let channel = self.channels.get(at % self.channels.len().max(1));
        let channel = channel.cloned();
        channel.ok_or_else(|| Failure::Wrong("no connection was opened".to_owned()))
    }

    fn registration(&self, at: usize) -> Result<RegistrationClient<Channel>, Failure> {
        Ok(RegistrationClient::new(self.channel(at)?))
    }

    fn discovery(&self, at: usize) -> Result<DiscoveryClient<Channel>, Failure> {
        let client = DiscoveryClient::new(self.channel(at)?);
        Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    async fn shift(&self, service: &str, first: u32) -> Result<u64, Failure> {
        let weight = |group: &str, basis_points| GroupWeight {
            group: group.to_owned(),
            basis_points,
        };
        let weights = vec![weight(GROUP, first), weight(OTHER_GROUP, 10_000 - first)];
        let shift = ServiceShift {
            service: service.to_owned(),
            target: Some(service_shift::Target::Weights(Weights { weights })),
            min_ready: Some(0),
            ..ServiceShift::default()
        };
        let request = ShiftRequest {
            shifts: vec![shift],
            options: None,
        };
        let mut client = RoutingClient::new(self.channel(0)?);
        let answer = client
            .shift(request)
            .await
            .map_err(Failure::call("shifting"))?;
        Ok(answer.into_inner().revision)
    }

    async fn enter(
        &self,
        at: usize,
        instance: &Sample,
        group: &str,
        ttl: Duration,
    ) -> Result<u64, Failure> {
        let mut client = self.registration(at)?;
        let answer = client.register(entry(instance, group, ttl)).await;
        Ok(answer
            .map_err(Failure::call("registering"))?
            .into_inner()
            .lease)
    }
}

fn entry(instance: &Sample, group: &str, ttl: Duration) -> RegisterRequest {
    RegisterRequest {
        service: instance.service.clone(),
        instance: Some(wire_instance(instance, group)),
        ttl: Some(span(ttl)),
    }
}

fn span(ttl: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

fn wire_instance(sample: &Sample, group: &str) -> Instance {
    let pairs = METADATA.iter();
    Instance {
        id: sample.id.clone(),
        group: group.to_owned(),
        address: sample.address.to_string(),
        zone: sample.zone.to_owned(),
        capacity: 0,
        metadata: pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        status: InstanceStatus::Ready.into(),
    }
}

fn lease_ref(lease: &Lease) -> LeaseRef {
    LeaseRef {
        service: lease.instance.service.clone(),
        instance_id: lease.instance.id.clone(),
        lease: lease.number,
    }
}

impl Clients for TrimtabClients {
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

impl Register for TrimtabClients {
    fn one<'a>(&'a self, at: usize, instance: &'a Sample, ttl: Duration) -> Outcome<'a, Lease> {
        Box::pin(async move {
            let number = self.enter(at, instance, GROUP, ttl).await?;
            let instance = instance.clone();
            Ok(Lease { instance, number })
        })
    }

    fn many<'a>(
        &'a self,
        at: usize,
        instances: &'a [Sample],
        ttl: Duration,
    ) -> Option<Outcome<'a, ()>> {
        Some(Box::pin(async move {
            let requests = instances.iter().map(|one| entry(one, GROUP, ttl)).collect();
            let mut client = self.registration(at)?;
            let answer = client.register_many(RegisterManyRequest { requests }).await;
            let answer = answer.map_err(Failure::call("registering many"))?;
            let is_in = |one: &RegisterManyResult| {
                matches!(
                    one.result,
                    Some(register_many_result::Result::Registered(_))
                )
            };
            match answer.into_inner().results.iter().all(is_in) {
                true => Ok(()),
                false => Err(Failure::Wrong("some of many were refused".to_owned())),
            }
        }))
    }

    fn leave<'a>(&'a self, at: usize, lease: &'a Lease) -> Outcome<'a, ()> {
        Box::pin(async move {
            let request = DeregisterRequest {
                lease: Some(lease_ref(lease)),
            };
            let mut client = self.registration(at)?;
            let answer = client.deregister(request).await;
            answer.map(drop).map_err(Failure::call("deregistering"))
        })
    }
}

impl Lookup for TrimtabClients {
    fn instances<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, (usize, u64)> {
        Box::pin(async move {
            match self.resolve(at, service, 0).await? {
                Some(resolve_response::Result::View(update)) => {
                    let view: View = prost::Message::decode(update.view)
                        .map_err(|error| Failure::Wrong(format!("decoding a view: {error}")))?;
                    Ok((view.instances.len(), update.revision))
                }
                _ => Err(Failure::Wrong(format!("no view of {service} came"))),
            }
        })
    }

    fn answer<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, ()> {
        Box::pin(async move { self.resolve(at, service, 0).await.map(drop) })
    }

    fn unchanged<'a>(
        &'a self,
        at: usize,
        service: &'a str,
        revision: u64,
    ) -> Option<Outcome<'a, ()>> {
        Some(Box::pin(async move {
            match self.resolve(at, service, revision).await? {
                Some(resolve_response::Result::Unchanged(_)) => Ok(()),
                _ => Err(Failure::Wrong(format!("{service} changed"))),
            }
        }))
    }
}

impl TrimtabClients {
    async fn resolve(
        &self,
        at: usize,
        service: &str,
        known_revision: u64,
    ) -> Result<Option<resolve_response::Result>, Failure> {
        let request = ResolveRequest {
            service: service.to_owned(),
            linearizable: false,
            known_revision,
        };
        let mut client = self.discovery(at)?;
        let answer = client.resolve(request).await;
        Ok(answer
            .map_err(Failure::call("looking up"))?
            .into_inner()
            .result)
    }
}

impl Renew for TrimtabClients {
    fn open<'a>(
        &'a self,
        at: usize,
        leases: &'a [Lease],
        per_message: usize,
    ) -> Outcome<'a, Box<dyn Renewals>> {
        Box::pin(async move {
            let messages: Vec<RenewRequest> = leases
                .chunks(per_message.max(1))
                .map(|chunk| RenewRequest {
                    leases: chunk.iter().map(lease_ref).collect(),
                })
                .collect();
            let (ask, asked) = mpsc::channel(messages.len().max(1));
            let mut client = self.registration(at)?;
            let answers = client.renew(ReceiverStream::new(asked)).await;
            let answers = answers.map_err(Failure::call("renewing"))?.into_inner();
            let renewals: Box<dyn Renewals> = Box::new(TrimtabRenewals {
                messages,
                ask,
                answers,
            });
            Ok(renewals)
        })
    }
}

/// One renewal stream.
struct TrimtabRenewals {
    messages: Vec<RenewRequest>,
    ask: mpsc::Sender<RenewRequest>,
    answers: Streaming<RenewResponse>,
}

impl Renewals for TrimtabRenewals {
    fn all(&mut self) -> Outcome<'_, ()> {
        Box::pin(async move {
            for message in &self.messages {
                let sent = self.ask.send(message.clone()).await;
                sent.map_err(|_| Failure::Wrong("a renewal stream ended".to_owned()))?;
            }
            for _ in &self.messages {
                let answer = self.answers.message().await;
                match answer.map_err(Failure::call("renewing"))? {
                    Some(answer) if answer.lost.is_empty() => {}
                    Some(_) => return Err(Failure::Wrong("leases were lost".to_owned())),
                    None => return Err(Failure::Wrong("a renewal stream ended".to_owned())),
                }
            }
            Ok(())
        })
    }
}

impl Fanout for TrimtabClients {
    fn shares_connections(&self) -> bool {
        true
    }

    fn found<'a>(&'a self, service: &'a str, instances: usize) -> Outcome<'a, ()> {
        Box::pin(async move {
            for number in 0..instances {
                let group = if number % 2 == 0 { GROUP } else { OTHER_GROUP };
                let instance = Sample::of(service, number);
                self.enter(0, &instance, group, WATCHED_TTL).await?;
            }
            Ok(())
        })
    }

    fn change<'a>(&'a self, service: &'a str, number: u64) -> Outcome<'a, u64> {
        // From one share to another within the middle, never twice the same.
        let first = u32::try_from(number % 8_000).unwrap_or(0) + 1_000;
        Box::pin(self.shift(service, first))
    }

    fn watch<'a>(
        &'a self,
        at: usize,
        name: String,
        service: &'a str,
    ) -> Outcome<'a, Box<dyn Watcher>> {
        Box::pin(async move { watcher::open(self.discovery(at)?, name, service).await })
    }

    fn receipts<'a>(&'a self, service: &'a str, revision: u64) -> Option<Outcome<'a, ()>> {
        Some(Box::pin(async move {
            let request = ReceiptsRequest {
                services: vec![service.to_owned()],
                revision,
            };
            let mut client = RoutingClient::new(self.channel(0)?);
            let failed = "waiting for receipts";
            let answers = client.receipts(request).await;
            let mut answers = answers.map_err(Failure::call(failed))?.into_inner();
            while let Some(answer) = answers.message().await.map_err(Failure::call(failed))? {
                if answer.complete {
                    return Ok(());
                }
            }
            Err(Failure::Wrong("the receipts ended early".to_owned()))
        }))
    }
}

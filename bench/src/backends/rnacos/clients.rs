//! Clients of r-nacos: JSON in Nacos' envelope.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::line::{Line, ServiceInfo, weight_of};
use crate::backends::{Clients, Fanout, Lease, Lines, Lookup, Outcome, Register, Renew, Watcher};
use crate::failure::Failure;
use crate::sample::{METADATA, Sample};

const GROUP: &str = "DEFAULT_GROUP";

/// Clients over some connections.
#[derive(Debug)]
pub(super) struct RnacosClients {
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queried {
    service_info: Option<ServiceInfo>,
}

impl RnacosClients {
    pub(super) async fn open(lines: &Lines<'_>) -> Result<Self, Failure> {
        let mut open = Vec::with_capacity(lines.connections);
        for channel in lines.open().await? {
            open.push(Line::open(channel, lines.window.is_some()).await?);
        }
        Ok(Self { lines: open })
    }

    fn line(&self, at: usize) -> Result<&Line, Failure> {
        let line = self.lines.get(at % self.lines.len().max(1));
        line.ok_or_else(|| Failure::Wrong("no connection was opened".to_owned()))
    }

    /// Registers one instance, which lives as long as the connection.
    pub(super) async fn register_one(&self, at: usize, instance: &Sample) -> Result<(), Failure> {
        let request = instance_request(instance, "registerInstance", 0);
        let answered = self.line(at)?.call("InstanceRequest", request).await;
        answered.map(drop)
    }

    async fn query(&self, at: usize, service: &str) -> Result<bytes::Bytes, Failure> {
        let request = json!({
            "module": "naming",
            "namespace": "public",
            "serviceName": service,
            "groupName": GROUP,
            "cluster": "",
            "healthyOnly": false,
        });
        let line = self.line(at)?;
        line.call("ServiceQueryRequest", request.to_string()).await
    }
}

fn instance_json(instance: &Sample, change: u64) -> serde_json::Value {
    let metadata: serde_json::Map<String, serde_json::Value> = METADATA
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    json!({
        "ip": instance.address.ip().to_string(),
        "port": instance.address.port(),
        "weight": weight_of(change),
        "healthy": true,
        "enabled": true,
        // Never otherwise: it connects to the addresses of those that are not.
        "ephemeral": true,
        "clusterName": "DEFAULT",
        "serviceName": instance.service,
        "metadata": metadata,
    })
}

fn instance_request(instance: &Sample, kind: &str, change: u64) -> String {
    let request = json!({
        "module": "naming",
        "namespace": "public",
        "serviceName": instance.service,
        "groupName": GROUP,
        "type": kind,
        "instance": instance_json(instance, change),
    });
    request.to_string()
}

impl Clients for RnacosClients {
    fn register(&self) -> &dyn Register {
        self
    }

    fn lookup(&self) -> &dyn Lookup {
        self
    }

    /// A client of Nacos 2 renews nothing: its connection is what lives.
    fn renew(&self) -> Option<&dyn Renew> {
        None
    }

    fn fanout(&self) -> &dyn Fanout {
        self
    }
}

impl Register for RnacosClients {
    fn one<'a>(&'a self, at: usize, instance: &'a Sample, _ttl: Duration) -> Outcome<'a, Lease> {
        Box::pin(async move {
            self.register_one(at, instance).await?;
            let instance = instance.clone();
            Ok(Lease {
                instance,
                number: 0,
            })
        })
    }

    fn many<'a>(
        &'a self,
        at: usize,
        instances: &'a [Sample],
        _ttl: Duration,
    ) -> Option<Outcome<'a, ()>> {
        let first = instances.first()?;
        let all: Vec<_> = instances.iter().map(|one| instance_json(one, 0)).collect();
        let request = json!({
            "module": "naming",
            "namespace": "public",
            "serviceName": first.service,
            "groupName": GROUP,
            "type": "batchRegisterInstance",
            "instances": all,
        });
        Some(Box::pin(async move {
            let line = self.line(at)?;
            let answered = line.call("BatchInstanceRequest", request.to_string()).await;
            answered.map(drop)
        }))
    }

    fn leave<'a>(&'a self, at: usize, lease: &'a Lease) -> Outcome<'a, ()> {
        Box::pin(async move {
            let request = instance_request(&lease.instance, "deregisterInstance", 0);
            let answered = self.line(at)?.call("InstanceRequest", request).await;
            answered.map(drop)
        })
    }
}

impl Lookup for RnacosClients {
    fn instances<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, (usize, u64)> {
        Box::pin(async move {
            let answer = self.query(at, service).await?;
            let answer: Queried = serde_json::from_slice(&answer)
                .map_err(|error| Failure::Wrong(format!("decoding a service: {error}")))?;
            Ok((answer.service_info.map_or(0, |info| info.hosts.len()), 0))
        })
    }

    fn answer<'a>(&'a self, at: usize, service: &'a str) -> Outcome<'a, ()> {
        Box::pin(async move { self.query(at, service).await.map(drop) })
    }

    fn unchanged<'a>(
        &'a self,
        _at: usize,
        _service: &'a str,
        _revision: u64,
    ) -> Option<Outcome<'a, ()>> {
        None
    }
}

impl Fanout for RnacosClients {
    /// It knows one subscriber for each connection.
    fn shares_connections(&self) -> bool {
        false
    }

    fn found<'a>(&'a self, service: &'a str, instances: usize) -> Outcome<'a, ()> {
        Box::pin(async move {
            for number in 0..instances {
                self.register_one(0, &Sample::of(service, number)).await?;
            }
            Ok(())
        })
    }

    /// An instance's weight: it has none between releases. Other metadata of a known instance it does not take over
    /// this door, it keeps what came first.
    fn change<'a>(&'a self, service: &'a str, number: u64) -> Outcome<'a, u64> {
        Box::pin(async move {
            let instance = Sample::of(service, 0);
            let request = instance_request(&instance, "registerInstance", number);
            let answered = self.line(0)?.call("InstanceRequest", request).await;
            answered.map(|_| 0)
        })
    }

    fn watch<'a>(
        &'a self,
        at: usize,
        _name: String,
        service: &'a str,
    ) -> Outcome<'a, Box<dyn Watcher>> {
        Box::pin(async move {
            let line = self.line(at)?;
            let request = json!({
                "module": "naming",
                "namespace": "public",
                "serviceName": service,
                "groupName": GROUP,
                "subscribe": true,
                "clusters": "",
            });
            line.call("SubscribeServiceRequest", request.to_string())
                .await?;
            let watcher: Box<dyn Watcher> = Box::new(RnacosWatcher {
                pushed: line.pushed.clone(),
            });
            Ok(watcher)
        })
    }

    fn receipts<'a>(&'a self, _service: &'a str, _revision: u64) -> Option<Outcome<'a, ()>> {
        None
    }
}

/// One subscription, alone on its connection.
struct RnacosWatcher {
    pushed: watch::Receiver<u64>,
}

impl Watcher for RnacosWatcher {
    fn next(&mut self) -> Outcome<'_, u64> {
        Box::pin(async move {
            let changed = self.pushed.changed().await;
            changed.map_err(|_| Failure::Wrong("a subscription ended".to_owned()))?;
            Ok(*self.pushed.borrow_and_update())
        })
    }
}

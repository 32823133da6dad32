//! Registering instances, each with a lease of its own: one at a time, many at a time, many in one call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{Trial, Workload, replicas_named};
use crate::backends::{Backend, Clients, Cluster, Lease, Lines, Outcome, addresses};
use crate::failure::Failure;
use crate::load::{Request, closed_loop};
use crate::sample::{PER_SERVICE, Sample};
use crate::scale::Scale;

/// Connections that requests are spread over.
pub(super) const CONNECTIONS: usize = 8;
/// Long enough that none lapses meanwhile.
pub(super) const TTL: Duration = Duration::from_secs(600);
const IN_FLIGHT: [usize; 3] = [1, 64, 512];
/// Calls that register many at once: what keeps a server busy.
const MANY_IN_FLIGHT: usize = 8;
/// Calls in flight while a registry is filled for another workload.
pub(super) const FILLING_IN_FLIGHT: usize = 128;
/// So many a second come in, with the fast backends and the slow.
const FILLED_PER_SECOND: f64 = 5_000.0;

/// The workload.
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) replicas: usize,
}

impl Workload for Registering {
    fn name(&self) -> &'static str {
        match self.replicas {
            1 => "register",
            _ => "register-3",
        }
    }

    fn about(&self) -> &'static str {
        "instances register, 1, 64 and 512 calls in flight, and many in one call"
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        backend.runs_as(self.replicas)
    }

    fn takes(&self, scale: &Scale) -> Duration {
        Duration::from_secs(self.replicas as u64) + scale.warm_up + scale.phase * 4
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(self.replicas, trial.directory).await?;
            let servers = addresses(&*cluster);
            let lines = Lines::to(&servers, CONNECTIONS);
            let clients = cluster.clients(&lines).await?;
            measure(self.replicas, &*cluster, clients.into(), trial).await
        })
    }
}

async fn measure(
    replicas: usize,
    cluster: &dyn Cluster,
    clients: Arc<dyn Clients>,
    mut trial: Trial<'_>,
) -> Result<(), Failure> {
    let scale = trial.scale;
    closed_loop(cluster, 64, scale.warm_up, &one_each("warm", &clients)).await?;
    for in_flight in IN_FLIGHT {
        let request = one_each(&format!("one-{in_flight}"), &clients);
        let done = closed_loop(cluster, in_flight, scale.phase, &request).await?;
        let case = format!("{}, {in_flight} in flight", replicas_named(replicas));
        trial.notes.closed_loop(&case, &done, 1);
    }
    let each = scale.per_call;
    if let Some(first) = clients.register().many(0, &batch("first", 0, each), TTL) {
        first.await?;
        let request = many_each("many", each, &clients);
        let done = closed_loop(cluster, MANY_IN_FLIGHT, scale.phase, &request).await?;
        let case = format!("{}, {each} in one call", replicas_named(replicas));
        trial.notes.closed_loop(&case, &done, each);
    }
    Ok(())
}

/// Registers that many instances, one in a call, and keeps their leases.
pub(super) async fn register_all(
    clients: &Arc<dyn Clients>,
    prefix: &str,
    count: usize,
    ttl: Duration,
) -> Result<Vec<Lease>, Failure> {
    let instances = (0..count).map(|number| Sample::new(prefix, number));
    let mut calls = stream::iter(instances.enumerate())
        .map(|(at, instance)| async move { clients.register().one(at, &instance, ttl).await })
        .buffer_unordered(FILLING_IN_FLIGHT);
    let mut leases = Vec::with_capacity(count);
    while let Some(lease) = calls.next().await {
        leases.push(lease?);
    }
    Ok(leases)
}

/// How long it takes to register so many, about.
pub(super) fn filled(count: usize) -> Duration {
    Duration::from_secs_f64(count as f64 / FILLED_PER_SECOND)
}

/// Requests that each register another instance.
fn one_each(prefix: &str, clients: &Arc<dyn Clients>) -> Request {
    let (prefix, clients) = (prefix.to_owned(), clients.clone());
    Arc::new(move |worker, number| {
        let instance = Sample::new(&prefix, usize::try_from(number).unwrap_or(0));
        let clients = clients.clone();
        Box::pin(async move {
            let registered = clients.register().one(worker, &instance, TTL).await;
            registered.map(drop)
        })
    })
}

/// Requests that each register the instances of another service.
fn many_each(prefix: &str, each: usize, clients: &Arc<dyn Clients>) -> Request {
    let (prefix, clients) = (prefix.to_owned(), clients.clone());
    Arc::new(move |worker, number| {
        let instances = batch(&prefix, usize::try_from(number).unwrap_or(0), each);
        let clients = clients.clone();
        Box::pin(async move {
            match clients.register().many(worker, &instances, TTL) {
                Some(registered) => registered.await,
                None => Ok(()),
            }
        })
    })
}

fn batch(prefix: &str, number: usize, each: usize) -> Vec<Sample> {
    let first = number * PER_SERVICE;
    (first..first + each.min(PER_SERVICE))
        .map(|number| Sample::new(prefix, number))
        .collect()
}

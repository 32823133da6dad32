//! Looking up a service of 100 instances: all of it, and whether it has changed.

use std::sync::Arc;
use std::time::Duration;

use super::register::{CONNECTIONS, TTL};
use super::{Trial, Workload};
use crate::backends::{Backend, Clients, Cluster, Lines, Outcome, addresses};
use crate::failure::Failure;
use crate::figures::Better;
use crate::load::{Request, closed_loop};
use crate::sample::Sample;
use crate::scale::Scale;
use crate::wire::Received;

const INSTANCES: usize = 100;
const IN_FLIGHT: usize = 64;
const SERVICE: &str = "lookup-x100";

/// The workload.
#[derive(Debug)]
pub(super) struct LookingUp;

impl Workload for LookingUp {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn about(&self) -> &'static str {
        "64 callers look up a service of 100 instances, and ask whether it changed"
    }

    fn takes(&self, scale: &Scale) -> Duration {
        Duration::from_secs(1) + scale.warm_up + scale.phase * 2
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(1, trial.directory).await?;
            let servers = addresses(&*cluster);
            let lines = Lines::to(&servers, CONNECTIONS);
            let clients = cluster.clients(&lines).await?;
            for number in 0..INSTANCES {
                let instance = Sample::of(SERVICE, number);
                clients.register().one(0, &instance, TTL).await?;
            }
            let (found, revision) = clients.lookup().instances(0, SERVICE).await?;
            if found != INSTANCES {
                let wrong = format!("a lookup found {found} of {INSTANCES} instances");
                return Err(Failure::Wrong(wrong));
            }
            measure(&*cluster, clients.into(), &lines.received, revision, trial).await
        })
    }
}

async fn measure(
    cluster: &dyn Cluster,
    clients: Arc<dyn Clients>,
    received: &Received,
    revision: u64,
    mut trial: Trial<'_>,
) -> Result<(), Failure> {
    let scale = trial.scale;
    let whole = whole(&clients);
    closed_loop(cluster, IN_FLIGHT, scale.warm_up, &whole).await?;
    let before = received.load(std::sync::atomic::Ordering::Relaxed);
    let done = closed_loop(cluster, IN_FLIGHT, scale.phase, &whole).await?;
    let bytes = received.load(std::sync::atomic::Ordering::Relaxed) - before;
    let case = "100 instances, 64 in flight";
    trial.notes.closed_loop(case, &done, 1);
    let each = bytes as f64 / done.answered.max(1) as f64;
    trial
        .notes
        .add(case, "bytes each", "B", Better::Lower, each);
    if let Some(first) = clients.lookup().unchanged(0, SERVICE, revision) {
        first.await?;
        let done = closed_loop(
            cluster,
            IN_FLIGHT,
            scale.phase,
            &unchanged(&clients, revision),
        )
        .await?;
        trial
            .notes
            .closed_loop("unchanged since, 64 in flight", &done, 1);
    }
    Ok(())
}

fn whole(clients: &Arc<dyn Clients>) -> Request {
    let clients = clients.clone();
    Arc::new(move |worker, _number| {
        let clients = clients.clone();
        Box::pin(async move { clients.lookup().answer(worker, SERVICE).await })
    })
}

fn unchanged(clients: &Arc<dyn Clients>, revision: u64) -> Request {
    let clients = clients.clone();
    Arc::new(move |worker, _number| {
        let clients = clients.clone();
        Box::pin(async move {
            match clients.lookup().unchanged(worker, SERVICE, revision) {
                Some(asked) => asked.await,
                None => Ok(()),
            }
        })
    })
}

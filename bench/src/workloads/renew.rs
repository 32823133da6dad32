//! Renewing leases: as fast as it goes, and what it costs at a steady pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::register::{CONNECTIONS, TTL, filled, register_all};
use super::{Trial, Workload, replicas_named};
use crate::backends::{Backend, Clients, Cluster, Lease, Lines, Outcome, Renewals, addresses, cpu};
use crate::failure::Failure;
use crate::figures::Better;
use crate::scale::Scale;

/// Renewal streams: processes that renew.
const STREAMS: usize = 40;
/// Leases in one message, where a message can hold many: the renewals of a machine's agent, or of one process.
const PER_MESSAGE: [usize; 2] = [100, 1];
/// The steady pace: what 75,000 instances with the default TTL send.
const STEADY_PER_SECOND: usize = 5_000;
/// Renewals of the steady pace are sent this often, by turns of the streams.
const STEADY_TICK: Duration = Duration::from_millis(20);

/// The workload.
#[derive(Debug)]
pub(super) struct Renewing {
    pub(super) replicas: usize,
}

impl Workload for Renewing {
    fn name(&self) -> &'static str {
        match self.replicas {
            1 => "renew",
            _ => "renew-3",
        }
    }

    fn about(&self) -> &'static str {
        "leases are renewed as fast as it goes, and at 5,000 a second"
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        backend.renews() && backend.runs_as(self.replicas)
    }

    fn takes(&self, scale: &Scale) -> Duration {
        Duration::from_secs(self.replicas as u64) + filled(scale.leases) + scale.phase * 4
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(self.replicas, trial.directory).await?;
            let servers = addresses(&*cluster);
            let lines = Lines::to(&servers, CONNECTIONS);
            let clients = cluster.clients(&lines).await?;
            let clients: Arc<dyn Clients> = clients.into();
            let leases = register_all(&clients, "renew", trial.scale.leases, TTL).await?;
            measure(self.replicas, &*cluster, &*clients, &leases, trial).await
        })
    }
}

async fn measure(
    replicas: usize,
    cluster: &dyn Cluster,
    clients: &dyn Clients,
    leases: &[Lease],
    mut trial: Trial<'_>,
) -> Result<(), Failure> {
    let phase = trial.scale.phase;
    for per_message in PER_MESSAGE {
        let mut streams = open(clients, leases, STREAMS, per_message).await?;
        let case = format!("{}, {per_message} per message", replicas_named(replicas));
        let (renewed, took, used) = saturate(cluster, streams, leases.len(), phase).await?;
        let rate = renewed as f64 / took.as_secs_f64();
        trial.notes.add(&case, "rate", "/s", Better::Higher, rate);
        let each = used.as_secs_f64() * 1e6 / renewed.max(1) as f64;
        trial
            .notes
            .add(&case, "server CPU each", "us", Better::Lower, each);

        // Each stream renews all of its leases at a time, so that there are as many as make the pace.
        let at_a_time = STEADY_PER_SECOND * millis(STEADY_TICK) / 1_000;
        let count = (leases.len() / at_a_time.max(1)).max(1);
        streams = open(clients, leases, count, per_message).await?;
        let share = steady(cluster, streams, phase).await?;
        let what = "server CPU at 5,000/s";
        trial
            .notes
            .add(&case, what, "% of a core", Better::Lower, share * 100.0);
    }
    Ok(())
}

fn millis(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(usize::MAX)
}

/// Streams that each renew their part of the leases.
async fn open(
    clients: &dyn Clients,
    leases: &[Lease],
    streams: usize,
    per_message: usize,
) -> Result<Vec<Box<dyn Renewals>>, Failure> {
    let Some(renew) = clients.renew() else {
        return Ok(Vec::new());
    };
    let parts = leases.chunks(leases.len().div_ceil(streams.max(1)).max(1));
    let opened = parts
        .enumerate()
        .map(|(at, part)| renew.open(at, part, per_message));
    try_join_all(opened).await
}

/// Renews on all streams without pause. Says how many leases were renewed, in what time, and with how much processor
/// time of the servers.
async fn saturate(
    cluster: &dyn Cluster,
    streams: Vec<Box<dyn Renewals>>,
    leases: usize,
    time: Duration,
) -> Result<(u64, Duration, Duration), Failure> {
    let per_stream = leases.div_ceil(streams.len().max(1)) as u64;
    let used_before = cpu(cluster);
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for mut stream in streams {
        workers.spawn(async move {
            let mut rounds = 0;
            while begun.elapsed() < time {
                stream.all().await?;
                rounds += 1;
            }
            Ok::<u64, Failure>(rounds)
        });
    }
    let mut rounds = 0;
    while let Some(ended) = workers.join_next().await {
        rounds += ended.map_err(|error| Failure::Wrong(format!("a worker: {error}")))??;
    }
    let used = cpu(cluster).saturating_sub(used_before);
    Ok((rounds * per_stream, begun.elapsed(), used))
}

/// Renews on one stream after another, at the steady pace. Says how much of a core the servers used.
async fn steady(
    cluster: &dyn Cluster,
    mut streams: Vec<Box<dyn Renewals>>,
    time: Duration,
) -> Result<f64, Failure> {
    let mut ticks = interval(STEADY_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let used_before = cpu(cluster);
    let begun = Instant::now();
    let mut turn = 0;
    while begun.elapsed() < time {
        ticks.tick().await;
        let at = turn % streams.len().max(1);
        if let Some(stream) = streams.get_mut(at) {
            stream.all().await?;
        }
        turn += 1;
    }
    let used = cpu(cluster).saturating_sub(used_before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64())
}

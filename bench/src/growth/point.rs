//! One point: a registry of that size, and what things cost in it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::axis::{INSTANCES, Pace, Size};
use super::cost::Cost;
use super::entry::Entrance;
use crate::backends::{Clients, Cluster, Lines, Outcome, Watcher, addresses, cpu};
use crate::failure::Failure;
use crate::sample::Sample;

const MEASURED: &str = "measured";
const ELSEWHERE: &str = "elsewhere";
/// Of one service of those beside it.
const BESIDE: &str = "beside";
/// Connections that watchers share.
const WATCHER_CONNECTIONS: usize = 50;
/// Watchers that are opened, and instances that are registered, at a time.
const AT_ONCE: usize = 200;
/// Fewer repetitions say nothing, more say nothing new.
const TIMES: std::ops::RangeInclusive<u32> = 3..=300;
const MIB: f64 = (1 << 20) as f64;

/// How long is spent on each figure.
fn time_for(pace: Pace) -> Duration {
    match pace {
        Pace::Whole => Duration::from_millis(1_500),
        Pace::Quick => Duration::from_millis(150),
    }
}

/// Grows the registry to that size and measures.
pub(super) async fn measure(
    cluster: &dyn Cluster,
    size: &Size,
    pace: Pace,
) -> Result<Cost, Failure> {
    let servers = leader_first(cluster).await?;
    let leader = servers.get(..1).unwrap_or_default();
    let clients = cluster.clients(&Lines::to(leader, 1)).await?;
    let entrance = Entrance::to(&servers).await?;
    fill(&entrance, size).await?;
    let lines = Lines::to(&servers, size.watchers.min(WATCHER_CONNECTIONS));
    let callers = cluster.clients(&lines).await?;
    let _watching = watch(&*callers, size.watchers).await?;

    sleep(time_for(pace)).await;
    let meter = Meter::at_rest(cluster, pace).await;
    let elsewhere = meter.of(|_| {
        Box::pin(async {
            let instance = Sample::of(ELSEWHERE, 0);
            entrance.enter(&instance, 0).await.map(drop)
        })
    });
    let elsewhere = elsewhere.await?;
    let followed = &*clients;
    let registration = meter.of(|_| {
        Box::pin(async {
            // One that is there already: the service does not grow by being measured.
            let revision = entrance.enter(&Sample::of(MEASURED, 0), 0).await?;
            confirmed(followed, revision).await
        })
    });
    let registration = registration.await?;
    let shift = meter.of(|number| {
        Box::pin(async move {
            let revision = followed.fanout().change(MEASURED, number).await?;
            confirmed(followed, revision).await
        })
    });
    let shift = shift.await?;
    let lookup = meter.of(|_| followed.lookup().answer(0, MEASURED)).await?;
    let servers = cluster.servers().iter();
    let allocated: u64 = servers.map(|it| it.process.memory().anonymous).sum();
    Ok(Cost {
        rest: meter.rest * 1e3,
        elsewhere: elsewhere.cpu_micros,
        registration: registration.cpu_micros,
        shift: shift.cpu_micros,
        receipts: shift.millis,
        lookup: lookup.cpu_micros,
        memory: allocated as f64 / MIB,
    })
}

/// Where the servers are: the one that leads is asked, the others are watched through as well.
async fn leader_first(cluster: &dyn Cluster) -> Result<Vec<SocketAddr>, Failure> {
    let leader = cluster.leader().await?;
    let leader = leader.ok_or_else(|| Failure::Wrong("no replica leads".to_owned()))?;
    let mut servers = addresses(cluster);
    if leader < servers.len() {
        servers.rotate_left(leader);
    }
    Ok(servers)
}

/// Registers the service that is measured, one that nobody follows, and those beside them.
async fn fill(entrance: &Entrance, size: &Size) -> Result<(), Failure> {
    let measured = (0..size.instances).map(|at| (Sample::of(MEASURED, at), at % size.groups));
    let elsewhere = (0..INSTANCES).map(|at| (Sample::of(ELSEWHERE, at), 0));
    let beside = (0..size.services * INSTANCES).map(|at| {
        let service = format!("{BESIDE}-{:05}", at / INSTANCES);
        (Sample::of(&service, at), 0)
    });
    let all = measured.chain(elsewhere).chain(beside);
    let entering = stream::iter(all)
        .map(|(instance, group)| async move { entrance.enter(&instance, group).await.map(drop) });
    entering.buffer_unordered(AT_ONCE).try_collect().await
}

/// Callers that follow the service until they are dropped.
async fn watch(
    clients: &dyn Clients,
    count: usize,
) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let opening = stream::iter(0..count).map(|at| {
        let name = format!("watcher-{at}");
        clients.fanout().watch(at, name, MEASURED)
    });
    let watchers: Vec<Box<dyn Watcher>> = opening.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut watching = JoinSet::new();
    for mut watcher in watchers {
        watching.spawn(async move {
            loop {
                watcher.next().await?;
            }
        });
    }
    Ok(watching)
}

/// Returns when the registry knows that all watchers go by this revision.
async fn confirmed(clients: &dyn Clients, revision: u64) -> Result<(), Failure> {
    match clients.fanout().receipts(MEASURED, revision) {
        Some(receipts) => receipts.await,
        None => Err(Failure::Wrong("nobody tells of receipts".to_owned())),
    }
}

/// What something takes.
struct Taken {
    /// Processor time of all servers.
    cpu_micros: f64,
    millis: f64,
}

/// Measures what servers use beyond what they use at rest.
struct Meter<'a> {
    cluster: &'a dyn Cluster,
    /// Seconds of processor time in each second.
    rest: f64,
    time: Duration,
}

impl<'a> Meter<'a> {
    async fn at_rest(cluster: &'a dyn Cluster, pace: Pace) -> Self {
        let time = time_for(pace);
        let (before, begun) = (cpu(cluster), Instant::now());
        // It is little, and taken from all others.
        sleep(time * 2).await;
        let used = cpu(cluster).saturating_sub(before);
        Self {
            cluster,
            rest: used.as_secs_f64() / begun.elapsed().as_secs_f64(),
            time,
        }
    }

    /// Does it again and again, once before it counts.
    async fn of<'b>(&self, doing: impl Fn(u64) -> Outcome<'b, ()>) -> Result<Taken, Failure> {
        doing(0).await?;
        let (before, begun) = (cpu(self.cluster), Instant::now());
        let mut times = 0;
        while times < *TIMES.start() || times < *TIMES.end() && begun.elapsed() < self.time {
            times += 1;
            doing(u64::from(times)).await?;
        }
        let took = begun.elapsed().as_secs_f64();
        let used = cpu(self.cluster).saturating_sub(before).as_secs_f64();
        let beyond = (used - self.rest * took).max(0.0);
        Ok(Taken {
            cpu_micros: beyond / f64::from(times) * 1e6,
            millis: took / f64::from(times) * 1e3,
        })
    }
}

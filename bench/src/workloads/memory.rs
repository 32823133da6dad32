//! What a registered instance costs in memory, and how long a server that was killed takes to know them all again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::register::{CONNECTIONS, TTL, filled, register_all};
use super::{Trial, Workload};
use crate::backends::{Backend, Cluster, Lines, Outcome, addresses, cpu};
use crate::failure::Failure;
use crate::figures::Better;
use crate::process::Memory;
use crate::sample::{PER_SERVICE, service_name};
use crate::scale::Scale;

/// Memory is looked at when it has been about the same for so long, or after a while in any case.
const SETTLED: Duration = Duration::from_millis(500);
const SETTLING_TIME_MAX: Duration = Duration::from_secs(5);
/// Nothing is asked for so long.
const REST: Duration = Duration::from_secs(2);
/// Who does not know them by then has lost them.
const RESTART_TIME_MAX: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Of so many bytes, a change does not matter.
const ABOUT: u64 = 1 << 20;
const PREFIX: &str = "memory";

/// The workload.
#[derive(Debug)]
pub(super) struct Remembering;

impl Workload for Remembering {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn about(&self) -> &'static str {
        "memory per instance with its lease; what a server does at rest; kill -9 and start: first correct answer"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        1
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        !backend.keeps_nothing()
    }

    fn takes(&self, scale: &Scale) -> Duration {
        SETTLING_TIME_MAX + REST + filled(scale.instances)
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let mut cluster = backend.start(1, trial.directory).await?;
            let count = trial.scale.instances;
            let case = format!("{count} instances");
            let before = settled(&*cluster).await;
            let servers = addresses(&*cluster);
            let clients = cluster.clients(&Lines::to(&servers, CONNECTIONS)).await?;
            let clients: Arc<dyn crate::backends::Clients> = clients.into();
            register_all(&clients, PREFIX, count, TTL).await?;
            let after = settled(&*cluster).await;
            let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / count as f64;
            let notes = &mut trial.notes;
            let resident = each(after.resident, before.resident);
            notes.add(&case, "memory each", "B", Better::Lower, resident);
            let anonymous = each(after.anonymous, before.anonymous);
            notes.add(&case, "allocated each", "B", Better::Lower, anonymous);
            drop(clients);
            let at_rest = at_rest(&*cluster).await;
            let what = "server CPU at rest";
            notes.add(&case, what, "% of a core", Better::Lower, at_rest * 100.0);

            if backend.forgets() {
                return Ok(());
            }
            if let Some(server) = cluster.servers_mut().first_mut() {
                server.process.kill();
            }
            let begun = Instant::now();
            cluster.restart(0)?;
            let last = service_name(PREFIX, count / PER_SERVICE - 1);
            known(&*cluster, &servers, &last, begun).await?;
            let took = begun.elapsed().as_secs_f64();
            let what = "first correct answer after a restart";
            notes.add(&case, what, "s", Better::Lower, took);
            Ok(())
        })
    }
}

/// What part of a core is used while nobody asks for anything.
async fn at_rest(cluster: &dyn Cluster) -> f64 {
    let (before, begun) = (cpu(cluster), Instant::now());
    sleep(REST).await;
    let used = cpu(cluster).saturating_sub(before);
    used.as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// What the server holds when that no longer changes.
async fn settled(cluster: &dyn Cluster) -> Memory {
    let begun = Instant::now();
    let look = || {
        let first = cluster.servers().first();
        first
            .map(|server| server.process.memory())
            .unwrap_or_default()
    };
    let mut before = look();
    loop {
        sleep(SETTLED).await;
        let now = look();
        let settled = now.resident.abs_diff(before.resident) < ABOUT;
        if settled || begun.elapsed() > SETTLING_TIME_MAX {
            return now;
        }
        before = now;
    }
}

/// Waits until a lookup finds all of the service's instances.
async fn known(
    cluster: &dyn Cluster,
    servers: &[SocketAddr],
    service: &str,
    begun: Instant,
) -> Result<(), Failure> {
    while begun.elapsed() < RESTART_TIME_MAX {
        if let Ok(clients) = cluster.clients(&Lines::to(servers, 1)).await
            && let Ok((found, _)) = clients.lookup().instances(0, service).await
            && found == PER_SERVICE
        {
            return Ok(());
        }
        sleep(ASK_EVERY).await;
    }
    Err(Failure::Wrong(format!(
        "the instances of {service} were not there {RESTART_TIME_MAX:?} after a restart"
    )))
}

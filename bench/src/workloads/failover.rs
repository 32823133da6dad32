//! The leader of three is killed: how long until writes succeed again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::register::TTL;
use super::{Trial, Workload};
use crate::backends::{Backend, Clients, Cluster, Lines, Outcome};
use crate::failure::Failure;
use crate::figures::Better;
use crate::sample::{Sample, service_name};
use crate::scale::Scale;

const REPLICAS: usize = 3;
/// A write is tried this often, by turns at the survivors, whatever became of those before.
const TRY_EVERY: Duration = Duration::from_millis(10);
/// A write that is not answered within this has failed.
const WRITE_TIME_MAX: Duration = Duration::from_secs(3);
/// Writes are tried before the kill, so that connections are warm.
const BEFORE: Duration = Duration::from_millis(200);
/// It is over when no write failed for so long.
const CALM: Duration = Duration::from_secs(1);
/// Nobody needs longer; who does has failed.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(40);
/// Writes go to so many services in turn: some registries divide them among their servers.
const SERVICES: usize = 64;
/// How long the killed one may take to take writes again.
const RETURN_TIME_MAX: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The workload.
#[derive(Debug)]
pub(super) struct FailingOver;

/// One write that was tried.
struct Try {
    begun: Instant,
    ended: Instant,
    succeeded: bool,
}

impl Workload for FailingOver {
    fn name(&self) -> &'static str {
        "failover"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        1
    }

    fn about(&self) -> &'static str {
        "the leader of 3 replicas is killed, while a write is tried every 10 ms"
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        backend.runs_as(REPLICAS)
    }

    fn takes(&self, scale: &Scale) -> Duration {
        Duration::from_secs(REPLICAS as u64) + CALM * 3 * u32::try_from(scale.kills).unwrap_or(1)
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let mut cluster = backend.start(REPLICAS, trial.directory).await?;
            for kill in 0..trial.scale.kills {
                let prefix = format!("failover{kill}");
                // Who has no leader loses any one.
                let victim = cluster.leader().await?.unwrap_or(0);
                let tries = kill_one(&mut *cluster, victim, &prefix).await?;
                note(&tries, &mut trial)?;
                cluster.restart(victim)?;
                returned(&*cluster, victim).await?;
            }
            Ok(())
        })
    }
}

async fn kill_one(
    cluster: &mut dyn Cluster,
    victim: usize,
    prefix: &str,
) -> Result<(Kill, Vec<Try>), Failure> {
    let others = cluster.servers().iter().enumerate();
    let survivors: Vec<SocketAddr> = others
        .filter(|(index, _)| *index != victim)
        .map(|(_, server)| server.address)
        .collect();
    let lines = Lines::to(&survivors, survivors.len());
    let clients: Arc<dyn Clients> = cluster.clients(&lines).await?.into();
    let mut writes = Writes {
        clients,
        prefix: prefix.to_owned(),
        tried: 0,
        under_way: JoinSet::new(),
        ended: Vec::new(),
    };
    let warm = Instant::now();
    writes.go_on(|_| warm.elapsed() >= BEFORE).await?;
    let begun = Instant::now();
    if let Some(server) = cluster.servers_mut().get_mut(victim) {
        server.process.kill();
    }
    let kill = Kill {
        begun,
        gone: Instant::now(),
    };
    let over = |ended: &[Try]| {
        begun.elapsed() > RECOVERY_TIME_MAX
            || recovered(kill, ended).is_some_and(|at| at.elapsed() >= CALM)
    };
    writes.go_on(over).await?;
    Ok((kill, writes.ended))
}

/// The end of a server: it takes the system some time to clear a process away,
/// and others know of it, and succeed it, before that is over.
#[derive(Clone, Copy)]
struct Kill {
    begun: Instant,
    /// It has answered nothing since.
    gone: Instant,
}

/// Writes that are tried at a steady pace.
struct Writes {
    clients: Arc<dyn Clients>,
    prefix: String,
    tried: usize,
    under_way: JoinSet<Try>,
    ended: Vec<Try>,
}

impl Writes {
    async fn go_on(&mut self, over: impl Fn(&[Try]) -> bool) -> Result<(), Failure> {
        let mut ticks = interval(TRY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !over(&self.ended) {
            tokio::select! {
                _ = ticks.tick() => self.begin(),
                Some(ended) = self.under_way.join_next() => {
                    let ended = ended.map_err(|error| Failure::Wrong(format!("a writer: {error}")));
                    self.ended.push(ended?);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        let (clients, number) = (self.clients.clone(), self.tried);
        self.tried += 1;
        let service = service_name(&self.prefix, number % SERVICES);
        let instance = Sample::of(&service, number);
        self.under_way.spawn(async move {
            let begun = Instant::now();
            let write = clients.register().one(number, &instance, TTL);
            let ended = timeout(WRITE_TIME_MAX, write).await;
            Try {
                begun,
                ended: Instant::now(),
                succeeded: matches!(ended, Ok(Ok(_))),
            }
        });
    }
}

/// When the first write succeeded, without the one that is gone, that was not begun before the last one that failed.
fn recovered(kill: Kill, tries: &[Try]) -> Option<Instant> {
    let failed = tries.iter().filter(|one| kill.failed(one));
    let last_failed = failed.map(|one| one.begun).max();
    let succeeded = tries.iter().filter(|one| {
        let is_after = last_failed.is_none_or(|failed| one.begun >= failed);
        one.succeeded && one.ended >= kill.gone && is_after
    });
    succeeded.map(|one| one.ended).min()
}

impl Kill {
    /// Whether the write failed for it.
    fn failed(self, one: &Try) -> bool {
        !one.succeeded && one.ended >= self.begun
    }
}

fn note((kill, tries): &(Kill, Vec<Try>), trial: &mut Trial<'_>) -> Result<(), Failure> {
    let recovered = recovered(*kill, tries)
        .ok_or_else(|| Failure::Late("writing after a kill".to_owned(), RECOVERY_TIME_MAX))?;
    let case = "leader of 3 killed";
    let gap = (recovered - kill.begun).as_secs_f64();
    trial
        .notes
        .add(case, "writes succeed after", "s", Better::Lower, gap);
    let failed = tries.iter().filter(|one| kill.failed(one));
    let failed = failed.count() as f64;
    trial.notes.add(
        case,
        "writes that failed",
        "of 100/s",
        Better::Lower,
        failed,
    );
    Ok(())
}

/// Waits until the server takes writes again.
async fn returned(cluster: &dyn Cluster, index: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    let address: Vec<SocketAddr> = cluster
        .servers()
        .get(index)
        .map(|server| server.address)
        .into_iter()
        .collect();
    let instance = Sample::new("returned", index);
    while begun.elapsed() < RETURN_TIME_MAX {
        if let Ok(clients) = cluster.clients(&Lines::to(&address, 1)).await
            && clients.register().one(0, &instance, TTL).await.is_ok()
        {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(Failure::Late("a return".to_owned(), RETURN_TIME_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_succeed_again_after_the_last_that_failed() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let killed = Kill {
            begun,
            gone: at(15),
        };
        let tried = |begun, ended, succeeded| Try {
            begun: at(begun),
            ended: at(ended),
            succeeded,
        };
        assert_eq!(recovered(killed, &[]), None);
        // One that waited is the first to succeed.
        let waited = [tried(10, 500, true), tried(20, 510, true)];
        assert_eq!(recovered(killed, &waited), Some(at(500)));
        // What was answered before it was gone may be its own answer.
        assert_eq!(recovered(killed, &[tried(0, 14, true)]), None);
        // Where others fail later still, it does not count.
        let mixed = [
            tried(10, 20, true),
            tried(30, 40, false),
            tried(50, 60, true),
        ];
        assert_eq!(recovered(killed, &mixed), Some(at(60)));
        let failed = [tried(10, 20, true), tried(30, 40, false)];
        assert_eq!(recovered(killed, &failed), None);
    }
}

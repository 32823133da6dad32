//! Twice the load that a server can take: what it admits and how fast, what it sheds, and whether the living stay.

mod others;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use self::others::{Felt, Others};
use super::register::{CONNECTIONS, TTL, register_all};
use super::{Notes, Trial, Workload};
use crate::backends::{Backend, Clients, Cluster, Lease, Lines, Outcome, addresses};
use crate::cores;
use crate::failure::Failure;
use crate::figures::Better;
use crate::load::{Request, closed_loop};
use crate::offer::{Arrival, OpenLoop, Phase};
use crate::sample::{PER_SERVICE, Sample, service_name};
use crate::scale::Scale;

/// A machine registers all of its instances in one call: more work for the server than for the generator, which has
/// to bring twice what the server takes.
const PER_MACHINE: usize = 10;
/// They come again and again, so that what is held does not grow meanwhile.
const MACHINES: usize = 2_000;
/// Calls in flight while it is measured what a server takes.
const SATURATING: usize = 64;
/// Leases that are renewed all the while.
const LEASES: usize = 2_000;
/// Their TTL: as short as it may be in earnest, and shorter than the overload.
const LEASE_TTL: Duration = Duration::from_secs(5);
/// Who holds them has connections of its own.
const KEEPERS_CONNECTIONS: usize = 4;
const KEPT: &str = "kept";
/// It is over when the p99 is at most so many times what it was at half load.
const NORMAL: f64 = 2.0;
/// For so many tenths of a second.
const CALM_SLICES: usize = 3;
/// Who needs longer is written down with this.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(12);
/// A lease that was not renewed in time is gone so long after.
const JUDGEMENT_TIME: Duration = Duration::from_secs(2);

/// The workload.
#[derive(Debug)]
pub(super) struct Overloading;

impl Workload for Overloading {
    fn name(&self) -> &'static str {
        "overload"
    }

    fn about(&self) -> &'static str {
        "twice the registrations that a server on one core takes, while leases are renewed and callers look up"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        1
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        !backend.keeps_nothing()
    }

    fn takes(&self, scale: &Scale) -> Duration {
        RECOVERY_TIME_MAX / 2 + scale.phase * 3 + scale.overload
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(1, trial.directory).await?;
            let _apart = cores::apart(&*cluster)?;
            let servers = addresses(&*cluster);
            let lines = Lines::to(&servers, KEEPERS_CONNECTIONS);
            let keepers: Arc<dyn Clients> = cluster.clients(&lines).await?.into();
            let leases = register_all(&keepers, KEPT, LEASES, LEASE_TTL).await?;
            let lines = Lines::to(&servers, CONNECTIONS);
            let clients: Arc<dyn Clients> = cluster.clients(&lines).await?.into();
            measure(&*cluster, &clients, &keepers, leases, &mut trial).await
        })
    }
}

async fn measure(
    cluster: &dyn Cluster,
    clients: &Arc<dyn Clients>,
    keepers: &Arc<dyn Clients>,
    leases: Vec<Lease>,
    trial: &mut Trial<'_>,
) -> Result<(), Failure> {
    let scale = trial.scale;
    let others = Others::begin(keepers, &leases, LEASE_TTL, &service_name(KEPT, 0)).await?;
    let arrival = arriving(clients);
    let one_after_another = arrival.clone();
    let calls: Request = Arc::new(move |_worker, number| one_after_another(number));
    let all: Vec<_> = (0..MACHINES as u64).map(|number| arrival(number)).collect();
    let mut first = stream::iter(all).buffer_unordered(SATURATING);
    while let Some(registered) = first.next().await {
        registered?;
    }
    let taken = closed_loop(cluster, SATURATING, scale.phase, &calls).await?;
    let takes = taken.rate();

    let mut open = OpenLoop::new(arrival);
    let never = |_: &Phase| false;
    others.felt()?;
    let half = open.offer(takes / 2.0, scale.phase * 2, never).await;
    open.drain().await;
    let calm = others.felt()?;
    let double = open.offer(takes * 2.0, scale.overload, never).await;
    let meanwhile = others.felt()?;
    let limit = half.tally().latency(0.99) * NORMAL;
    let is_calm = |phase: &Phase| phase.calm_after(limit, CALM_SLICES).is_some();
    let after = open.offer(takes / 2.0, RECOVERY_TIME_MAX, is_calm).await;
    let recovered = after.calm_after(limit, CALM_SLICES);
    drop(open);
    tokio::time::sleep(JUDGEMENT_TIME).await;
    let found = kept(keepers).await?;
    drop(others);

    let seen = Seen {
        takes,
        half,
        double,
        time: scale.overload,
        recovered: recovered.unwrap_or(RECOVERY_TIME_MAX),
        lost: LEASES.saturating_sub(found),
    };
    seen.note(&mut trial.notes);
    note_others(&calm, &meanwhile, &mut trial.notes);
    Ok(())
}

/// A fleet that comes, and comes again: machines register all of their instances anew.
fn arriving(clients: &Arc<dyn Clients>) -> Arrival {
    let clients = clients.clone();
    Arc::new(move |number| {
        let machine = usize::try_from(number % MACHINES as u64).unwrap_or(0);
        let first = machine * PER_MACHINE;
        let instances: Vec<Sample> = (first..first + PER_MACHINE)
            .map(|number| Sample::new("arriving", number))
            .collect();
        let clients = clients.clone();
        Box::pin(async move {
            if let Some(call) = clients.register().many(machine, &instances, TTL) {
                return call.await;
            }
            for instance in &instances {
                clients.register().one(machine, instance, TTL).await?;
            }
            Ok(())
        })
    })
}

/// How many of those whose leases were renewed are still there.
async fn kept(clients: &Arc<dyn Clients>) -> Result<usize, Failure> {
    let mut found = 0;
    for service in 0..LEASES / PER_SERVICE {
        let service = service_name(KEPT, service);
        found += clients.lookup().instances(0, &service).await?.0;
    }
    Ok(found)
}

/// What came of it.
struct Seen {
    takes: f64,
    half: Phase,
    double: Phase,
    time: Duration,
    recovered: Duration,
    lost: usize,
}

const CASE: &str = "twice what it takes";

impl Seen {
    fn note(&self, notes: &mut Notes<'_>) {
        let (half, double) = (self.half.tally(), self.double.tally());
        let a_second = |count: u64| count as f64 / self.time.as_secs_f64();
        let part = |count: u64, of: u64| count as f64 * 100.0 / of.max(1) as f64;
        let rates = [
            ("takes", self.takes, Better::Higher),
            (
                "offered",
                a_second(double.due - double.unsent),
                Better::Higher,
            ),
            (
                "admitted",
                a_second(double.answered_in_time),
                Better::Higher,
            ),
            ("shed", a_second(double.shed), Better::Lower),
            ("failed otherwise", a_second(double.failed), Better::Lower),
        ];
        for (what, value, better) in rates {
            notes.add(CASE, what, "/s", better, value);
        }
        if double.shed > 0 {
            let hinted = part(double.hinted, double.shed);
            notes.add(CASE, "shed with a hint", "%", Better::Higher, hinted);
        }
        let times = [
            ("latency p50 at half load", half.latency(0.5)),
            ("latency p99 at half load", half.latency(0.99)),
            ("latency p50 of admitted", double.latency(0.5)),
            ("latency p99 of admitted", double.latency(0.99)),
        ];
        for (what, value) in times {
            notes.add(CASE, what, "ms", Better::Lower, value);
        }
        let recovered = self.recovered.as_secs_f64();
        notes.add(
            CASE,
            "p99 normal again after",
            "s",
            Better::Lower,
            recovered,
        );
        let what = "living instances lost";
        notes.add(CASE, what, "of 2,000", Better::Lower, self.lost as f64);
    }
}

fn note_others(calm: &Felt, meanwhile: &Felt, notes: &mut Notes<'_>) {
    let times = [
        ("lookup p99 at half load", calm.lookup_p99()),
        ("lookup p99 meanwhile", meanwhile.lookup_p99()),
        ("renewal p99 at half load", calm.renewal_p99()),
        ("renewal p99 meanwhile", meanwhile.renewal_p99()),
    ];
    for (what, value) in times {
        if let Some(value) = value {
            notes.add(CASE, what, "ms", Better::Lower, value);
        }
    }
}

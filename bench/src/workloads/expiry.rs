//! Many leases lapse at once: how long until all are gone, and whether others notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{sleep, sleep_until};

use super::register::{CONNECTIONS, FILLING_IN_FLIGHT, TTL, filled};
use super::{Trial, Workload};
use crate::backends::{Backend, Clients, Lease, Lines, Outcome, Renewals, addresses};
use crate::failure::Failure;
use crate::figures::Better;
use crate::load::{latencies, millis, nanos};
use crate::sample::{PER_SERVICE, Sample, service_name};
use crate::scale::Scale;

/// Of the instances of each service, so many lapse: less than half, which is where Trimtab's brake begins.
const LAPSING_PER_SERVICE: usize = 40;
/// How long after their time they may take to go.
const GOING_TIME_MAX: Duration = Duration::from_secs(40);
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Others are watched for so long before.
const BEFORE: Duration = Duration::from_secs(1);
/// Streams that the lapsing renew on, for the last time.
const STREAMS: usize = 40;
/// The service of those who look up and register meanwhile.
const OTHERS: &str = "others";

/// The workload.
#[derive(Debug)]
pub(super) struct Expiring;

impl Workload for Expiring {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn about(&self) -> &'static str {
        "40 of the 100 instances of each service stop renewing at once, while others look up and register"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        1
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        !backend.keeps_nothing()
    }

    fn takes(&self, scale: &Scale) -> Duration {
        scale.lapse_after * 2 + filled(scale.lapsing)
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(1, trial.directory).await?;
            let servers = addresses(&*cluster);
            let lines = Lines::to(&servers, CONNECTIONS);
            let stayers: Arc<dyn Clients> = cluster.clients(&lines).await?.into();
            let lapsing: Arc<dyn Clients> = cluster.clients(&lines).await?.into();
            let ttl = trial.scale.lapse_after;
            let services = trial.scale.lapsing / LAPSING_PER_SERVICE;
            let staying = fill(&stayers, services, LAPSING_PER_SERVICE..PER_SERVICE, TTL).await?;
            let leases = fill(&lapsing, services, 0..LAPSING_PER_SERVICE, ttl).await?;
            let (_, _stay) = renew_once(stayers.clone(), &staying, TTL).await?;
            let (due, _silent) = renew_once(lapsing, &leases, ttl).await?;
            measure(&stayers, services, due, &mut trial).await
        })
    }
}

/// Registers instances with these numbers in each service.
async fn fill(
    clients: &Arc<dyn Clients>,
    services: usize,
    numbers: std::ops::Range<usize>,
    ttl: Duration,
) -> Result<Vec<Lease>, Failure> {
    let instances = (0..services).flat_map(|service| {
        let service = service_name("expiry", service);
        numbers
            .clone()
            .map(move |number| Sample::of(&service, number))
    });
    stream::iter(instances.enumerate())
        .map(|(at, instance)| async move { clients.register().one(at, &instance, ttl).await })
        .buffer_unordered(FILLING_IN_FLIGHT)
        .try_collect()
        .await
}

/// Renews all of them for the last time, and says when they are due. The streams must stay open: a broken one says
/// more than silence does. Where the connection is what is alive, it ends here.
async fn renew_once(
    clients: Arc<dyn Clients>,
    leases: &[Lease],
    ttl: Duration,
) -> Result<(Instant, Option<Held>), Failure> {
    let Some(renew) = clients.renew() else {
        drop(clients);
        return Ok((Instant::now(), None));
    };
    let parts = leases.chunks(leases.len().div_ceil(STREAMS).max(1));
    let opened = parts
        .enumerate()
        .map(|(at, part)| renew.open(at, part, 100));
    let mut streams: Vec<Box<dyn Renewals>> = try_join_all(opened).await?;
    try_join_all(streams.iter_mut().map(|stream| stream.all())).await?;
    let due = Instant::now() + ttl;
    let held = Held {
        _streams: streams,
        _clients: clients,
    };
    Ok((due, Some(held)))
}

/// What keeps silent but stays.
struct Held {
    _streams: Vec<Box<dyn Renewals>>,
    _clients: Arc<dyn Clients>,
}

async fn measure(
    clients: &Arc<dyn Clients>,
    services: usize,
    due: Instant,
    trial: &mut Trial<'_>,
) -> Result<(), Failure> {
    let before = Instant::now() + BEFORE;
    sleep_until(
        due.checked_sub(BEFORE)
            .unwrap_or(due)
            .max(Instant::now())
            .into(),
    )
    .await;
    let calm = Arc::new(AtomicBool::new(false));
    let quiet = tokio::spawn(others(clients.clone(), "calm", calm.clone()));
    sleep_until(due.max(before).into()).await;
    calm.store(true, Relaxed);
    let quiet = quiet
        .await
        .map_err(|error| Failure::Wrong(error.to_string()))??;

    let over = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn(others(clients.clone(), "busy", over.clone()));
    let gone = gone(clients, services, due).await;
    over.store(true, Relaxed);
    let busy = busy
        .await
        .map_err(|error| Failure::Wrong(error.to_string()))??;

    let case = format!("{} lapse", services * LAPSING_PER_SERVICE);
    let notes = &mut trial.notes;
    notes.add(
        &case,
        "all gone after",
        "s",
        Better::Lower,
        gone?.as_secs_f64(),
    );
    let p99 = |times: &hdrhistogram::Histogram<u64>| millis(times.value_at_quantile(0.99));
    for (what, value) in [
        ("others' lookup p99 before", p99(&quiet.lookups)),
        ("others' lookup p99 meanwhile", p99(&busy.lookups)),
        ("others' registration p99 before", p99(&quiet.registrations)),
        (
            "others' registration p99 meanwhile",
            p99(&busy.registrations),
        ),
    ] {
        notes.add(&case, what, "ms", Better::Lower, value);
    }
    Ok(())
}

/// How long after they were due the last of them was gone. 0 where they were gone before they were looked for.
async fn gone(
    clients: &Arc<dyn Clients>,
    services: usize,
    due: Instant,
) -> Result<Duration, Failure> {
    for service in 0..services {
        let service = service_name("expiry", service);
        loop {
            let (left, _) = clients.lookup().instances(0, &service).await?;
            if left <= PER_SERVICE - LAPSING_PER_SERVICE {
                break;
            }
            if due.elapsed() > GOING_TIME_MAX {
                let what = format!("going: {service} still has {left} instances");
                return Err(Failure::Late(what, GOING_TIME_MAX));
            }
            sleep(ASK_EVERY).await;
        }
    }
    Ok(due.elapsed())
}

/// What others feel.
struct Felt {
    lookups: hdrhistogram::Histogram<u64>,
    registrations: hdrhistogram::Histogram<u64>,
}

/// Looks up and registers again and again, one at a time.
async fn others(
    clients: Arc<dyn Clients>,
    prefix: &'static str,
    over: Arc<AtomicBool>,
) -> Result<Felt, Failure> {
    let mut felt = Felt {
        lookups: latencies()?,
        registrations: latencies()?,
    };
    let mut number = 0;
    while !over.load(Relaxed) {
        let service = format!("{OTHERS}-{prefix}-{}", number / PER_SERVICE);
        let instance = Sample::of(&service, number);
        let asked = Instant::now();
        clients.register().one(1, &instance, TTL).await?;
        felt.registrations.saturating_record(nanos(asked.elapsed()));
        let asked = Instant::now();
        clients.lookup().answer(2, &service).await?;
        felt.lookups.saturating_record(nanos(asked.elapsed()));
        number += 1;
        sleep(ASK_EVERY).await;
    }
    Ok(felt)
}

//! A closed loop: so many requests in flight, for so long, and what came of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::backends::{Cluster, cpu};
use crate::failure::Failure;

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;
/// Whoever waits longer is written down with this: two minutes, more than any request may take.
const LATENCY_MAX_NANOS: u64 = 120_000_000_000;

/// One request: the worker that makes it, and its number among all.
pub(crate) type Request =
    Arc<dyn Fn(usize, u64) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// What a loop came to.
#[derive(Debug)]
pub(crate) struct Done {
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// How long the loop ran.
    pub(crate) took: Duration,
    /// Nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// What the servers used meanwhile.
    pub(crate) server_cpu: Duration,
}

impl Done {
    /// Answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Processor time of the servers for each answer, in microseconds.
    pub(crate) fn cpu_micros_each(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / (self.answered.max(1)) as f64
    }
}

/// An empty histogram of nanoseconds.
pub(crate) fn latencies() -> Result<Histogram<u64>, Failure> {
    let wrong = |error| Failure::Wrong(format!("a histogram: {error}"));
    Histogram::new_with_max(LATENCY_MAX_NANOS, DIGITS).map_err(wrong)
}

/// Nanoseconds as milliseconds.
pub(crate) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// A time in nanoseconds, as histograms keep it.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the workers of a loop share.
struct Shared {
    numbers: AtomicU64,
    over: AtomicBool,
    begun: Instant,
    time: Duration,
}

/// Runs `in_flight` workers, each with one request at a time, for as long as `time`. Ends at the first failure: a
/// figure of a loop that fails would be of something else.
pub(crate) async fn closed_loop(
    cluster: &dyn Cluster,
    in_flight: usize,
    time: Duration,
    request: &Request,
) -> Result<Done, Failure> {
    let cpu_before = cpu(cluster);
    let begun = Instant::now();
    let shared = Arc::new(Shared {
        numbers: AtomicU64::new(0),
        over: AtomicBool::new(false),
        begun,
        time,
    });
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        workers.spawn(work(worker, shared.clone(), request.clone()));
    }
    let mut merged = latencies()?;
    while let Some(ended) = workers.join_next().await {
        let own = ended.map_err(|error| Failure::Wrong(format!("a worker: {error}")))?;
        // Of the same kind, so there is always room.
        let _fits = merged.add(own?);
    }
    Ok(Done {
        answered: merged.len(),
        took: begun.elapsed(),
        latencies: merged,
        server_cpu: cpu(cluster).saturating_sub(cpu_before),
    })
}

async fn work(
    worker: usize,
    shared: Arc<Shared>,
    request: Request,
) -> Result<Histogram<u64>, Failure> {
    let mut own = latencies()?;
    while !shared.over.load(Relaxed) {
        let asked = Instant::now();
        request(worker, shared.numbers.fetch_add(1, Relaxed)).await?;
        own.saturating_record(nanos(asked.elapsed()));
        if shared.begun.elapsed() >= shared.time {
            shared.over.store(true, Relaxed);
        }
    }
    Ok(own)
}

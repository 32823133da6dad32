//! Those who were there before: instances that renew, and a caller that looks up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, interval_at, timeout};

use crate::backends::{Clients, Lease, Renewals};
use crate::failure::Failure;
use crate::load::{latencies, millis, nanos};

/// Renewal streams: processes that renew.
const STREAMS: usize = 20;
/// Instances renew so often within their TTL.
const RENEWALS_PER_TTL: u32 = 3;
/// A caller looks up this often.
const LOOK_UP_EVERY: Duration = Duration::from_millis(10);

/// What they felt for a while.
#[derive(Debug)]
pub(super) struct Felt {
    lookups: Histogram<u64>,
    renewals: Histogram<u64>,
}

impl Felt {
    fn nothing() -> Result<Self, Failure> {
        Ok(Self {
            lookups: latencies()?,
            renewals: latencies()?,
        })
    }

    /// Milliseconds; `None` where nobody looked up.
    pub(super) fn lookup_p99(&self) -> Option<f64> {
        p99(&self.lookups)
    }

    /// Milliseconds; `None` where nobody renewed.
    pub(super) fn renewal_p99(&self) -> Option<f64> {
        p99(&self.renewals)
    }
}

fn p99(times: &Histogram<u64>) -> Option<f64> {
    (!times.is_empty()).then(|| millis(times.value_at_quantile(0.99)))
}

/// Under way until this is dropped.
pub(super) struct Others {
    felt: Arc<Mutex<Felt>>,
    _tasks: JoinSet<()>,
}

impl Others {
    /// Renews the leases, each stream at its own time within the TTL, and looks up the service.
    pub(super) async fn begin(
        clients: &Arc<dyn Clients>,
        leases: &[Lease],
        ttl: Duration,
        service: &str,
    ) -> Result<Self, Failure> {
        let felt = Arc::new(Mutex::new(Felt::nothing()?));
        let mut tasks = JoinSet::new();
        let every = ttl / RENEWALS_PER_TTL;
        let parts = leases.chunks(leases.len().div_ceil(STREAMS).max(1));
        for (at, part) in parts.enumerate() {
            let renewing = Renewing {
                clients: clients.clone(),
                leases: part.to_vec(),
                at,
                every,
                felt: felt.clone(),
            };
            let Some(stream) = renewing.open().await else {
                break;
            };
            tasks.spawn(renewing.go_on(stream));
        }
        tasks.spawn(look_up(clients.clone(), service.to_owned(), felt.clone()));
        Ok(Self {
            felt,
            _tasks: tasks,
        })
    }

    /// What was felt since this was asked before.
    pub(super) fn felt(&self) -> Result<Felt, Failure> {
        let mut felt = self.felt.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut felt, Felt::nothing()?))
    }
}

/// The renewals of one process.
struct Renewing {
    clients: Arc<dyn Clients>,
    leases: Vec<Lease>,
    at: usize,
    every: Duration,
    felt: Arc<Mutex<Felt>>,
}

impl Renewing {
    /// `None` where nothing is renewed, and where it cannot be now.
    async fn open(&self) -> Option<Box<dyn Renewals>> {
        let renew = self.clients.renew()?;
        let opened = renew.open(self.at, &self.leases, self.leases.len());
        opened.await.ok()
    }

    async fn go_on(self, stream: Box<dyn Renewals>) {
        let mut stream = Some(stream);
        let part = u32::try_from(self.at % STREAMS).unwrap_or(0);
        let turn = self.every * part / u32::try_from(STREAMS).unwrap_or(1);
        let mut ticks = interval_at((Instant::now() + turn).into(), self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            // A stream that broke is opened again, as clients do.
            if stream.is_none() {
                stream = self.open().await;
            }
            let renewed = match &mut stream {
                Some(open) => timeout(self.every, open.all())
                    .await
                    .is_ok_and(|it| it.is_ok()),
                None => false,
            };
            if !renewed {
                stream = None;
            }
            let mut felt = self.felt.lock().unwrap_or_else(PoisonError::into_inner);
            felt.renewals.saturating_record(nanos(asked.elapsed()));
        }
    }
}

async fn look_up(clients: Arc<dyn Clients>, service: String, felt: Arc<Mutex<Felt>>) {
    let mut ticks = interval(LOOK_UP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        // One that fails has taken as long as it took.
        let _answered = clients.lookup().answer(0, &service).await;
        let mut felt = felt.lock().unwrap_or_else(PoisonError::into_inner);
        felt.lookups.saturating_record(nanos(asked.elapsed()));
    }
}

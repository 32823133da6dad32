//! An open loop: requests arrive when they are due, whatever became of those before, and are timed from then.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::load::{millis, nanos};

/// What is due is sent this often.
const TICK: Duration = Duration::from_millis(1);
/// Results are kept by the time at which requests were due, in slices of this.
const SLICE: Duration = Duration::from_millis(100);
/// Requests without an answer, at most; what is due beyond is not sent, as a fleet has an end as well.
const IN_FLIGHT_MAX: usize = 20_000;
/// Who waits longer has failed.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// With this a server that sheds says when to come again.
const HINT: &str = "grpc-retry-pushback-ms";

/// One request, by its number among all.
pub(crate) type Arrival = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// What became of the requests that were due within some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) due: u64,
    /// Answered while the phase was still going on.
    pub(crate) answered_in_time: u64,
    /// Nanoseconds from when each was due to its answer, whenever that came.
    pub(crate) latencies: Vec<u64>,
    /// Refused because it was too much.
    pub(crate) shed: u64,
    /// Of these, told when to come again.
    pub(crate) hinted: u64,
    pub(crate) failed: u64,
    /// Not sent: too many were without an answer.
    pub(crate) unsent: u64,
}

impl Tally {
    /// Milliseconds; 0 where nothing was answered.
    pub(crate) fn latency(&self, quantile: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        // Counts are far below 2^52.
        let place = (quantile * sorted.len() as f64).ceil() as usize;
        millis(sorted.get(place.saturating_sub(1)).copied().unwrap_or(0))
    }

    /// Have all of them come to an end, and a good one?
    fn is_served(&self) -> bool {
        self.due > 0 && self.latencies.len() as u64 == self.due
    }

    fn note(&mut self, ended: &Result<(), Failure>, took: Duration) {
        match ended {
            Ok(()) => self.latencies.push(nanos(took)),
            Err(Failure::Call { status, .. }) if is_too_much(status) => {
                self.shed += 1;
                self.hinted += u64::from(status.metadata().contains_key(HINT));
            }
            Err(_) => self.failed += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.answered_in_time += other.answered_in_time;
        self.latencies.extend(&other.latencies);
        self.shed += other.shed;
        self.hinted += other.hinted;
        self.failed += other.failed;
        self.unsent += other.unsent;
    }
}

/// etcd says it in words, and under no code of its own.
fn is_too_much(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted || status.message().ends_with("too many requests")
}

/// Arrivals at one pace, and what became of them.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    begun: Instant,
    time: Duration,
    slices: Arc<Mutex<Vec<Tally>>>,
}

impl Phase {
    /// All of it, as far as it is answered.
    pub(crate) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.with(|slices| slices.iter().for_each(|slice| all.add(slice)));
        all
    }

    /// How long after its begin all were served, within `limit_millis` as to the p99, for as many slices as `calm`.
    pub(crate) fn calm_after(&self, limit_millis: f64, calm: usize) -> Option<Duration> {
        // The last one is not over yet.
        let over = (self.begun.elapsed().as_nanos() / SLICE.as_nanos()) as usize;
        let is_normal = |tally: &Tally| tally.is_served() && tally.latency(0.99) <= limit_millis;
        let normal: Vec<bool> =
            self.with(|slices| slices.iter().take(over).map(is_normal).collect());
        let first = normal
            .windows(calm)
            .position(|some| some.iter().all(|&normal| normal));
        first.map(|slice| SLICE * u32::try_from(slice).unwrap_or(u32::MAX))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Tally>) -> T) -> T {
        look(&mut self.slices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn of(&self, due: Instant, note: impl FnOnce(&mut Tally)) {
        let slice = (due - self.begun).as_nanos() / SLICE.as_nanos();
        let slice = usize::try_from(slice).unwrap_or(usize::MAX);
        self.with(|slices| {
            if slices.len() <= slice {
                slices.resize_with(slice + 1, Tally::default);
            }
            if let Some(tally) = slices.get_mut(slice) {
                note(tally);
            }
        });
    }
}

/// Requests under way, of one phase after another. Dropped, they are given up.
pub(crate) struct OpenLoop {
    request: Arrival,
    number: u64,
    in_flight: Arc<AtomicUsize>,
    under_way: JoinSet<()>,
}

impl OpenLoop {
    pub(crate) fn new(request: Arrival) -> Self {
        Self {
            request,
            number: 0,
            in_flight: Arc::default(),
            under_way: JoinSet::new(),
        }
    }

    /// Sends so many a second, at most for `time`, and until it `is_over`.
    pub(crate) async fn offer(
        &mut self,
        rate: f64,
        time: Duration,
        is_over: impl Fn(&Phase) -> bool,
    ) -> Phase {
        let begun = Instant::now();
        let slices = Arc::default();
        let phase = Phase {
            begun,
            time,
            slices,
        };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut sent, mut looked) = (0_u64, begun);
        loop {
            ticks.tick().await;
            let passed = begun.elapsed().min(time);
            let due = (passed.as_secs_f64() * rate) as u64;
            while sent < due {
                self.send(&phase, begun + Duration::from_secs_f64(sent as f64 / rate));
                sent += 1;
            }
            while self.under_way.try_join_next().is_some() {}
            if passed == time {
                return phase;
            }
            if looked.elapsed() >= SLICE {
                looked = Instant::now();
                if is_over(&phase) {
                    return phase;
                }
            }
        }
    }

    /// Waits until all are answered or have failed.
    pub(crate) async fn drain(&mut self) {
        while self.in_flight.load(Relaxed) > 0 {
            sleep(TICK).await;
        }
    }

    fn send(&mut self, phase: &Phase, due: Instant) {
        let is_room = self.in_flight.load(Relaxed) < IN_FLIGHT_MAX;
        phase.of(due, |tally| {
            tally.due += 1;
            tally.unsent += u64::from(!is_room);
        });
        if !is_room {
            return;
        }
        self.in_flight.fetch_add(1, Relaxed);
        let request = (self.request)(self.number);
        self.number += 1;
        let (phase, in_flight) = (phase.clone(), self.in_flight.clone());
        self.under_way.spawn(async move {
            let late = |_| Err(Failure::Late("a request".to_owned(), ANSWER_TIME_MAX));
            let ended = timeout(ANSWER_TIME_MAX, request).await.unwrap_or_else(late);
            let is_in_time = ended.is_ok() && phase.begun.elapsed() <= phase.time;
            phase.of(due, |tally| {
                tally.answered_in_time += u64::from(is_in_time);
                tally.note(&ended, due.elapsed());
            });
            in_flight.fetch_sub(1, Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(millis: &[u64]) -> Tally {
        Tally {
            due: millis.len() as u64,
            latencies: millis.iter().map(|it| it * 1_000_000).collect(),
            ..Tally::default()
        }
    }

    fn phase(slices: Vec<Tally>) -> Phase {
        let over = SLICE * u32::try_from(slices.len()).unwrap();
        Phase {
            begun: Instant::now().checked_sub(over).unwrap(),
            time: over,
            slices: Arc::new(Mutex::new(slices)),
        }
    }

    #[test]
    fn a_quantile_is_one_of_the_latencies() {
        let some = tally(&[4, 1, 3, 2]);
        assert_eq!(some.latency(0.5), 2.0);
        assert_eq!(some.latency(0.99), 4.0);
        assert_eq!(Tally::default().latency(0.99), 0.0);
    }

    #[test]
    fn it_is_calm_when_all_were_served_in_time_for_a_while() {
        let (slow, fast) = (tally(&[90]), tally(&[1, 2]));
        let mut shedding = tally(&[1]);
        shedding.due += 1;
        let slices = vec![
            fast.clone(),
            slow,
            fast.clone(),
            shedding,
            fast.clone(),
            fast,
        ];
        let phase = phase(slices);
        assert_eq!(phase.calm_after(5.0, 2), Some(SLICE * 4));
        assert_eq!(phase.calm_after(5.0, 1), Some(Duration::ZERO));
        assert_eq!(phase.calm_after(5.0, 3), None);
        assert_eq!(phase.calm_after(100.0, 3), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_refused_for_being_too_much_is_shed() {
        let mut tally = Tally::default();
        let refused = |hint: bool| {
            let mut status = Status::resource_exhausted("too much");
            if hint {
                let soon = "20".parse().unwrap();
                status.metadata_mut().insert(HINT, soon);
            }
            Err(Failure::call("registering")(status))
        };
        let failed = |status| Err(Failure::call("registering")(status));
        let in_words = failed(Status::unknown("etcdserver: too many requests"));
        let broken = failed(Status::unavailable("gone"));
        for ended in [Ok(()), refused(true), refused(false), in_words, broken] {
            tally.note(&ended, Duration::from_millis(1));
        }
        let counts = (tally.latencies.len(), tally.shed, tally.hinted);
        assert_eq!((counts, tally.failed), ((1, 3, 1), 1));
    }

    #[tokio::test]
    async fn requests_come_when_due_though_none_is_answered() {
        let never: Arrival = Arc::new(|_| Box::pin(std::future::pending()));
        let mut open = OpenLoop::new(never);
        let phase = open
            .offer(1_000.0, Duration::from_millis(150), |_| false)
            .await;
        let tally = phase.tally();
        assert_eq!((tally.due, tally.unsent), (150, 0));
        assert!(tally.latencies.is_empty());
    }
}

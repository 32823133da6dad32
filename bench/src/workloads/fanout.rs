//! One change, and how long until the last of many watchers has it, and the registry knows.

mod board;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::board::Board;
use super::{Trial, Workload};
use crate::backends::{Backend, Clients, Cluster, Fanout, Lines, Outcome, Watcher, addresses, cpu};
use crate::failure::Failure;
use crate::figures::Better;
use crate::load::{latencies, millis, nanos};
use crate::scale::Scale;
use crate::wire::Received;

/// Connections that watchers share.
const SHARED_CONNECTIONS: usize = 50;
/// So many can be opened in a second.
const OPENED_PER_SECOND: f64 = 5_000.0;
/// Of fewer watchers a server's memory says nothing.
const WATCHERS_OF_ACCOUNT: usize = 100;
/// Watchers that are opened at a time.
const OPENING_AT_ONCE: usize = 200;
/// No change takes longer to reach everyone; one that does is a failure.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(20);
/// A case ends after so long, with the changes that it has seen until then: r-nacos takes most of a second for each.
const CASE_TIME_MAX: Duration = Duration::from_secs(5);
/// A pause between changes, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);
/// Instances of the service that is watched: one in each of two groups, and a list.
const FEW: usize = 2;
const MANY: usize = 100;
/// Changes before those that count.
const WARM_UP_CHANGES: u64 = 2;
/// Of the watchers of a list, one more in so many never reads.
const SLOW_PART: usize = 10;
/// Who never reads lets the server send so much ahead: less than one list.
const SLOW_WINDOW_BYTES: u32 = 16 << 10;

/// The workload.
#[derive(Debug)]
pub(super) struct FanningOut;

/// One way to run it.
struct Case {
    name: String,
    watchers: usize,
    connections: usize,
    instances: usize,
    /// Watchers beside those that are counted, which never read.
    slow: usize,
    /// After so long those that are open are all there are.
    open_within: Duration,
}

impl Workload for FanningOut {
    fn name(&self) -> &'static str {
        "fanout"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        // It is long, and each of its figures is of many changes.
        1
    }

    fn about(&self) -> &'static str {
        "a weight changes, and every watcher hears of it, on shared connections and with one each"
    }

    fn takes(&self, scale: &Scale) -> Duration {
        let cases = cases(scale);
        let opening = cases
            .iter()
            .map(|case| opened(case.watchers).min(case.open_within));
        CASE_TIME_MAX / 2 * u32::try_from(cases.len()).unwrap_or(1) + opening.sum::<Duration>()
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            for (number, case) in cases(trial.scale).into_iter().enumerate() {
                let directory = trial.directory.join(number.to_string());
                std::fs::create_dir(&directory).map_err(Failure::system("making a directory"))?;
                let cluster = backend.start(1, &directory).await?;
                measure(&*cluster, &case, &mut trial).await?;
            }
            Ok(())
        })
    }
}

/// How long it takes to open so many, about.
fn opened(watchers: usize) -> Duration {
    Duration::from_secs_f64(watchers as f64 / OPENED_PER_SECOND)
}

fn cases(scale: &Scale) -> Vec<Case> {
    let most = scale.watchers.iter().copied().max().unwrap_or(1);
    let shared = scale.watchers.iter().map(|&watchers| {
        let connections = watchers.min(SHARED_CONNECTIONS);
        Case {
            name: match watchers {
                1 => "1 watcher".to_owned(),
                _ => format!("{watchers} watchers on {connections} connections"),
            },
            watchers,
            connections,
            instances: FEW,
            slow: 0,
            open_within: Duration::MAX,
        }
    });
    let own = Case {
        name: format!("{most} watchers, a connection each"),
        watchers: most,
        connections: most,
        instances: FEW,
        slow: 0,
        open_within: Duration::MAX,
    };
    let fitting = Case {
        name: format!("as many watchers as fit on {SHARED_CONNECTIONS} connections"),
        watchers: scale.watchers_most,
        connections: SHARED_CONNECTIONS,
        instances: FEW,
        slow: 0,
        open_within: scale.opening,
    };
    // A list is a hundred times as long.
    let fewer = (most / 10).max(1);
    let slow = (fewer / SLOW_PART).max(1);
    let list = |name: String, slow| Case {
        name,
        watchers: fewer,
        connections: fewer.min(SHARED_CONNECTIONS),
        instances: MANY,
        slow,
        open_within: Duration::MAX,
    };
    let alone = format!("{fewer} watchers of {MANY} instances");
    let among = format!("{fewer} watchers of {MANY} instances, {slow} more do not read");
    shared
        .chain([own, list(alone, 0), list(among, slow), fitting])
        .collect()
}

async fn measure(cluster: &dyn Cluster, case: &Case, trial: &mut Trial<'_>) -> Result<(), Failure> {
    let servers = addresses(cluster);
    let writer = cluster.clients(&Lines::to(&servers, 1)).await?;
    let service = format!("fanout-x{}", case.instances);
    writer.fanout().found(&service, case.instances).await?;
    let connections = match writer.fanout().shares_connections() {
        true => case.connections,
        // As many as fit are as many as there are ports.
        false if case.open_within < Duration::MAX => return Ok(()),
        false => case.watchers,
    };
    let lines = Lines::to(&servers, connections);
    let clients = cluster.clients(&lines).await?;
    let clients: Arc<dyn Clients> = clients.into();
    let mut slow_lines = Lines::to(&servers, case.slow);
    slow_lines.window = Some(SLOW_WINDOW_BYTES);
    let slow = cluster.clients(&slow_lines).await?;
    let unread = watchers_named("slow", slow.fanout(), &service, case.slow);
    let _unread: Vec<_> = unread.try_collect().await?;
    let held = resident(cluster);
    let opening = watchers_named("watcher", clients.fanout(), &service, case.watchers);
    let opening = opening.take_until(sleep(case.open_within));
    let watchers: Vec<_> = opening.try_collect().await?;
    let count = watchers.len();
    let board = Arc::new(Board::new(count));
    let mut tasks = JoinSet::new();
    for watcher in watchers {
        tasks.spawn(follow(watcher, board.clone()));
    }
    let run = Changes {
        cluster,
        service: &service,
        fanout: writer.fanout(),
        board: &board,
        confirmed: case.slow == 0,
        received: &lines.received,
    };
    for number in 1..=WARM_UP_CHANGES {
        run.one(number)
            .await
            .map_err(|failure| told(failure, &mut tasks))?;
    }
    let seen = run.all(trial.scale.changes).await;
    let mut seen = seen.map_err(|failure| told(failure, &mut tasks))?;
    (seen.watchers, seen.held) = (count, resident(cluster).saturating_sub(held));
    note(&seen, case, trial)
}

/// A change that did not arrive has its reason in a watcher, if one ended.
fn told(failure: Failure, tasks: &mut JoinSet<Result<(), Failure>>) -> Failure {
    match tasks.try_join_next() {
        Some(Ok(Err(reason))) => reason,
        _ => failure,
    }
}

/// Opens so many, some at a time.
fn watchers_named<'a>(
    name: &'a str,
    fanout: &'a dyn Fanout,
    service: &'a str,
    count: usize,
) -> impl Stream<Item = Result<Box<dyn Watcher>, Failure>> + 'a {
    stream::iter(0..count)
        .map(move |at| fanout.watch(at, format!("{name}-{at}"), service))
        .buffer_unordered(OPENING_AT_ONCE)
}

/// What the servers hold in memory.
fn resident(cluster: &dyn Cluster) -> u64 {
    let servers = cluster.servers().iter();
    servers.map(|server| server.process.memory().resident).sum()
}

async fn follow(mut watcher: Box<dyn Watcher>, board: Arc<Board>) -> Result<(), Failure> {
    let mut newest = 0;
    loop {
        let seen = watcher.next().await?;
        // Some send the same news twice.
        if seen > newest {
            newest = seen;
            board.arrived();
        }
    }
}

/// What is needed to change something and see who has it.
struct Changes<'a> {
    cluster: &'a dyn Cluster,
    service: &'a str,
    fanout: &'a dyn Fanout,
    board: &'a Board,
    /// Will all confirm?
    confirmed: bool,
    received: &'a Received,
}

/// What came of one change.
struct Change {
    to_each: hdrhistogram::Histogram<u64>,
    to_last: Duration,
    to_receipts: Option<Duration>,
}

/// What came of all of them.
struct Seen {
    changes: Vec<Change>,
    used: Duration,
    bytes: u64,
    watchers: usize,
    /// What the servers took for the watchers, and for telling them, in bytes.
    held: u64,
}

impl Changes<'_> {
    async fn all(&self, count: u64) -> Result<Seen, Failure> {
        let (used, bytes) = (cpu(self.cluster), self.received.load(Relaxed));
        let (mut changes, begun) = (Vec::new(), Instant::now());
        for number in 1..=count {
            if begun.elapsed() > CASE_TIME_MAX {
                break;
            }
            changes.push(self.one(WARM_UP_CHANGES + number).await?);
            sleep(PAUSE).await;
        }
        Ok(Seen {
            changes,
            used: cpu(self.cluster).saturating_sub(used),
            bytes: self.received.load(Relaxed) - bytes,
            watchers: 0,
            held: 0,
        })
    }

    async fn one(&self, number: u64) -> Result<Change, Failure> {
        let begun = Instant::now();
        self.board.begin();
        let late = |what: &str| Failure::Late(what.to_owned(), CHANGE_TIME_MAX);
        let news = timeout(CHANGE_TIME_MAX, self.board.everyone());
        let receipts = async {
            let revision = self.fanout.change(self.service, number).await?;
            let receipts = self.fanout.receipts(self.service, revision);
            let Some(receipts) = receipts.filter(|_| self.confirmed) else {
                return Ok(None);
            };
            let waited = timeout(CHANGE_TIME_MAX, receipts).await;
            waited.map_err(|_| late("the receipts"))??;
            Ok(Some(begun.elapsed()))
        };
        let (arrived, to_receipts) = tokio::join!(news, receipts);
        let to_receipts = to_receipts?;
        arrived.map_err(|_| late("reaching the last watcher"))?;
        let mut to_each = latencies()?;
        for at in self.board.arrivals() {
            to_each.saturating_record(nanos(at.saturating_duration_since(begun)));
        }
        Ok(Change {
            to_last: Duration::from_nanos(to_each.max()),
            to_each,
            to_receipts,
        })
    }
}

fn note(seen: &Seen, case: &Case, trial: &mut Trial<'_>) -> Result<(), Failure> {
    let (mut each, mut last, mut receipts) = (latencies()?, latencies()?, latencies()?);
    for change in &seen.changes {
        // Of the same kind, so there is always room.
        let _fits = each.add(&change.to_each);
        last.saturating_record(nanos(change.to_last));
        if let Some(time) = change.to_receipts {
            receipts.saturating_record(nanos(time));
        }
    }
    let named = [
        (&each, "a watcher p50", 0.5),
        (&last, "last watcher p50", 0.5),
        (&last, "last watcher p99", 0.99),
        (&receipts, "last receipt p50", 0.5),
        (&receipts, "last receipt p99", 0.99),
    ];
    for (times, what, quantile) in named {
        if !times.is_empty() {
            let value = millis(times.value_at_quantile(quantile));
            trial
                .notes
                .add(&case.name, what, "ms", Better::Lower, value);
        }
    }
    let (changes, watchers) = (seen.changes.len().max(1), seen.watchers.max(1));
    let (changes, watchers) = (changes as f64, watchers as f64);
    let used = seen.used.as_secs_f64() * 1e3 / changes;
    let bytes = seen.bytes as f64 / changes / watchers;
    let held = seen.held as f64 / watchers;
    let mut lower = |what, unit, value| {
        let notes = &mut trial.notes;
        notes.add(&case.name, what, unit, Better::Lower, value);
    };
    lower("server CPU a change", "ms", used);
    lower(
        "server CPU a watcher and change",
        "us",
        used * 1e3 / watchers,
    );
    lower("bytes a watcher and change", "B", bytes);
    if seen.watchers >= WATCHERS_OF_ACCOUNT {
        lower("server memory a watcher", "B", held);
    }
    if case.open_within < Duration::MAX {
        let notes = &mut trial.notes;
        notes.add(&case.name, "watchers", "in all", Better::Higher, watchers);
    }
    Ok(())
}

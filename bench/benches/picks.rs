//! What one pick costs, by number of instances and threads, beside other ways to choose.

#![allow(missing_docs, reason = "criterion's macros write functions")]

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower::Service;
use trimtab_bench::cpu_time::CpuTime;
use trimtab_bench::naive::Naive;
use trimtab_bench::others;
use trimtab_client::policy::{Balancing, Policy};
use trimtab_client::workbench::{Bench, Tie};

const INSTANCES: [usize; 3] = [10, 1_000, 10_000];

/// A canary: two groups, of which the second has one instance in ten.
fn groups(instances: usize) -> [(u32, usize); 2] {
    [(9_900, instances - instances / 10), (100, instances / 10)]
}

fn bench_of(instances: usize, capacities: &[u32], balancing: Balancing) -> Bench {
    let policy = Policy {
        balancing,
        ..Policy::default()
    };
    Bench::new(&groups(instances), capacities, policy)
}

const ALIKE: &[u32] = &[100];
const UNLIKE: &[u32] = &[100, 150, 400];

/// One thread; what criterion is made for.
fn on_one_thread(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("pick");
    for instances in INSTANCES {
        let free = Tie::none();
        for (name, capacities, balancing) in [
            ("trimtab, least loaded", ALIKE, Balancing::LeastLoaded),
            (
                "trimtab, least loaded, unlike capacities",
                UNLIKE,
                Balancing::LeastLoaded,
            ),
            ("trimtab, round robin", ALIKE, Balancing::RoundRobin),
        ] {
            let bench = bench_of(instances, capacities, balancing);
            group.bench_function(BenchmarkId::new(name, instances), |b| {
                b.iter(|| black_box(bench.pick(&free)));
            });
        }
        let bench = bench_of(instances, ALIKE, Balancing::ConsistentHash);
        let id = BenchmarkId::new("trimtab, by a key, consistent hash", instances);
        group.bench_function(id, |b| {
            let ties = Bench::ties();
            let mut next = (0..ties.len()).cycle();
            b.iter(|| black_box(bench.pick(&ties[next.next().unwrap_or(0)])));
        });
        let bench = bench_of(instances, ALIKE, Balancing::LeastLoaded);
        let id = BenchmarkId::new("trimtab, call counted in and out", instances);
        group.bench_function(id, |b| b.iter(|| bench.call(&free)));
        let naive = Naive::new(&groups(instances));
        group.bench_function(BenchmarkId::new("naive weighted random", instances), |b| {
            b.iter(|| black_box(naive.pick()));
        });
        let mut cx = Context::from_waker(Waker::noop());
        let mut tower = others::unweighed(instances);
        group.bench_function(BenchmarkId::new("tower p2c, as in tonic", instances), |b| {
            b.iter(|| turn(&mut tower, &mut cx));
        });
        let mut tower = others::weighed(instances);
        group.bench_function(BenchmarkId::new("tower p2c, peak-EWMA", instances), |b| {
            b.iter(|| turn(&mut tower, &mut cx));
        });
    }
    group.bench_function("reading the clock", |b| {
        b.iter(|| black_box(Instant::now()))
    });
    group.finish();
}

fn turn<S: Service<()>>(balance: &mut S, cx: &mut Context<'_>) {
    match balance.poll_ready(cx) {
        Poll::Ready(Ok(())) => {
            drop(black_box(balance.call(())));
        }
        _ => unreachable_pick(),
    }
}

#[cold]
fn unreachable_pick() {
    std::process::abort();
}

/// Two threads that share one balancer. tower's is not shared: it is behind a
/// lock or a task where it is.
fn on_two_threads(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("pick on two threads");
    for instances in INSTANCES {
        let free = Tie::none();
        let bench = bench_of(instances, ALIKE, Balancing::LeastLoaded);
        let id = BenchmarkId::new("trimtab, least loaded", instances);
        group.bench_function(id, |b| {
            b.iter_custom(|picks| {
                on_both(picks, || {
                    black_box(bench.pick(&free));
                })
            });
        });
        let id = BenchmarkId::new("trimtab, call counted in and out", instances);
        group.bench_function(id, |b| {
            b.iter_custom(|picks| on_both(picks, || bench.call(&free)));
        });
        let naive = Naive::new(&groups(instances));
        group.bench_function(BenchmarkId::new("naive weighted random", instances), |b| {
            b.iter_custom(|picks| {
                on_both(picks, || {
                    black_box(naive.pick());
                })
            });
        });
    }
    group.finish();
}

/// What the slower of two threads took that made so many picks each.
fn on_both(picks: u64, pick: impl Fn() + Sync) -> Duration {
    let run = || {
        let begun = CpuTime::now();
        (0..picks).for_each(|_| pick());
        CpuTime::now().saturating_sub(begun)
    };
    thread::scope(|scope| {
        let other = scope.spawn(run);
        let mine = run();
        other.join().map_or(mine, |others| others.max(mine))
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = on_one_thread, on_two_threads
}
criterion_main!(benches);

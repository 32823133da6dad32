//! How long it takes to follow a view, from its arrival to the picker that calls use.

#![allow(missing_docs, reason = "criterion's macros write functions")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use trimtab_bench::cpu_time::CpuTime;
use trimtab_client::policy::{Balancing, Policy};
use trimtab_client::workbench::Bench;

fn follow(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("follow a view");
    for balancing in [
        Balancing::LeastLoaded,
        Balancing::RoundRobin,
        Balancing::ConsistentHash,
    ] {
        for instances in [100, 1_000, 10_000] {
            let policy = Policy {
                balancing,
                ..Policy::default()
            };
            let bench = Bench::new(&[(9_000, instances - 10), (1_000, 10)], &[100], policy);
            let mut followed = bench.follower();
            let id = BenchmarkId::new(balancing.to_string(), instances);
            group.bench_function(id, |b| b.iter(|| followed.follow()));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = follow
}
criterion_main!(benches);

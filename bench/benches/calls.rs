//! What a whole call costs the process that makes it, through the balancer and over a bare channel of tonic.
//!
//! The caller has one thread and the server another; processor time of the
//! caller's thread is measured, connections and all. The server answers at
//! once, so what is compared is the cost of calling and nothing else. To say
//! how far the two are apart, `overhead` is better: it makes them by turns.

#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trimtab_bench::calling::{Callers, spend};
use trimtab_bench::cpu_time::CpuTime;

/// Calls under way at once.
const AT_ONCE: [u64; 2] = [1, 64];

fn whole_calls(criterion: &mut Criterion<CpuTime>) {
    let callers = Callers::start();
    let (_one, plain) = callers.balanced(1, false);
    let (_same, repeatable) = callers.balanced(1, true);
    let (_ten, of_ten) = callers.balanced(10, false);
    let (bare, runtime) = (callers.bare(), &callers.runtime);

    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Elements(1));
    for at_once in AT_ONCE {
        let mut measure = |name: &str, spend: &dyn Fn(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(name, at_once), |b| b.iter_custom(spend));
        };
        measure("tonic channel", &|calls| {
            runtime.block_on(spend(&bare, calls, at_once))
        });
        measure("trimtab", &|calls| {
            runtime.block_on(spend(&plain, calls, at_once))
        });
        measure("trimtab, repeatable", &|calls| {
            runtime.block_on(spend(&repeatable, calls, at_once))
        });
        measure("trimtab, 10 instances", &|calls| {
            runtime.block_on(spend(&of_ten, calls, at_once))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .measurement_time(Duration::from_secs(5));
    targets = whole_calls
}
criterion_main!(benches);

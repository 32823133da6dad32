//! What a caller does for each call.

use std::hint::black_box;

use trimtab_client::policy::{Balancing, Policy};
use trimtab_client::workbench::{Bench, Tie};

use crate::Failure;
use crate::counted::Counter;

/// Instances to choose among.
const INSTANCES: [usize; 3] = [10, 1_000, 10_000];
/// Many: who is drawn is chance, and what it costs as well.
const TIMES: u64 = 10_000;

pub(crate) fn run(counter: &mut Counter) -> Result<(), Failure> {
    for balancing in [
        Balancing::LeastLoaded,
        Balancing::RoundRobin,
        Balancing::ConsistentHash,
    ] {
        for instances in INSTANCES {
            picks(counter, balancing, instances)?;
        }
    }
    let bench = bench(Balancing::LeastLoaded, INSTANCES[1]);
    let tie = Tie::none();
    counter.path("count a call in and out, of 1000", TIMES, |_| {
        bench.call(&tie);
        Ok(())
    })
}

/// A canary: two groups, of which the second has one instance in ten.
fn bench(balancing: Balancing, instances: usize) -> Bench {
    let policy = Policy {
        balancing,
        ..Policy::default()
    };
    let few = instances / 10;
    Bench::new(&[(9_900, instances - few), (100, few)], &[100], policy)
}

fn picks(counter: &mut Counter, balancing: Balancing, instances: usize) -> Result<(), Failure> {
    let bench = bench(balancing, instances);
    let ties = match balancing {
        Balancing::ConsistentHash => Bench::ties(),
        _ => vec![Tie::none()],
    };
    let mut next = ties.iter().cycle();
    counter.path(&format!("pick, {balancing}, of {instances}"), TIMES, |_| {
        let tie = next.next();
        let tie = tie.ok_or_else(|| Failure("there are no keys".to_owned()))?;
        black_box(bench.pick(tie));
        Ok(())
    })
}

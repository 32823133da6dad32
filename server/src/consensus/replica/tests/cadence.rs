//! How often snapshots are taken.

use std::collections::BTreeMap;

use trimtab_registry::command::Command;
use trimtab_registry::instance::{METADATA_BYTES_MAX, METADATA_VALUE_BYTES_MAX, Metadata};

use super::*;

/// A registration that takes some 4 KiB.
fn large(sequence: u64) -> Bytes {
    let mut command = register("catalog", &format!("i{sequence}"));
    let values = METADATA_BYTES_MAX / METADATA_VALUE_BYTES_MAX - 1;
    let value = || format!("{sequence:0>width$}", width = METADATA_VALUE_BYTES_MAX);
    let pairs: BTreeMap<_, _> = (0..values).map(|it| (format!("k{it}"), value())).collect();
    if let Command::Register(register) = &mut command {
        register.instance.metadata = Metadata::new(pairs).expect("small enough");
    }
    encode_command(&command).expect("encodes")
}

#[test]
fn a_large_registry_is_not_written_anew_for_a_few_changes() {
    const EVERY: u64 = 10;
    const ROUNDS: u64 = 200;
    let mut cluster = Cluster::new(1, EVERY, 0);
    cluster.elect(1);
    let mut taken = Vec::new();
    for round in 0..ROUNDS {
        let commands = (0..EVERY).map(|it| {
            let sequence = round * EVERY + it + 1;
            let incarnation = 101;
            (
                ProposalId {
                    incarnation,
                    sequence,
                },
                large(sequence),
            )
        });
        cluster.at(1).propose(commands.collect()).expect("it leads");
        cluster.settle();
        let at = cluster.at(1).snapshot_index();
        if taken.last() != Some(&at) {
            taken.push(at);
        }
    }
    let bytes = cluster.at(1).snapshot_bytes();
    assert!(bytes > 3 << 20, "{bytes}");
    // Each time there are a quarter as many instances more.
    let few = taken.len() as u64 - 1;
    assert!((4..ROUNDS / 4).contains(&few), "{few} snapshots: {taken:?}");
    let last_gap = ROUNDS * EVERY - taken.last().expect("some");
    assert!(last_gap * 4 <= ROUNDS * EVERY + 3 * EVERY, "{last_gap}");
}

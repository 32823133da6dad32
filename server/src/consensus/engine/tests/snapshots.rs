//! Snapshots that are taken while writes go on.

use trimtab_registry::command::Command;
use trimtab_registry::instance::Metadata;

use super::*;
use crate::storage::file::PIECE_BYTES;

/// A registration of nearly 4 KiB.
fn heavy(number: usize) -> Command {
    let mut command = register("catalog", &format!("i{number}"));
    if let Command::Register(register) = &mut command {
        let pairs = (0..7).map(|pair| (format!("k{pair}"), "x".repeat(500)));
        register.instance.metadata = Metadata::new(pairs.collect()).expect("fits");
    }
    command
}

fn propose_all(engine: &mut TestEngine, numbers: std::ops::Range<usize>) {
    let (inputs, answers): (Vec<_>, Vec<_>) = numbers
        .map(|number| {
            let (reply, answer) = oneshot::channel();
            let command = encode_command(&heavy(number)).expect("encodes");
            (Input::Propose(command, reply), answer)
        })
        .unzip();
    engine.round(inputs, 0).expect("works");
    for mut answer in answers {
        let answer = answer.try_recv().expect("is answered");
        assert!(answer.expect("is applied").result.is_ok());
    }
}

/// Alone, with some three pieces of state, and the job of encoding them.
fn with_a_job(disk: &TestDisk) -> (TestEngine, super::super::super::snapshot::SnapshotJob) {
    let mut engine = engine_with(disk, 1, 1, 700);
    for start in (0..800).step_by(200) {
        propose_all(&mut engine, start..start + 200);
    }
    let job = engine.due_snapshot().expect("is due");
    assert!(engine.due_snapshot().is_none(), "one at a time");
    (engine, job)
}

#[test]
fn writes_go_on_while_a_snapshot_is_encoded_and_written() {
    let disk = TestDisk::default();
    let (mut engine, job) = with_a_job(&disk);
    let index = job.index();
    assert_eq!(index, engine.status().applied);
    propose_all(&mut engine, 800..820);
    let snapshot = job.run().expect("encodes");
    let pieces = snapshot.data.len().div_ceil(PIECE_BYTES);
    assert!(pieces >= 3, "{pieces} pieces");
    // Each round writes a piece, and does its own work.
    engine
        .round([Input::Encoded(Ok(snapshot))], 0)
        .expect("works");
    for round in 1..pieces {
        assert_eq!(engine.parts().store.staged, round);
        assert_eq!(engine.status().snapshot_index, 1);
        let from = 820 + round * 10;
        propose_all(&mut engine, from..from + 10);
    }
    let status = engine.status();
    assert_eq!(status.snapshot_index, index);
    assert!(status.snapshot_bytes > 2 * PIECE_BYTES as u64);
    let saved = engine
        .parts()
        .store
        .load()
        .expect("loads")
        .expect("is there");
    assert_eq!(saved.base.index, index - 10, "some are kept before it");
    let last = saved.entries.last().map(|entry| entry.index);
    assert_eq!(last, Some(status.applied));
    assert!(engine.due_snapshot().is_none(), "few entries since");
}

#[test]
fn a_disk_that_fails_meanwhile_costs_only_the_attempt() {
    for encoded_before in [false, true] {
        let disk = TestDisk::default();
        let (mut engine, job) = with_a_job(&disk);
        let late = Input::Encoded(job.run());
        let mut late = Some(late);
        if encoded_before {
            engine.round(late.take(), 0).expect("works");
        }
        disk.set_broken(true);
        let command = encode_command(&heavy(900)).expect("encodes");
        let (reply, _answer) = oneshot::channel();
        engine
            .round([Input::Propose(command, reply)], 0)
            .expect("works");
        assert!(engine.status().halted.is_some());
        disk.set_broken(false);
        for _ in 0..20 {
            engine.round([], 1).expect("works");
        }
        assert_eq!(engine.status().role, Role::Leader);
        engine.round(late.take(), 0).expect("passes over it");
        assert_eq!(engine.status().snapshot_index, 1);
        // The next attempt succeeds.
        let job = engine.due_snapshot().expect("is due again");
        engine.round([Input::Encoded(job.run())], 0).expect("works");
        for _ in 0..10 {
            engine.round([], 0).expect("works");
        }
        assert!(engine.status().snapshot_index > 700);
    }
}

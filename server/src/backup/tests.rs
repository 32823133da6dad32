//! From a state to a file, to a directory, to a log that goes on, and back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use trimtab_proto::internal::v1::{Entry, HardState};
use trimtab_registry::FORMAT_VERSION;
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;

use super::directory::Directory;
use super::error::BackupError;
use super::file::SnapshotFile;
use super::format;
use super::header::{Header, Source};
use super::restore::{JUMP, Plan, restore};
use super::survey::{Survey, survey};
use crate::consensus::entry::{encode_command, encode_state};
use crate::consensus::testing::register;
use crate::storage::error::StorageError;
use crate::storage::file::{Round, Storage};

/// Entry 7 of term 3, after which one instance is registered.
fn registry() -> Registry {
    let mut registry = Registry::new();
    let at = Position { index: 7, term: 3 };
    assert!(
        registry
            .apply(at, &register("catalog", "i1"))
            .outcome
            .is_ok()
    );
    registry
}

fn header(applied: Position) -> Header {
    Header {
        cluster_id: 1,
        applied,
        members: [(1, "127.0.0.1:7070".to_owned())].into(),
        saved_at_ms: 0,
        saved_by: 1,
        version: "0.1.0".to_owned(),
        source: Source::Quorum,
    }
}

fn write(
    directory: &TempDir,
    applied: Position,
    state: Bytes,
) -> Result<SnapshotFile, BackupError> {
    let path = directory.path().join("snap");
    let file = format::encode(&header(applied), state).concat();
    fs::write(&path, file).expect("written");
    SnapshotFile::read(&path)
}

fn snapshot() -> SnapshotFile {
    let registry = registry();
    SnapshotFile {
        header: header(registry.applied()),
        registry,
        bytes: 0,
    }
}

fn plan() -> Plan {
    Plan {
        replica_id: 4,
        advertise: "127.0.0.1:7074".to_owned(),
        jump: JUMP,
        settle: Duration::from_secs(3),
    }
}

/// Appends entries to the log of a directory, all but `unconfirmed` of them
/// known to be committed.
fn append(directory: &Path, entries: &[Entry], unconfirmed: u64) {
    let mut storage = Storage::open_existing(directory).expect("opens");
    storage.load().expect("loads");
    let last = entries.last().expect("some");
    let hard_state = HardState {
        term: last.term,
        vote: 4,
        commit: last.index - unconfirmed,
    };
    let round = Round {
        installed: None,
        entries,
        hard_state: &hard_state,
    };
    storage.save(round).expect("saved");
}

fn entry(after: u64, entry_type: u32, data: Bytes) -> Entry {
    Entry {
        entry_type,
        term: 5,
        index: 7 + JUMP + after,
        data,
        ..Entry::default()
    }
}

#[test]
fn a_state_comes_back_from_a_file_and_one_that_makes_no_sense_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    let registry = registry();
    let applied = registry.applied();
    let state = encode_state(&Default::default(), &registry).expect("encodes");
    let read = write(&directory, applied, state.clone()).expect("whole");
    assert_eq!(read.registry, registry);

    let refused = |applied, state: Bytes| {
        let refused = write(&directory, applied, state).expect_err("no sense");
        assert!(matches!(refused, BackupError::State { .. }), "{refused}");
        refused.to_string()
    };
    let mut newer = state.to_vec();
    newer[0] = FORMAT_VERSION + 1;
    let told = refused(applied, newer.into());
    let found = format!("has format version {}", FORMAT_VERSION + 1);
    assert!(told.contains(&found), "{told}");
    let told = refused(applied, state.slice(..state.len() - 1));
    assert!(told.contains("cannot be read"), "{told}");
    let told = refused(Position { index: 8, term: 3 }, state);
    assert!(
        told.contains("it is of entry 7, and the header says 8"),
        "{told}"
    );
}

#[test]
fn a_restored_directory_is_a_cluster_of_its_own_that_begins_later() {
    let directory = TempDir::new().expect("a temporary directory");
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    let founded = restore(snapshot(), &one, &plan()).expect("restored");
    assert_eq!(founded.identity.replica_id, 4);
    assert_eq!(founded.revision.0, 7 + JUMP);
    let again = restore(snapshot(), &other, &plan()).expect("restored");
    assert_ne!(founded.identity.cluster_id, again.identity.cluster_id);

    let read = Directory::read(&one).expect("readable");
    assert_eq!(read.identity, founded.identity);
    let (index, term) = (7 + JUMP, 4);
    assert_eq!(read.last(), Position { index, term });
    assert_eq!(read.unconfirmed_entries(), 0);
    let counts = Survey {
        services: 1,
        groups: 1,
        instances: 1,
    };
    assert_eq!(survey(&read.state.registry), counts);
}

#[test]
fn all_of_the_log_is_read_committed_or_not() {
    let directory = TempDir::new().expect("a temporary directory");
    let data = directory.path().join("data");
    restore(snapshot(), &data, &plan()).expect("restored");
    let command = encode_command(&register("catalog", "i2")).expect("encodes");
    let entries = [
        entry(1, 0, Bytes::new()),
        // A change of members.
        entry(2, 2, Bytes::new()),
        entry(3, 0, command),
    ];
    append(&data, &entries, 2);
    let read = Directory::read(&data).expect("readable");
    assert_eq!(read.last().index, 7 + JUMP + 3);
    assert_eq!(read.snapshot.index, 7 + JUMP);
    assert_eq!((read.commit, read.unconfirmed_entries()), (7 + JUMP + 1, 2));
    assert_eq!(survey(&read.state.registry).instances, 2);
    let source = Source::Directory {
        unconfirmed_entries: 2,
    };
    assert_eq!(read.header(0).source, source);
}

#[test]
fn an_entry_that_cannot_be_read_is_named_not_skipped() {
    let directory = TempDir::new().expect("a temporary directory");
    let data = directory.path().join("data");
    restore(snapshot(), &data, &plan()).expect("restored");
    append(&data, &[entry(1, 0, Bytes::from_static(b"\xff?"))], 0);
    let refused = Directory::read(&data).expect_err("unreadable").to_string();
    let named = format!("log entry {} cannot be applied", 7 + JUMP + 1);
    assert!(refused.contains(&named), "{refused}");
}

#[test]
fn only_the_first_start_after_a_restore_settles() {
    let directory = TempDir::new().expect("a temporary directory");
    let data = directory.path().join("data");
    restore(snapshot(), &data, &plan()).expect("restored");
    let settles_for = || {
        let storage = Storage::open_existing(&data).expect("opens");
        storage.settles_for().expect("readable")
    };
    assert_eq!(settles_for(), Some(Duration::from_secs(3)));
    append(&data, &[entry(1, 0, Bytes::new())], 0);
    assert_eq!(settles_for(), None);
}

#[test]
fn what_cannot_be_restored_leaves_no_directory_that_could_be_taken_for_one() {
    let directory = TempDir::new().expect("a temporary directory");
    let data = directory.path().join("data");
    for jump in [u64::MAX, 1 << 62] {
        let refused = restore(snapshot(), &data, &Plan { jump, ..plan() });
        assert!(matches!(refused, Err(BackupError::TooFar { .. })));
    }
    let refused = restore(snapshot(), &data, &Plan { jump: 0, ..plan() });
    assert!(matches!(refused, Err(BackupError::TooFar { .. })));
    assert!(!data.exists());

    fs::write(&data, "a file").expect("written");
    assert!(restore(snapshot(), &data, &plan()).is_err());
    assert_eq!(fs::read(&data).expect("readable"), b"a file");

    let kept = directory.path().join("kept");
    restore(snapshot(), &kept, &plan()).expect("restored");
    let refused = restore(snapshot(), &kept, &plan());
    assert!(matches!(refused, Err(BackupError::NotEmpty { .. })));
    assert!(Directory::read(&kept).is_ok());
    let refused = Directory::read(&directory.path().join("nowhere"));
    let missing = matches!(
        refused,
        Err(BackupError::Storage(StorageError::Missing { .. }))
    );
    assert!(missing);
}

//! Storage on real files and on a disk that fails.

use std::path::Path;

use redb::{Database, ReadableTable as _, TableDefinition};
use trimtab_proto::internal::v1::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

use super::error::StorageError;
use super::file::{FILE_NAME, Identity, LogBase, Round, Saved, Storage};
use super::testing::TestDisk;

mod damage;
mod failure;

const ME: Identity = Identity {
    replica_id: 1,
    disk_id: 8,
    cluster_id: 7,
};

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("{index}@{term}").into_bytes().into(),
        ..Entry::default()
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn snapshot(index: u64, term: u64, length: usize) -> Snapshot {
    Snapshot {
        data: vec![index as u8; length].into(),
        metadata: Some(SnapshotMetadata {
            index,
            term,
            conf_state: Some(ConfState {
                voters: vec![1, 2, 3],
                ..ConfState::default()
            }),
        }),
    }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 1,
        commit,
    }
}

/// A replica founded at index 1 with entries 2 to 9 of term 2.
fn founded(directory: &Path) -> Storage {
    let mut storage = Storage::open(directory, ME).expect("opens");
    assert_eq!(storage.load().expect("loads"), None);
    storage
        .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
        .expect("founds");
    append(&mut storage, &entries(2..=9, 2), &hard_state(2, 5)).expect("appends");
    storage
}

fn append(
    storage: &mut Storage,
    entries: &[Entry],
    hard_state: &HardState,
) -> Result<(), StorageError> {
    storage.save(Round {
        installed: None,
        entries,
        hard_state,
    })
}

fn reopen(storage: Storage, directory: &Path) -> (Storage, Saved) {
    drop(storage);
    let mut storage = Storage::open(directory, ME).expect("opens again");
    let saved = storage.load().expect("loads").expect("was founded");
    (storage, saved)
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("tempdir");
    let storage = founded(directory.path());
    let (_, saved) = reopen(storage, directory.path());
    assert_eq!(saved.hard_state, hard_state(2, 5));
    assert_eq!(saved.snapshot, snapshot(1, 1, 10));
    assert_eq!(saved.base, LogBase { index: 1, term: 1 });
    assert_eq!(saved.entries, entries(2..=9, 2));
}

#[test]
fn what_was_saved_is_there_after_a_crash() {
    let directory = tempfile::tempdir().expect("tempdir");
    let _still_open = founded(directory.path());
    // The file as a killed process leaves it: never closed.
    let copy = tempfile::tempdir().expect("tempdir");
    std::fs::copy(
        directory.path().join(FILE_NAME),
        copy.path().join(FILE_NAME),
    )
    .expect("copies");
    let mut storage = Storage::open(copy.path(), ME).expect("opens");
    let saved = storage.load().expect("loads").expect("was founded");
    assert_eq!(saved.entries, entries(2..=9, 2));
    append(&mut storage, &entries(10..=10, 3), &hard_state(3, 9)).expect("goes on");
}

#[test]
fn the_data_of_a_snapshot_is_read_while_the_replica_runs() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    assert_eq!(storage.snapshot(1).expect("reads"), vec![1; 10]);
    let newer = snapshot(6, 2, 3 << 20);
    storage.stage(&newer, 0).expect("stages");
    assert_eq!(storage.snapshot(1).expect("reads"), vec![1; 10]);
    let base = LogBase { index: 4, term: 2 };
    let compacted = storage.compact(&newer, base, &hard_state(2, 8));
    compacted.expect("compacts");
    assert_eq!(storage.snapshot(6).expect("reads"), newer.data);
    let gone = storage.snapshot(1).expect_err("it is gone").to_string();
    assert!(gone.contains("it is of entry 6, not 1"), "{gone}");
}

#[test]
fn appending_replaces_everything_from_the_first_entry_on() {
    let directory = tempfile::tempdir().expect("tempdir");
    let storage = founded(directory.path());
    let (mut storage, _) = reopen(storage, directory.path());
    append(&mut storage, &entries(6..=7, 3), &hard_state(3, 5)).expect("appends");
    let (_, saved) = reopen(storage, directory.path());
    let mut expected = entries(2..=5, 2);
    expected.extend(entries(6..=7, 3));
    assert_eq!(saved.entries, expected);
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let refused = append(&mut storage, &entries(11..=12, 3), &hard_state(3, 5));
    assert!(matches!(refused, Err(StorageError::Inconsistent { .. })));
    let (_, saved) = reopen(storage, directory.path());
    assert_eq!(saved.hard_state, hard_state(2, 5));
    assert_eq!(saved.entries.len(), 8);
}

#[test]
fn a_compaction_replaces_the_snapshot_and_cuts_the_log() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let base = LogBase { index: 4, term: 2 };
    // Larger than one chunk, and then smaller again.
    storage
        .compact(&snapshot(6, 2, 3_000_000), base, &hard_state(2, 8))
        .expect("compacts");
    storage
        .compact(&snapshot(7, 2, 1_500_000), base, &hard_state(2, 8))
        .expect("compacts");
    let (mut storage, saved) = reopen(storage, directory.path());
    assert_eq!(saved.snapshot, snapshot(7, 2, 1_500_000));
    assert_eq!(saved.base, base);
    assert_eq!(saved.entries, entries(5..=9, 2));
    assert_eq!(saved.hard_state, hard_state(2, 8));
    append(&mut storage, &entries(10..=10, 2), &hard_state(2, 9)).expect("goes on");
}

#[test]
fn an_installed_snapshot_replaces_the_log() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    storage
        .save(Round {
            installed: Some(&snapshot(20, 3, 0)),
            entries: &entries(21..=22, 3),
            hard_state: &hard_state(3, 20),
        })
        .expect("installs");
    let (_, saved) = reopen(storage, directory.path());
    assert_eq!(saved.snapshot, snapshot(20, 3, 0));
    assert_eq!(saved.base, LogBase { index: 20, term: 3 });
    assert_eq!(saved.entries, entries(21..=22, 3));
}

#[test]
fn another_replica_is_refused_with_both_names() {
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    let other = Identity {
        replica_id: 2,
        ..ME
    };
    let error = Storage::open(directory.path(), other).expect_err("is another's");
    let StorageError::OtherIdentity {
        found, expected, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*found, *expected), (ME, other));
    assert!(error.to_string().contains(FILE_NAME), "{error}");
}

#[test]
fn the_cluster_stays_the_one_that_was_founded() {
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    let moved = Identity {
        cluster_id: 8,
        ..ME
    };
    let storage = Storage::open(directory.path(), moved).expect("the same replica");
    assert_eq!(storage.identity(), ME);
}

#[test]
fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let directory = tempfile::tempdir().expect("tempdir");
    let _first = founded(directory.path());
    let error = Storage::open(directory.path(), ME).expect_err("is in use");
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
}

/// Changes a record behind the storage's back.
fn tamper<K: redb::Key + 'static>(
    directory: &Path,
    table: &str,
    change: impl FnOnce(&mut redb::Table<'_, K, &[u8]>),
) {
    let database = Database::open(directory.join(FILE_NAME)).expect("opens");
    let transaction = database.begin_write().expect("begins");
    change(
        &mut transaction
            .open_table(TableDefinition::new(table))
            .expect("exists"),
    );
    transaction.commit().expect("commits");
}

fn pieces(directory: &Path) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    tamper(
        directory,
        "snapshot",
        |table: &mut redb::Table<'_, (u64, u64), _>| {
            let records = table.iter().expect("reads");
            found.extend(records.map(|record| record.expect("reads").0.value()));
        },
    );
    found
}

#[test]
fn a_snapshot_that_is_being_written_does_not_count_until_it_is_compacted_to() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let large = snapshot(6, 2, 3_500_000);
    storage.stage(&large, 0).expect("stages");
    storage.stage(&large, 1).expect("stages");
    append(&mut storage, &entries(10..=10, 2), &hard_state(2, 9)).expect("goes on meanwhile");
    // A crash: what was written of it stays behind, and is of no account.
    let (mut storage, saved) = reopen(storage, directory.path());
    assert_eq!(saved.snapshot, snapshot(1, 1, 10));
    assert_eq!(saved.entries, {
        let mut all = entries(2..=9, 2);
        all.extend(entries(10..=10, 2));
        all
    });
    let error = storage.stage(&large, 2).expect_err("begins anew");
    assert!(matches!(error, StorageError::Inconsistent { .. }));
    for piece in 0..3 {
        storage.stage(&large, piece).expect("stages");
    }
    let base = LogBase { index: 4, term: 2 };
    storage
        .compact(&large, base, &hard_state(2, 9))
        .expect("compacts");
    let (storage, saved) = reopen(storage, directory.path());
    assert_eq!(saved.snapshot, large);
    assert_eq!(saved.base, base);
    drop(storage);
    assert_eq!(pieces(directory.path()), [(6, 0), (6, 1), (6, 2), (6, 3)]);
}

#[test]
fn a_newer_snapshot_takes_the_place_of_one_that_is_being_written() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let dropped = snapshot(6, 2, 2_500_000);
    storage.stage(&dropped, 0).expect("stages");
    storage
        .save(Round {
            installed: Some(&snapshot(20, 3, 5)),
            entries: &[],
            hard_state: &hard_state(3, 20),
        })
        .expect("installs");
    let (storage, saved) = reopen(storage, directory.path());
    assert_eq!(saved.snapshot, snapshot(20, 3, 5));
    drop(storage);
    assert_eq!(pieces(directory.path()), [(20, 0)]);
}

fn on(disk: &TestDisk) -> Result<Storage, StorageError> {
    let disk = disk.clone();
    Storage::open_on_disks(Path::new("a disk of tests"), move || Ok(disk.clone()), ME)
}

/// What a file holds, if it is not refused.
fn held(bytes: Vec<u8>) -> Result<Saved, StorageError> {
    let saved = on(&TestDisk::of(bytes))?.load()?;
    Ok(saved.expect("it was founded"))
}

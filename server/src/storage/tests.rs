//! Storage on real files and on a disk that fails.

use std::path::Path;

use redb::{Database, ReadableTable as _, TableDefinition};
use trimtab_proto::internal::v1::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

use super::error::StorageError;
use super::file::{FILE_NAME, Identity, LogBase, Round, Saved, Storage};
use super::testing::TestDisk;

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

fn record(table: &redb::Table<'_, u64, &[u8]>, key: u64) -> Vec<u8> {
    let record = table.get(key).expect("reads").expect("is there");
    record.value().to_vec()
}

fn flip(table: &mut redb::Table<'_, u64, &[u8]>, key: u64) {
    let mut record = record(table, key);
    let last = record.len() - 1;
    record[last] ^= 1;
    table.insert(key, record.as_slice()).expect("inserts");
}

fn load_error(directory: &Path) -> StorageError {
    let mut storage = Storage::open(directory, ME).expect("opens");
    storage.load().expect_err("is damaged")
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

/// After a crash, a newest round that the disk damaged must not pass for one
/// that was never finished: it may have been acknowledged.
#[test]
fn a_damaged_newest_round_is_not_taken_for_a_torn_one() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let image = || std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    let before = image();
    append(&mut storage, &entries(10..=12, 2), &hard_state(2, 9)).expect("appends");
    let after = image();
    let written: Vec<usize> = (0..after.len())
        .filter(|at| before.get(*at) != after.get(*at))
        .collect();
    assert!(
        written.len() > 100,
        "the round wrote {} bytes",
        written.len()
    );

    let crashed = tempfile::tempdir().expect("tempdir");
    let mut refused = 0;
    for at in written.iter().step_by(written.len().div_ceil(200)) {
        let mut damaged = after.clone();
        damaged[*at] ^= 0x10;
        std::fs::write(crashed.path().join(FILE_NAME), damaged).expect("writes");
        let loaded = Storage::open(crashed.path(), ME).and_then(|mut storage| storage.load());
        match loaded {
            Err(_) => refused += 1,
            Ok(saved) => {
                let entries = saved.map(|saved| saved.entries).unwrap_or_default();
                let last = entries.last().map(|entry| entry.index);
                assert_eq!(last, Some(12), "byte {at} cost acknowledged entries");
            }
        }
    }
    assert!(refused > 0);
}

/// A disk that changes what it holds between a clean end and the next start.
#[test]
fn whatever_byte_turns_over_is_refused_or_does_not_matter() {
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    let whole = std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refused = 0;
    for at in used.iter().step_by(used.len().div_ceil(400)) {
        let mut damaged = whole.clone();
        damaged[*at] ^= 0x10;
        std::fs::write(directory.path().join(FILE_NAME), damaged).expect("writes");
        let loaded = Storage::open(directory.path(), ME).and_then(|mut storage| storage.load());
        match loaded {
            Err(_) => refused += 1,
            Ok(saved) => {
                let saved = saved.expect("it was founded");
                assert_eq!(saved.entries, entries(2..=9, 2), "byte {at}");
                assert_eq!(saved.hard_state, hard_state(2, 5), "byte {at}");
            }
        }
    }
    assert!(refused > 0);
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

#[test]
fn damage_is_named_and_nothing_is_dropped_for_it() {
    let damages: [(&str, u64, &str); 4] = [
        ("log", 4, "log entry 4"),
        ("meta", 2, "the hard state"),
        ("meta", 3, "the log's base"),
        ("meta", 4, "the snapshot"),
    ];
    for (table, key, what) in damages {
        let directory = tempfile::tempdir().expect("tempdir");
        drop(founded(directory.path()));
        tamper(directory.path(), table, |table| flip(table, key));
        let error = load_error(directory.path());
        let StorageError::Damaged { what: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(found, what);
        assert!(error.to_string().contains(FILE_NAME), "{error}");
    }
}

#[test]
fn a_snapshot_is_whole_or_damaged() {
    for other in [None, Some([1; 9].as_slice())] {
        let directory = tempfile::tempdir().expect("tempdir");
        drop(founded(directory.path()));
        tamper::<(u64, u64)>(directory.path(), "snapshot", |table| {
            match other {
                Some(other) => table.insert((1, 0), other).expect("inserts"),
                None => table.remove((1, 0)).expect("removes"),
            };
        });
        let error = load_error(directory.path());
        let StorageError::Damaged { what, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(what, "the snapshot");
    }
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

#[test]
fn a_damaged_identity_is_not_overwritten() {
    for key in [0, 1] {
        let directory = tempfile::tempdir().expect("tempdir");
        drop(founded(directory.path()));
        tamper(directory.path(), "meta", |table| flip(table, key));
        let error = Storage::open(directory.path(), ME).expect_err("is damaged");
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_missing_entry_is_damage() {
    for (index, what) in [(4, "log entry 5"), (9, "the log")] {
        let directory = tempfile::tempdir().expect("tempdir");
        let mut storage = founded(directory.path());
        append(&mut storage, &[], &hard_state(2, 9)).expect("saves");
        drop(storage);
        tamper::<u64>(directory.path(), "log", |table| {
            table.remove(index).expect("removes");
        });
        let error = load_error(directory.path());
        let StorageError::Damaged { what: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(found, what);
    }
}

#[test]
fn a_record_of_another_place_is_damage() {
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    tamper(directory.path(), "log", |table| {
        let record = record(table, 5);
        table.insert(4, record.as_slice()).expect("inserts");
    });
    assert!(matches!(
        load_error(directory.path()),
        StorageError::Damaged { .. }
    ));
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

/// The database's own flags and counts have no checksum, the slots have one
/// each; see `newest.rs`.
#[test]
fn no_bit_of_the_header_costs_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("tempdir");
    let storage = founded(directory.path());
    let crashed = std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    drop(storage);
    let closed = std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    for (how, whole) in [("crashed", crashed), ("closed", closed)] {
        let mut refused = 0;
        for bit in (0..64 * 8).chain((64 * 8..320 * 8).step_by(7)) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match held(damaged) {
                Err(_) => refused += 1,
                Ok(saved) => {
                    assert_eq!(saved.entries, entries(2..=9, 2), "{how}, bit {bit}");
                    assert_eq!(saved.hard_state, hard_state(2, 5), "{how}, bit {bit}");
                }
            }
        }
        assert!(refused > 0, "{how}");
    }
}

#[test]
fn a_failing_disk_is_an_error_and_not_a_success() {
    let disk = TestDisk::default();
    let mut storage = on(&disk).expect("opens");
    storage
        .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
        .expect("founds");
    disk.set_broken(true);
    for _ in 0..2 {
        let error = append(&mut storage, &entries(2..=2, 2), &hard_state(2, 1))
            .expect_err("nothing was written");
        assert!(matches!(error, StorageError::Write { .. }), "{error}");
        assert!(error.may_pass());
        let words = error.to_string();
        assert!(words.contains("a disk of tests"), "{words}");
        // What the disk said, not that it said something.
        assert!(words.contains("the disk is on fire"), "{words}");
    }
}

/// A kill or a power loss at any moment of a round, whatever of its writes is
/// on the disk then: the round is there as a whole, or not at all.
#[test]
fn a_round_that_was_torn_is_cut_off() {
    let before = TestDisk::default();
    let mut storage = on(&before).expect("opens");
    storage
        .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
        .expect("founds");
    append(&mut storage, &entries(2..=5, 2), &hard_state(2, 4)).expect("appends");
    drop(storage);
    let (mut torn, mut whole) = (0, 0);
    for operations in 0..100 {
        let disk = TestDisk::of(before.bytes());
        let mut storage = on(&disk).expect("opens");
        storage.load().expect("loads");
        disk.break_after(operations);
        // It replaces some entries and adds others.
        let done = append(&mut storage, &entries(4..=9, 3), &hard_state(3, 4));
        let kept: [fn(usize) -> bool; 5] = [
            |_| false,
            |_| true,
            |number| number % 2 == 0,
            |number| number % 2 == 1,
            |number| number % 3 == 0,
        ];
        for is_kept in kept {
            let saved = held(disk.after_power_loss(is_kept)).expect("is not damaged");
            let is_new = saved.hard_state == hard_state(3, 4);
            let mut expected = entries(2..=if is_new { 3 } else { 5 }, 2);
            expected.extend(entries(4..=9, 3).into_iter().filter(|_| is_new));
            assert_eq!(saved.entries, expected, "after {operations} operations");
            assert!(is_new || done.is_err(), "it was acknowledged");
            torn += u32::from(!is_new);
            whole += u32::from(is_new);
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(torn > 10 && whole > 5, "{torn} torn, {whole} whole");
}

#[test]
fn a_file_whose_making_was_broken_off_is_made_anew() {
    for operations in 0..8 {
        let disk = TestDisk::default();
        disk.break_after(operations);
        let error = on(&disk).expect_err("breaks");
        assert!(error.may_pass(), "{error}");
        for left in [disk.bytes(), disk.after_power_loss(|_| false)] {
            let mut storage = on(&TestDisk::of(left)).expect("is made anew");
            assert_eq!(storage.load().expect("loads"), None);
        }
    }
    // What was used is not, however it begins.
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    let mut bytes = std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    bytes[..4096].fill(0);
    let error = held(bytes).expect_err("is damaged");
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
}

#[test]
fn damage_is_told_with_its_place() {
    let directory = tempfile::tempdir().expect("tempdir");
    drop(founded(directory.path()));
    let whole = std::fs::read(directory.path().join(FILE_NAME)).expect("reads");
    let used = (4_096..whole.len()).filter(|at| whole[*at] != 0);
    let mut told = 0;
    for at in used.step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let Err(StorageError::Damaged { what, .. }) = held(damaged) else {
            continue;
        };
        let numbers = what.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<usize> = numbers.filter_map(|it| it.parse().ok()).collect();
        assert!(numbers[0] <= at && at < numbers[1], "{what}, not {at}");
        told += 1;
    }
    assert!(told > 10, "{told} were found");
}

#[test]
fn after_a_failure_the_file_is_opened_anew_and_goes_on() {
    let disk = TestDisk::default();
    let mut storage = on(&disk).expect("opens");
    storage
        .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
        .expect("founds");
    disk.set_broken(true);
    append(&mut storage, &entries(2..=5, 2), &hard_state(2, 1)).expect_err("is broken");
    let error = storage.reopen().expect_err("is still broken");
    assert!(error.may_pass(), "{error}");
    let error = storage.load().expect_err("is closed");
    assert!(error.may_pass(), "{error}");
    disk.set_broken(false);
    storage.reopen().expect("works again");
    let saved = storage.load().expect("loads").expect("was founded");
    assert_eq!(saved.hard_state, hard_state(1, 1));
    append(&mut storage, &entries(2..=5, 2), &hard_state(2, 1)).expect("goes on");
    storage.reopen().expect("opens anew without a failure too");
    let saved = storage.load().expect("loads").expect("was founded");
    assert_eq!(saved.entries, entries(2..=5, 2));
}

#[test]
fn another_disk_is_not_taken_for_the_one_that_failed() {
    let others = [
        Identity { disk_id: 9, ..ME },
        Identity {
            replica_id: 2,
            ..ME
        },
        Identity {
            cluster_id: 8,
            ..ME
        },
    ];
    for other in others {
        let name = Path::new("one after the other");
        let theirs = TestDisk::default();
        drop(Storage::open_with_backend(name, theirs.clone(), other).expect("opens"));
        let mut disks = vec![theirs, TestDisk::default()];
        let next = move || disks.pop().ok_or_else(|| std::io::Error::other("no more"));
        let mut storage = Storage::open_on_disks(name, next, ME).expect("opens");
        storage
            .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
            .expect("founds");
        let error = storage.reopen().expect_err("is another's");
        assert!(
            matches!(error, StorageError::OtherIdentity { .. }),
            "{error}"
        );
        assert!(!error.may_pass());
    }
}

#[test]
fn a_file_that_is_gone_is_not_made_anew() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut storage = founded(directory.path());
    let path = directory.path().join(FILE_NAME);
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).expect("renames");
    let error = storage.reopen().expect_err("is not there");
    assert!(matches!(error, StorageError::Open { .. }), "{error}");
    assert!(!path.exists());
    std::fs::rename(&elsewhere, &path).expect("renames");
    storage.reopen().expect("is there again");
    let saved = storage.load().expect("loads").expect("was founded");
    assert_eq!(saved.entries, entries(2..=9, 2));
}

/// Fills the disk up, entry by entry; the last index that was written.
fn fill(storage: &mut Storage, from: u64) -> u64 {
    for index in from.. {
        let entry = Entry {
            data: vec![1; 2_000].into(),
            ..entry(index, 2)
        };
        match append(storage, &[entry], &hard_state(2, index - 1)) {
            Ok(()) => {}
            Err(StorageError::Write { reason, .. }) => {
                assert!(reason.contains("no storage space"), "{reason}");
                return index - 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("the disk is finite")
}

#[test]
fn a_full_disk_loses_nothing_and_a_little_room_is_enough() {
    let disk = TestDisk::default();
    let mut storage = on(&disk).expect("opens");
    storage
        .found(7, &snapshot(1, 1, 10), &hard_state(1, 1))
        .expect("founds");
    let mut last = 1;
    for room in [0, 1, 7, 50, 300, 700] {
        disk.leave_room_for(room);
        last = fill(&mut storage, last + 1);
        // Without any room the file opens and gives back all it took.
        disk.leave_room_for(0);
        storage.reopen().expect("opens on a full disk");
        let saved = storage.load().expect("loads").expect("was founded");
        let found = saved.entries.last().map_or(1, |entry| entry.index);
        assert_eq!(found, last, "with room for {room}");
    }
    // And writes again as soon as there is room for what it must write.
    let mut enough = None;
    for room in 1..=64 {
        disk.leave_room_for(room);
        storage.reopen().expect("opens");
        if append(&mut storage, &[entry(last + 1, 2)], &hard_state(2, last)).is_ok() {
            enough = Some(room);
            break;
        }
    }
    assert!(enough.is_some_and(|blocks| blocks <= 16), "{enough:?}");
}

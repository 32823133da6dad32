//! What a disk holds and did not get: refused, with its place, or of no account.

use super::*;

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

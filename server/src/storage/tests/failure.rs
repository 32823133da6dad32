//! A disk that fails, fills up, or dies in the middle of a write.

use super::*;

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
        assert!(matches!(error, StorageError::Replaced { .. }), "{error}");
        // The operator can tell the two apart.
        let said = error.to_string();
        let (was, is) = said.split_once(", and is").expect("both are named");
        assert_ne!(
            was.split_once("that of").map(|it| it.1),
            is.split_once("that of").map(|it| it.1)
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

//! Finding the newest commit of a file even if the bit that names it has turned over.
//!
//! redb keeps the roots of its last two commits in two slots at the beginning
//! of the file, each with a checksum, and one bit that says which of them is
//! in force. That bit has none. If it turns over, the database opens the
//! commit before the newest without a word, and what was acknowledged last is
//! gone. But each slot carries the number of its transaction: a slot that is
//! whole and newer than the one in force is either such a loss, or a commit
//! that a crash ended between its two phases. In both cases the database is
//! told that it must find out by itself, as it does after a commit in one
//! phase: it takes the newer commit if every page of it passes its checksum,
//! and goes back to the older one otherwise. A commit that was whole and not
//! yet in force was never acknowledged, and may as well be.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

/// Where the two slots are; see redb's design document, "Database file
/// format".
const SLOTS: [Range<usize>; 2] = [64..192, 192..320];
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// The byte of flags, behind the magic number.
const FLAGS: usize = 9;
const IN_FORCE: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASES: u8 = 4;
/// Within a slot.
const TRANSACTION: Range<usize> = 104..112;
const CHECKSUM: Range<usize> = 112..128;

/// Has the database look for the newest commit by itself, if these first
/// bytes of its file name an older one. Other bytes are left alone.
pub(super) fn doubt_the_older(header: &mut [u8]) {
    if !header.starts_with(MAGIC) {
        return;
    }
    let [first, second] = SLOTS.map(|slot| header.get(slot).and_then(transaction));
    let Some(flags) = header.get_mut(FLAGS) else {
        return;
    };
    let (in_force, other) = match *flags & IN_FORCE {
        0 => (first, second),
        _ => (second, first),
    };
    let is_older = matches!((in_force, other), (Some(in_force), Some(other)) if other > in_force);
    if is_older && *flags & TWO_PHASES != 0 {
        *flags = (*flags & !TWO_PHASES) | RECOVERY_REQUIRED;
    }
}

/// The number of a slot's transaction, if the slot is whole.
fn transaction(slot: &[u8]) -> Option<u64> {
    let stored = slot.get(CHECKSUM)?.try_into().ok()?;
    let computed = xxh3_128(slot.get(..CHECKSUM.start)?);
    if u128::from_le_bytes(stored) != computed {
        return None;
    }
    let number = slot.get(TRANSACTION)?.try_into().ok()?;
    Some(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u64) -> [u8; 128] {
        let mut slot = [7; 128];
        slot[TRANSACTION].copy_from_slice(&number.to_le_bytes());
        let checksum = xxh3_128(&slot[..CHECKSUM.start]);
        slot[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    fn header(flags: u8, slots: [u64; 2]) -> Vec<u8> {
        let mut header = vec![0; 320];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[FLAGS] = flags;
        for (place, number) in SLOTS.into_iter().zip(slots) {
            header[place].copy_from_slice(&slot(number));
        }
        header
    }

    fn doubted(mut header: Vec<u8>) -> u8 {
        doubt_the_older(&mut header);
        header[FLAGS]
    }

    #[test]
    fn a_header_is_doubted_only_when_the_other_slot_is_whole_and_newer() {
        for recovery in [0, RECOVERY_REQUIRED] {
            let flags = TWO_PHASES | recovery;
            assert_eq!(doubted(header(flags, [6, 5])), flags);
            assert_eq!(doubted(header(flags | IN_FORCE, [5, 6])), flags | IN_FORCE);
            assert_eq!(doubted(header(flags, [5, 6])), RECOVERY_REQUIRED);
            let wrong = header(flags | IN_FORCE, [6, 5]);
            assert_eq!(doubted(wrong), RECOVERY_REQUIRED | IN_FORCE);
        }
        for damaged in [100, 230] {
            let mut header = header(TWO_PHASES, [5, 6]);
            header[damaged] ^= 1;
            assert_eq!(doubted(header), TWO_PHASES, "byte {damaged}");
        }
    }

    #[test]
    fn what_is_no_header_is_left_alone() {
        for mut bytes in [vec![], vec![0; 320], MAGIC.to_vec()] {
            let before = bytes.clone();
            doubt_the_older(&mut bytes);
            assert_eq!(bytes, before);
        }
    }
}

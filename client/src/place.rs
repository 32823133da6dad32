//! A place in a repeating order, moved on by many threads at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far around the order is: 2^64 is once around, whatever its length.
///
/// One word that all threads add to. Each thread with a place of its own would
/// spare them the contention, but keep the order per thread only; nothing
/// that keeps one order per process is cheaper than this.
#[derive(Debug)]
pub(crate) struct Place {
    around: Alone,
    /// What one slot adds: 2^64 divided by the number of slots.
    step: u64,
    slots: u64,
}

/// A word that nothing shares cache lines with (two, as processors fetch them
/// in pairs): a thread that only reads what is next to it would have to ask for
/// the line, and once more to write the word.
#[derive(Debug)]
#[repr(align(128))]
struct Alone(AtomicU64);

impl Place {
    /// Before the first of so many slots.
    pub(crate) fn first(slots: usize) -> Self {
        Self::at(0, slots)
    }

    /// In an order of so many slots, as far around as another order was.
    pub(crate) fn like(other: &Self, slots: usize) -> Self {
        Self::at(other.around.0.load(Ordering::Relaxed), slots)
    }

    /// Anywhere.
    pub(crate) fn at(around: u64, slots: usize) -> Self {
        let slots = (slots as u64).max(1);
        let step = u64::MAX / slots;
        let slot = slot_at(around, slots) as u64;
        Self {
            // In the middle of a slot: a step is a part of 2^64 too short, and
            // it takes 10^14 of them until that is half a slot.
            around: Alone(AtomicU64::new(slot * step + step / 2)),
            step,
            slots,
        }
    }

    /// Takes the next slot.
    #[inline]
    pub(crate) fn next(&self) -> usize {
        let around = self.around.0.fetch_add(self.step, Ordering::Relaxed);
        slot_at(around, self.slots)
    }
}

/// Without a division, which would take longer than all the rest.
#[inline]
fn slot_at(around: u64, slots: u64) -> usize {
    ((u128::from(around) * u128::from(slots)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn nothing_that_is_read_lies_beside_what_is_written() {
        let lines = align_of::<Alone>();
        let written = offset_of!(Place, around) / lines;
        for read in [offset_of!(Place, step), offset_of!(Place, slots)] {
            assert_ne!(read / lines, written);
        }
        assert!(lines >= 128 && size_of::<Place>().is_multiple_of(lines));
    }

    #[test]
    fn slots_are_taken_in_order_for_ever() {
        for slots in [1, 2, 3, 7, 100, 9_999, 10_000, 65_537] {
            let place = Place::first(slots);
            for call in 0..slots * 5 {
                assert_eq!(place.next(), call % slots);
            }
        }
    }

    #[test]
    fn another_length_goes_on_where_it_was() {
        let place = Place::first(100);
        for _ in 0..50 {
            place.next();
        }
        let longer = Place::like(&place, 110);
        assert_eq!(longer.next(), 55);
        assert_eq!(longer.next(), 56);
    }
}

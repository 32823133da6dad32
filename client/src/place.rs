//! A place in a repeating order, moved on by many threads at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far around the order is: 2^64 is once around, whatever its length.
///
/// One word that all threads add to. Each thread with a place of its own would
/// spare them the contention, but keep the order per thread only; nothing
/// that keeps one order per process is cheaper than this.
///
/// Alone on its cache lines (two, as processors fetch them in pairs), so that
/// what is next to it does not suffer.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Place {
    around: AtomicU64,
    /// What one slot adds: 2^64 divided by the number of slots.
    step: u64,
    slots: u64,
}

impl Place {
    /// Before the first of so many slots.
    pub(crate) fn first(slots: usize) -> Self {
        Self::at(0, slots)
    }

    /// In an order of so many slots, as far around as another order was.
    pub(crate) fn like(other: &Self, slots: usize) -> Self {
        Self::at(other.around.load(Ordering::Relaxed), slots)
    }

    /// Anywhere.
    pub(crate) fn at(around: u64, slots: usize) -> Self {
        let slots = (slots as u64).max(1);
        let step = u64::MAX / slots;
        let slot = slot_at(around, slots) as u64;
        Self {
            // In the middle of a slot: a step is a part of 2^64 too short, and
            // it takes 10^14 of them until that is half a slot.
            around: AtomicU64::new(slot * step + step / 2),
            step,
            slots,
        }
    }

    /// Takes the next slot.
    #[inline]
    pub(crate) fn next(&self) -> usize {
        let around = self.around.fetch_add(self.step, Ordering::Relaxed);
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
    use super::*;

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

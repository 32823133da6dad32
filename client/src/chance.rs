//! Each thread's own generator, for choices that need to be quick rather than secret.

use std::cell::Cell;
use std::convert::Infallible;

use rand::{Rng, TryRng};

thread_local! {
    /// 0 until the system has seeded it.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014): one word of state, and good
/// enough to choose among instances.
#[derive(Debug)]
pub(crate) struct Generator(u64);

/// Lends the thread's generator, seeded by the system at its first use.
#[inline]
pub(crate) fn with<T>(draw: impl FnOnce(&mut Generator) -> T) -> T {
    STATE.with(|state| {
        let mut generator = Generator(match state.get() {
            0 => rand::rng().next_u64(),
            known => known,
        });
        let drawn = draw(&mut generator);
        state.set(generator.0);
        drawn
    })
}

/// The output function of SplitMix64: spreads what is in a number over all its
/// bits.
#[inline]
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl TryRng for Generator {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    #[inline]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Ok(mixed(self.0))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(size_of::<u64>()) {
            let drawn = self.next_u64().to_le_bytes();
            part.copy_from_slice(&drawn[..part.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_were_published() {
        let mut generator = Generator(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| generator.next_u64()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn each_thread_goes_on_where_it_was() {
        let first = with(|generator| generator.next_u64());
        let second = with(|generator| generator.next_u64());
        assert_ne!(first, second);
    }
}

//! All chance of a run: one generator, one seed, the same on every machine.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// Draws what a run leaves to chance.
#[derive(Debug)]
pub(crate) struct Chance(Xoshiro256PlusPlus);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in so many of a thousand draws.
    pub(crate) fn per_mille(&mut self, of_a_thousand: u64) -> bool {
        self.between(0, 999) < of_a_thousand
    }

    /// An index below `count`, which is not 0.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        self.between(0, count as u64 - 1) as usize
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// For whoever draws himself.
    pub(crate) fn generator(&mut self) -> &mut impl Rng {
        &mut self.0
    }
}

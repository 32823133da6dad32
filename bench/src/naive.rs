//! The choice that first comes to mind: at random, by weight, knowing no load.

use rand::RngExt;

/// A group's weight divided among its instances, added up, and searched.
#[derive(Debug)]
pub struct Naive {
    /// Where each instance's part ends.
    ends: Vec<u64>,
}

impl Naive {
    /// Of groups with these weights and numbers of instances.
    pub fn new(groups: &[(u32, usize)]) -> Self {
        /// Parts of a basis point, so that no instance's part is 0.
        const PARTS: u64 = 1_000_000;
        let mut end = 0;
        let mut ends = Vec::new();
        for (weight, instances) in groups {
            for _ in 0..*instances {
                end += u64::from(*weight) * PARTS / *instances as u64;
                ends.push(end);
            }
        }
        Self { ends }
    }

    /// The position of an instance. There must be one.
    pub fn pick(&self) -> usize {
        let whole = self.ends.last().copied().unwrap_or(1);
        let at = rand::rng().random_range(0..whole);
        self.ends.partition_point(|end| *end <= at)
    }
}

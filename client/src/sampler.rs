//! Draws one of many by weight, in constant time.

use rand::{Rng, RngExt};

/// Draws positions by weight in constant time: the alias method (M. D. Vose,
/// "A linear algorithm for generating random numbers with a given
/// distribution", IEEE Transactions on Software Engineering 17, 1991), in
/// whole numbers.
#[derive(Debug)]
pub(crate) enum Sampler {
    Even(usize),
    Aliases {
        average: u64,
        columns: Box<[Column]>,
    },
}

/// A column holds `own` of its own position; the rest, up to the average, is
/// the alias's.
#[derive(Debug)]
pub(crate) struct Column {
    own: u64,
    alias: usize,
}

impl Sampler {
    pub(crate) fn new(weights: Vec<u32>) -> Self {
        let count = weights.len();
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self::Even(count);
        }
        // Scaled by the count, so that the average is whole.
        let average: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut columns: Box<[Column]> = weights
            .iter()
            .enumerate()
            .map(|(position, weight)| Column {
                own: u64::from(*weight) * count as u64,
                alias: position,
            })
            .collect();
        let is_small = |position: &usize| u64::from(weights[*position]) * (count as u64) < average;
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(is_small);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            columns[poor].alias = rich;
            columns[rich].own -= average - columns[poor].own;
            if columns[rich].own < average {
                small.push(rich);
            } else {
                large.push(rich);
            }
        }
        Self::Aliases { average, columns }
    }

    /// `None` when there is nothing to draw from.
    pub(crate) fn sample(&self, rng: &mut impl Rng) -> Option<usize> {
        match self {
            Self::Even(0) => None,
            Self::Even(1) => Some(0),
            Self::Even(count) => Some(rng.random_range(0..*count)),
            Self::Aliases { average, columns } => {
                let position = rng.random_range(0..columns.len());
                let column = &columns[position];
                let own = rng.random_range(0..*average) < column.own;
                Some(if own { position } else { column.alias })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn the_alias_table_draws_by_weight() {
        let sampler = Sampler::new(vec![1, 7, 2, 0, 90]);
        let mut rng = SmallRng::seed_from_u64(11);
        let mut counts = [0_u32; 5];
        for _ in 0..100_000 {
            counts[sampler.sample(&mut rng).unwrap()] += 1;
        }
        assert_eq!(counts[3], 0);
        for (count, weight) in counts.iter().zip([1, 7, 2, 0, 90]) {
            assert!(count.abs_diff(weight * 1_000) < 500, "{counts:?}");
        }
    }
}

//! Which group each bucket belongs to, when calls are sticky.

use crate::sticky::{BUCKETS, Bucket};

/// Intervals of buckets in the order of the groups' names.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// Where an interval ends, exclusive, and whose it is: a position among
    /// the groups that carry calls.
    intervals: Box<[(u16, u8)]>,
}

impl Buckets {
    /// Of groups with these shares, in the order of their names; for each its
    /// position among those that carry calls, if it is one of them.
    ///
    /// The interval of a group that cannot carry its calls is divided among
    /// those that can, in proportion: the buckets of all others stay.
    pub(crate) fn new(shares: &[(u32, Option<usize>)]) -> Self {
        let carrying: Vec<(u32, usize)> = shares
            .iter()
            .filter_map(|(share, position)| Some((*share, (*position)?)))
            .collect();
        let mut intervals = Vec::new();
        let ends = ends(0, BUCKETS, shares.iter().map(|(share, _)| *share));
        let mut begin = 0;
        for (end, (_, position)) in ends.into_iter().zip(shares) {
            match position {
                Some(position) => intervals.push((end, *position as u8)),
                None => {
                    let parts = self::ends(begin, end, carrying.iter().map(|(share, _)| *share));
                    let parts = parts.into_iter().zip(&carrying);
                    intervals.extend(parts.map(|(end, (_, position))| (end, *position as u8)));
                }
            }
            begin = end;
        }
        Self {
            intervals: intervals.into(),
        }
    }

    /// The position among the groups that carry calls. `None` when none does.
    pub(crate) fn group_of(&self, bucket: Bucket) -> Option<usize> {
        let interval = self
            .intervals
            .partition_point(|(end, _)| *end <= bucket.number());
        let (_, position) = self.intervals.get(interval)?;
        Some(usize::from(*position))
    }
}

/// Where the parts of `begin..end` end that have these shares of it.
fn ends(begin: u16, end: u16, shares: impl Iterator<Item = u32> + Clone) -> Vec<u16> {
    let whole: u64 = shares.clone().map(u64::from).sum();
    let mut so_far = 0;
    shares
        .map(|share| {
            so_far += u64::from(share);
            begin + (u64::from(end - begin) * so_far / whole.max(1)) as u16
        })
        .collect()
}

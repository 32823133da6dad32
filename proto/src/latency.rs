//! Latencies as callers report them: counts in buckets whose bounds both sides know.
//!
//! Bucket 0 counts what took less than 100 µs; each bucket reaches half as far
//! again as the one before; the last one counts everything else, from
//! [`BOUNDS_US`]'s last bound on, which is 19 seconds. So a quantile read off
//! the counts is wrong by less than half of its value, at the cost of at most
//! [`BUCKETS`] small numbers a group and report.

use std::time::Duration;

/// How many counts there are at most.
pub const BUCKETS: usize = 32;

/// Where each bucket but the last ends, in microseconds; what takes exactly
/// as long belongs to the next one.
pub const BOUNDS_US: [u64; BUCKETS - 1] = bounds();

const fn bounds() -> [u64; BUCKETS - 1] {
    let mut bounds = [100; BUCKETS - 1];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 3 / 2;
        at += 1;
    }
    bounds
}

/// The bucket that a call of this latency is counted in: less than
/// [`BUCKETS`].
pub fn bucket(latency: Duration) -> usize {
    let micros = latency.as_micros();
    BOUNDS_US.partition_point(|bound| u128::from(*bound) <= micros)
}

/// Counts of calls by latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies([u32; BUCKETS]);

/// More counts than there are buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBuckets(
    /// How many counts there are.
    pub usize,
);

impl Latencies {
    /// What was reported: the counts of the first buckets, those that are not
    /// there being 0.
    ///
    /// # Errors
    /// More than [`BUCKETS`] counts.
    pub fn from_counts(counts: &[u32]) -> Result<Self, TooManyBuckets> {
        let mut all = [0; BUCKETS];
        match all.get_mut(..counts.len()) {
            Some(first) => first.copy_from_slice(counts),
            None => return Err(TooManyBuckets(counts.len())),
        }
        Ok(Self(all))
    }

    /// The counts to report: up to the last that is not 0.
    pub fn to_counts(&self) -> Vec<u32> {
        let used = self.0.iter().rposition(|count| *count > 0);
        self.0[..used.map_or(0, |last| last + 1)].to_vec()
    }

    /// Counts one call.
    pub fn count(&mut self, latency: Duration) {
        let count = &mut self.0[bucket(latency)];
        *count = count.saturating_add(1);
    }

    /// Adds the counts of others.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count = count.saturating_add(*more);
        }
    }

    /// How many calls are counted.
    pub fn calls(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The latency that a share of the calls (0 to 1) stayed within, as if
    /// the calls of a bucket lay evenly between its bounds. Of the last bucket
    /// only where it begins is known. `None` when there are no calls.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let calls = self.calls();
        if calls == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * calls as f64;
        let mut below = 0.0;
        for (at, count) in self.0.iter().enumerate() {
            let count = f64::from(*count);
            let Some(end) = BOUNDS_US.get(at) else {
                break;
            };
            if count > 0.0 && below + count >= rank {
                let start = at.checked_sub(1).map_or(0, |before| BOUNDS_US[before]);
                let within = (rank - below) / count * (end - start) as f64;
                return Some(Duration::from_micros(start + within as u64));
            }
            below += count;
        }
        BOUNDS_US.last().copied().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn every_latency_has_a_bucket_and_the_bounds_are_as_documented() {
        assert_eq!(BOUNDS_US[..4], [100, 150, 225, 337]);
        assert_eq!(BOUNDS_US[BUCKETS - 2] / 1_000_000, 19);
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_micros(99)), 0);
        assert_eq!(bucket(Duration::from_micros(100)), 1);
        assert_eq!(bucket(ms(30_000)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        for (at, bound) in BOUNDS_US.iter().enumerate() {
            assert_eq!(bucket(Duration::from_micros(bound - 1)), at);
            assert_eq!(bucket(Duration::from_micros(*bound)), at + 1);
        }
    }

    #[test]
    fn quantiles_are_within_half_of_the_truth() {
        let mut latencies = Latencies::default();
        let truth: Vec<Duration> = (1..=1_000).map(ms).collect();
        truth.iter().for_each(|latency| latencies.count(*latency));
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let exact = truth[((share * 1_000.0) as usize).max(1) - 1].as_secs_f64();
            let read = latencies.quantile(share).unwrap().as_secs_f64();
            assert!((read / exact - 1.0).abs() < 0.5, "{share}: {read} {exact}");
        }
    }

    #[test]
    fn nothing_has_no_quantile_and_the_endless_is_where_the_last_begins() {
        assert_eq!(Latencies::default().quantile(0.5), None);
        let mut slow = Latencies::default();
        slow.count(ms(60_000));
        let last = Duration::from_micros(BOUNDS_US[BUCKETS - 2]);
        assert_eq!(slow.quantile(0.5), Some(last));
        assert_eq!(slow.quantile(f64::NAN), Some(last));
    }

    #[test]
    fn counts_travel_without_the_zeros_behind_them() {
        let mut latencies = Latencies::default();
        assert!(latencies.to_counts().is_empty());
        latencies.count(Duration::from_micros(160));
        assert_eq!(latencies.to_counts(), [0, 0, 1]);
        let read = Latencies::from_counts(&[0, 0, 1]).unwrap();
        assert_eq!(read, latencies);
        latencies.add(&read);
        assert_eq!(latencies.calls(), 2);
        let counts = vec![u32::MAX; BUCKETS];
        latencies.add(&Latencies::from_counts(&counts).unwrap());
        assert_eq!(latencies.to_counts(), counts);
        let more = vec![0; BUCKETS + 1];
        assert_eq!(Latencies::from_counts(&more), Err(TooManyBuckets(33)));
    }
}

//! How long an instance takes to answer: a mean that believes bad news at once, and forgets with time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What was seen this long ago counts half. It is Finagle's decay time of ten
/// seconds, told as a half-life: 10 s times ln 2.
const HALF_LIFE_MS: f32 = 6_931.0;

/// Nobody is taken for more than so many times as slow as another: three
/// half-lives later it is tried again, however slow it was.
const SLOWER_MAX: f32 = 8.0;

/// A time, in milliseconds from an origin that all who compare it share. It
/// begins anew after 49 days, so only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u32);

/// The peak-EWMA estimate of an instance's latency, in one word that is read
/// and written without a lock.
///
/// A value above the estimate replaces it; one below is averaged in, with a
/// weight by the time since the last. The estimate halves with every
/// half-life in which nothing is seen, so that an instance that was slow is
/// tried again. From Twitter's Finagle (`com.twitter.finagle.loadbalancer.
/// p2c` with `PeakEwma`), as tower (`tower::load::PeakEwma`) and Linkerd do.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Above: the [`Moment`] of the last value. Below: nanoseconds as `f32`,
    /// 0 while nothing is known.
    word: AtomicU64,
}

/// An estimate as it was when the last value came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    seen: Moment,
    /// 0 while nothing is known.
    nanoseconds: f32,
    /// Nobody waits for an answer. While somebody does, time makes nothing
    /// better.
    is_idle: bool,
}

// === impl Moment ===

impl Moment {
    #[inline]
    pub(crate) fn new(now: Instant, origin: Instant) -> Self {
        Self(0).after(now.saturating_duration_since(origin))
    }

    /// So much later.
    #[inline]
    pub(crate) fn after(self, time: Duration) -> Self {
        let seconds = (time.as_secs() as u32).wrapping_mul(1_000);
        let moment = self.0.wrapping_add(seconds);
        Self(moment.wrapping_add(time.subsec_millis()))
    }

    /// Zero where `earlier` is later: two calls may end in either order.
    #[inline]
    fn milliseconds_since(self, earlier: Self) -> u32 {
        let since = self.0.wrapping_sub(earlier.0);
        if since > u32::MAX / 2 { 0 } else { since }
    }
}

// === impl Latency ===

impl Latency {
    #[inline]
    pub(crate) fn read(&self, is_idle: bool) -> Estimate {
        let (seen, nanoseconds) = unpack(self.word.load(Ordering::Relaxed));
        Estimate {
            seen,
            nanoseconds,
            is_idle,
        }
    }

    /// Nanoseconds, as of `now`; 0 while nothing is known.
    #[inline]
    pub(crate) fn nanoseconds(&self, now: Moment) -> f32 {
        let (seen, nanoseconds) = unpack(self.word.load(Ordering::Relaxed));
        nanoseconds * kept_after(now.milliseconds_since(seen))
    }

    /// Nanoseconds, as of when the last value came; 0 while nothing is known.
    pub(crate) fn unfaded(&self) -> f32 {
        let (_, nanoseconds) = unpack(self.word.load(Ordering::Relaxed));
        nanoseconds
    }

    /// An answer took so long.
    pub(crate) fn answered(&self, now: Moment, latency: Duration) {
        let latency = nanoseconds_of(latency);
        self.update(now, |estimate, kept| {
            if latency >= estimate {
                latency
            } else {
                estimate * kept + latency * (1.0 - kept)
            }
        });
    }

    /// A call failed after so long. It makes the estimate worse or keeps it:
    /// an instance that refuses at once is not a fast one.
    pub(crate) fn failed(&self, now: Moment, after: Duration) {
        let after = nanoseconds_of(after);
        self.update(now, |estimate, _| estimate.max(after));
    }

    /// A call was waited for so long, and would have taken longer.
    pub(crate) fn waited_for(&self, now: Moment, time: Duration) {
        let time = nanoseconds_of(time);
        self.update(now, |estimate, kept| (estimate * kept).max(time));
    }

    /// What is behind the address may be another process.
    pub(crate) fn forget(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    /// `change` is given the estimate and how much of it time has left.
    fn update(&self, now: Moment, change: impl Fn(f32, f32) -> f32) {
        let mut word = self.word.load(Ordering::Relaxed);
        // Nothing else hangs on it, and a value lost to others that came at
        // the same moment is no loss.
        for _ in 0..UPDATE_ATTEMPTS {
            let (seen, estimate) = unpack(word);
            let kept = kept_after(now.milliseconds_since(seen));
            let next = pack(now, change(estimate, kept));
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }
}

// === impl Estimate ===

impl Estimate {
    /// Both in nanoseconds, as of one time. `None` unless both are known.
    ///
    /// How two estimates that halve with time compare is the same at any time:
    /// so no clock is read, and time is taken to stand at the later value.
    #[inline]
    pub(crate) fn compared(self, other: Self) -> Option<(f32, f32)> {
        if self.nanoseconds == 0.0 || other.nanoseconds == 0.0 {
            return None;
        }
        Some((self.faded(other), other.faded(self)))
    }

    #[inline]
    fn faded(self, other: Self) -> f32 {
        let nanoseconds = self.nanoseconds.min(other.nanoseconds * SLOWER_MAX);
        if !self.is_idle {
            return nanoseconds;
        }
        nanoseconds * kept_after(other.seen.milliseconds_since(self.seen))
    }
}

/// Before an update gives way to those that came between.
const UPDATE_ATTEMPTS: u32 = 4;

/// A known latency is never 0, which stands for none.
fn nanoseconds_of(latency: Duration) -> f32 {
    (latency.as_secs_f32() * 1e9).max(1.0)
}

fn pack(seen: Moment, nanoseconds: f32) -> u64 {
    u64::from(seen.0) << 32 | u64::from(nanoseconds.to_bits())
}

#[inline]
fn unpack(word: u64) -> (Moment, f32) {
    (Moment((word >> 32) as u32), f32::from_bits(word as u32))
}

/// The half-life's power of two, a straight line between whole half-lives: at
/// most 6 % above the exact one, and a few instructions.
#[inline]
fn kept_after(milliseconds: u32) -> f32 {
    let half_lives = milliseconds as f32 * (1.0 / HALF_LIFE_MS);
    let whole = half_lives as u32;
    if whole >= f32::MAX_EXP as u32 - 2 {
        return 0.0;
    }
    let rest = half_lives - whole as f32;
    // The exponent of 2 to the power of minus `whole`.
    let power = f32::from_bits((f32::MAX_EXP as u32 - 1 - whole) << (f32::MANTISSA_DIGITS - 1));
    power * (1.0 - rest * 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn at(milliseconds: u32) -> Moment {
        Moment(milliseconds)
    }

    fn estimate_ms(latency: &Latency, now: u32) -> f32 {
        latency.nanoseconds(at(now)) / 1e6
    }

    #[test]
    fn bad_news_counts_at_once_and_good_news_with_time() {
        let latency = Latency::default();
        assert_eq!(latency.nanoseconds(at(0)), 0.0);
        latency.answered(at(0), ms(10));
        assert!((estimate_ms(&latency, 0) - 10.0).abs() < 0.01);
        latency.answered(at(1), ms(200));
        assert!((estimate_ms(&latency, 1) - 200.0).abs() < 0.1);
        // A hundred good answers within a moment weigh little.
        for _ in 0..100 {
            latency.answered(at(2), ms(10));
        }
        assert!(estimate_ms(&latency, 2) > 190.0);
        // Over half-lives they win.
        for second in 1..60 {
            latency.answered(at(second * 1_000), ms(10));
        }
        assert!(estimate_ms(&latency, 60_000) < 12.0);
    }

    #[test]
    fn what_is_not_called_is_forgotten_by_halves() {
        let latency = Latency::default();
        latency.answered(at(0), ms(100));
        assert!((estimate_ms(&latency, 6_931) - 50.0).abs() < 0.1);
        assert!((estimate_ms(&latency, 2 * 6_931) - 25.0).abs() < 0.1);
        assert_eq!(estimate_ms(&latency, u32::MAX / 2), 0.0);
        let mut before = f32::MAX;
        for now in (0..200_000).step_by(97) {
            let estimate = estimate_ms(&latency, now);
            let exact = 100.0 * (-(now as f32) / HALF_LIFE_MS).exp2();
            assert!(estimate <= before, "at {now}");
            assert!(
                estimate >= exact * 0.999 && estimate <= exact * 1.07,
                "at {now}"
            );
            before = estimate;
        }
    }

    #[test]
    fn an_instance_that_fails_fast_is_not_a_fast_one() {
        let latency = Latency::default();
        latency.answered(at(0), ms(50));
        for _ in 0..1_000 {
            latency.failed(at(10), Duration::ZERO);
        }
        assert!(estimate_ms(&latency, 10) >= 50.0);
        latency.failed(at(11), ms(300));
        assert!(estimate_ms(&latency, 11) >= 299.0);
        // Who gives up early has learnt nothing.
        latency.waited_for(at(6_942), ms(1));
        assert!((estimate_ms(&latency, 6_942) - 150.0).abs() < 1.0);
    }

    #[test]
    fn the_older_of_two_estimates_has_faded() {
        let (old, new) = (Latency::default(), Latency::default());
        let compared = |a: &Latency, b: &Latency| a.read(true).compared(b.read(true));
        assert!(compared(&old, &new).is_none());
        old.answered(at(0), ms(100));
        assert!(compared(&old, &new).is_none());
        new.answered(at(6_931), ms(70));
        let (faded, fresh) = compared(&old, &new).unwrap();
        assert!((faded / 1e6 - 50.0).abs() < 0.1 && (fresh / 1e6 - 70.0).abs() < 0.1);
        let (fresh, faded) = compared(&new, &old).unwrap();
        assert!((faded / 1e6 - 50.0).abs() < 0.1 && (fresh / 1e6 - 70.0).abs() < 0.1);
        // One that was very slow is tried again before long.
        let slow = Latency::default();
        slow.answered(at(6_931), Duration::from_secs(60));
        new.answered(at(6_931 * 4), ms(70));
        let (faded, fresh) = compared(&slow, &new).unwrap();
        assert!(faded <= fresh * 1.01, "{faded} {fresh}");
        // One that hangs is not forgiven for it.
        let (hung, _) = old.read(false).compared(new.read(true)).unwrap();
        assert!((hung / 1e6 - 100.0).abs() < 0.1);
    }

    #[test]
    fn time_may_begin_anew_and_calls_end_in_any_order() {
        let latency = Latency::default();
        latency.answered(Moment(u32::MAX - 10), ms(80));
        let later = Moment(u32::MAX - 10).after(ms(6_931));
        assert!((latency.nanoseconds(later) / 1e6 - 40.0).abs() < 0.1);
        assert!((latency.nanoseconds(Moment(u32::MAX - 50)) / 1e6 - 80.0).abs() < 0.1);
        assert_eq!(Moment(5).after(Duration::from_secs(1 << 40)), {
            Moment(5).after(Duration::from_secs((1 << 40) % (1 << 32)))
        });
    }
}

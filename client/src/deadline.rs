//! How much time a call has, from whoever limits it, and how an instance is told.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderValue;
use tokio::time::Instant;

/// Where gRPC says how long a call may take.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// What gRPC allows in front of the unit.
const DIGITS_MAX: usize = 8;
const AMOUNT_MAX: u128 = 99_999_999;

/// A call that has used less than this of its time when it is sent keeps the
/// header that the caller wrote.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Timers here and at an instance end the same time not quite together.
const CLOCKS_APART: Duration = Duration::from_millis(10);

/// Later than any call ends.
const DECADES: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// Put into the extensions of a request, it ends the call at that moment, as
/// the header `grpc-timeout` does; the earlier one counts.
///
/// It carries a deadline on: take it from the request that is being answered
/// and put it into those made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Instant);

/// When a call ends and who is to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// From when the call was made.
    pub(crate) after: Duration,
    pub(crate) end: Instant,
    /// The header says so already.
    written: bool,
    begun: Instant,
}

// === impl Deadline ===

impl Deadline {
    /// So long from now.
    pub fn after(time: Duration) -> Self {
        Self(later(Instant::now(), time))
    }

    /// That of a request as it arrives, by its header `grpc-timeout`.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        grpc_timeout(headers).map(Self::after)
    }

    /// The time that is left.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

// === impl Limit ===

impl Limit {
    /// The earliest of what the header and the request's extensions say and
    /// what the balancer's builder said.
    pub(crate) fn of(
        headers: &HeaderMap,
        deadline: Option<&Deadline>,
        timeout: Option<Duration>,
    ) -> Option<Self> {
        let written = grpc_timeout(headers);
        if written.or(timeout).is_none() && deadline.is_none() {
            return None;
        }
        let now = Instant::now();
        let others = deadline
            .map(|deadline| deadline.0.saturating_duration_since(now))
            .into_iter()
            .chain(timeout)
            .min();
        let after = written.into_iter().chain(others).min()?;
        Some(Self {
            after,
            end: later(now, after),
            written: written == Some(after),
            begun: now,
        })
    }

    /// Whether the time is over, or so nearly that whoever measures it elsewhere
    /// may think so.
    pub(crate) fn is_reached(&self) -> bool {
        self.end.saturating_duration_since(Instant::now()) <= CLOCKS_APART
    }

    /// Has the headers of an attempt that begins now say what is left.
    pub(crate) fn write(&self, headers: &mut HeaderMap, grpc: bool, now: Instant) {
        let stands = self.written && now.saturating_duration_since(self.begun) < AT_ONCE;
        if stands || !grpc {
            return;
        }
        let left = self.end.saturating_duration_since(now);
        if let Ok(value) = HeaderValue::try_from(written(left)) {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }
}

fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now + DECADES)
}

/// In the finest unit in which it fits.
fn written(left: Duration) -> String {
    let units = [
        (left.as_micros(), "u"),
        (left.as_millis(), "m"),
        (u128::from(left.as_secs()), "S"),
        (u128::from(left.as_secs() / 60), "M"),
    ];
    let fits = units.into_iter().find(|(amount, _)| *amount <= AMOUNT_MAX);
    let (amount, unit) = fits.unwrap_or((u128::from(left.as_secs() / 3_600), "H"));
    format!("{}{unit}", amount.min(AMOUNT_MAX))
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || digits.len() > DIGITS_MAX || !all_digits {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = |value| grpc_timeout(&headers(value));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
        for bad in ["", "m", "5", "5x", "123456789n", "-1S", "+1S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_left_is_written_in_the_finest_unit_that_fits() {
        for (left, expected) in [
            (Duration::ZERO, "0u"),
            (Duration::from_micros(1_500), "1500u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(written(left), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_limit_counts_and_each_attempt_is_told_what_is_left() {
        let now = Instant::now();
        let hour = Deadline::after(Duration::from_secs(3_600));
        let told = |limit: &Limit, now| {
            let mut headers = headers("2S");
            limit.write(&mut headers, true, now);
            headers.get(GRPC_TIMEOUT).cloned().unwrap()
        };
        let by_header = Limit::of(&headers("2S"), Some(&hour), None).unwrap();
        assert_eq!(told(&by_header, now), "2S");
        let later = now + Duration::from_millis(500);
        assert_eq!(told(&by_header, later), "1500000u");
        let second = Some(Duration::from_secs(1));
        let by_builder = Limit::of(&headers("2S"), Some(&hour), second).unwrap();
        assert_eq!(told(&by_builder, now), "1000000u");
        assert!(Limit::of(&HeaderMap::new(), None, None).is_none());
    }
}

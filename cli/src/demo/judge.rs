//! Whether a canary is worse than the release beside it, by what callers
//! report.

use trimtab_client::operator::service_status::GroupStatus;

use crate::table::count;
use crate::wait::span;

/// A canary is judged by at least so many calls.
const JUDGED_CALLS_MIN: u64 = 50;

/// What a canary may not be: failing more often than this, and slower than the
/// release beside it by this factor.
const ERROR_RATE_MAX: f64 = 0.02;
const SLOWDOWN_MAX: f64 = 3.0;

/// What is wrong with a canary, judged by the release beside it.
pub(crate) fn worse(canary: &GroupStatus, beside: &GroupStatus) -> Option<String> {
    if canary.calls < JUDGED_CALLS_MIN {
        return None;
    }
    let errors = canary.error_rate()?;
    let (slow, usual) = (canary.latency_mean?, beside.latency_mean?);
    let fails = errors > ERROR_RATE_MAX;
    let slows = slow.as_secs_f64() > usual.as_secs_f64() * SLOWDOWN_MAX;
    (fails && slows).then(|| {
        format!(
            "{:.1}% of {} calls to {} failed, and they take {} instead of {}",
            errors * 100.0,
            count(canary.calls),
            canary.name,
            span(slow),
            span(usual)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use trimtab_client::operator::service_status::GroupState;

    fn group(calls: u64, errors: u64, latency_ms: u64) -> GroupStatus {
        GroupStatus {
            name: "v3".into(),
            state: GroupState::Active,
            instances: 1,
            ready: 1,
            suspect: 0,
            starting: 0,
            draining: 0,
            ready_capacity: 100,
            intended_basis_points: 2_000,
            observed_basis_points: Some(2_000),
            calls,
            errors,
            latency_mean: Some(Duration::from_millis(latency_ms)),
            latency_p50: None,
            latency_p99: None,
            last_call_age: None,
        }
    }

    #[test]
    fn a_canary_is_judged_by_the_release_beside_it() {
        let healthy = group(1_000, 0, 2);
        assert_eq!(
            worse(&group(100, 21, 25), &healthy).unwrap(),
            "21.0% of 100 calls to v3 failed, and they take 25 ms instead of 2.0 ms"
        );
        assert!(worse(&group(100, 0, 2), &healthy).is_none());
        assert!(worse(&group(JUDGED_CALLS_MIN - 1, 19, 25), &healthy).is_none());
    }
}

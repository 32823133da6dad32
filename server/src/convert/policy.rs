//! What callers do beyond the weights.

use prost_types::Duration;
use trimtab_proto::v1;
use trimtab_registry::policy::{
    Balancing, BaseEjection, ConsecutiveFailures, Count, EjectedPercent, OutlierPolicy,
    RoutePolicy, Span,
};
use trimtab_registry::rejection::Invalid;

use super::observed::duration;

/// A policy as it travels, with every number in it.
pub(super) fn policy(policy: &RoutePolicy) -> v1::RoutePolicy {
    let outliers = policy.outliers;
    v1::RoutePolicy {
        fall_back_to_dark: policy.fall_back_to_dark,
        balancing: balancing(policy.balancing).into(),
        prefer_zone: policy.prefer_zone,
        subset_size: policy.subset_size.get(),
        warm_up: (policy.warm_up.as_millis() > 0).then(|| span(policy.warm_up)),
        outliers: Some(v1::OutlierPolicy {
            disabled: outliers.disabled,
            consecutive_failures: outliers.consecutive_failures.get(),
            max_ejected_percent: outliers.max_ejected_percent.get(),
            base_ejection: Some(span(outliers.base_ejection)),
        }),
    }
}

fn balancing(balancing: Balancing) -> v1::Balancing {
    match balancing {
        Balancing::LeastLoaded => v1::Balancing::LeastLoaded,
        Balancing::RoundRobin => v1::Balancing::RoundRobin,
        Balancing::ConsistentHash => v1::Balancing::ConsistentHash,
    }
}

fn span<const MIN: u32, const MAX: u32>(span: Span<MIN, MAX>) -> Duration {
    duration(std::time::Duration::from_millis(span.as_millis()))
}

/// The policy that is asked for; what is left out has its default.
///
/// # Errors
/// The first field that is out of range.
pub(super) fn asked(policy: v1::RoutePolicy) -> Result<RoutePolicy, Invalid> {
    Ok(RoutePolicy {
        fall_back_to_dark: policy.fall_back_to_dark,
        balancing: asked_balancing(policy.balancing)?,
        prefer_zone: policy.prefer_zone,
        subset_size: Count::new("policy.subset_size", policy.subset_size)?,
        warm_up: Span::from_millis("policy.warm_up", millis("policy.warm_up", policy.warm_up)?)?,
        outliers: asked_outliers(policy.outliers.unwrap_or_default())?,
    })
}

fn asked_balancing(number: i32) -> Result<Balancing, Invalid> {
    match v1::Balancing::try_from(number) {
        Ok(v1::Balancing::Unspecified | v1::Balancing::LeastLoaded) => Ok(Balancing::LeastLoaded),
        Ok(v1::Balancing::RoundRobin) => Ok(Balancing::RoundRobin),
        Ok(v1::Balancing::ConsistentHash) => Ok(Balancing::ConsistentHash),
        Err(_) => Err(Invalid::new(
            "policy.balancing",
            number,
            "must be LEAST_LOADED, ROUND_ROBIN or CONSISTENT_HASH",
        )),
    }
}

fn asked_outliers(asked: v1::OutlierPolicy) -> Result<OutlierPolicy, Invalid> {
    let default = OutlierPolicy::default();
    let consecutive_failures = match asked.consecutive_failures {
        0 => default.consecutive_failures,
        count => ConsecutiveFailures::new("policy.outliers.consecutive_failures", count)?,
    };
    let max_ejected_percent = match asked.max_ejected_percent {
        0 => default.max_ejected_percent,
        percent => EjectedPercent::new("policy.outliers.max_ejected_percent", percent)?,
    };
    let field = "policy.outliers.base_ejection";
    let base_ejection = match millis(field, asked.base_ejection)? {
        0 => default.base_ejection,
        millis => BaseEjection::from_millis(field, millis)?,
    };
    Ok(OutlierPolicy {
        disabled: asked.disabled,
        consecutive_failures,
        max_ejected_percent,
        base_ejection,
    })
}

/// Whole milliseconds, rounded up so that a little is not nothing.
fn millis(field: &str, asked: Option<Duration>) -> Result<u64, Invalid> {
    let Some(asked) = asked else {
        return Ok(0);
    };
    let span = trimtab_proto::duration::parse(&asked).ok_or_else(|| {
        let seconds = format_args!("{} s", asked.seconds);
        Invalid::new(field, seconds, "must not be negative")
    })?;
    Ok(u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration { seconds, nanos: 0 })
    }

    fn everything() -> v1::RoutePolicy {
        v1::RoutePolicy {
            fall_back_to_dark: true,
            balancing: v1::Balancing::ConsistentHash.into(),
            prefer_zone: true,
            subset_size: 50,
            warm_up: seconds(30),
            outliers: Some(v1::OutlierPolicy {
                disabled: true,
                consecutive_failures: 3,
                max_ejected_percent: 100,
                base_ejection: seconds(10),
            }),
        }
    }

    #[test]
    fn a_policy_comes_back_as_it_was_asked_for() {
        assert_eq!(policy(&asked(everything()).unwrap()), everything());
    }

    #[test]
    fn what_is_left_out_comes_back_as_the_documented_default() {
        let filled = policy(&asked(v1::RoutePolicy::default()).unwrap());
        assert_eq!(filled.balancing(), v1::Balancing::LeastLoaded);
        let outliers = filled.outliers.unwrap();
        assert_eq!(outliers.consecutive_failures, 5);
        assert_eq!(outliers.max_ejected_percent, 10);
        assert_eq!(outliers.base_ejection, seconds(30));
        assert_eq!(policy(&RoutePolicy::default()), filled);
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_field_value_and_rule() {
        type Spoil = fn(&mut v1::RoutePolicy);
        let cases: [(Spoil, &str); 9] = [
            (
                |it| it.balancing = 7,
                "policy.balancing must be LEAST_LOADED, ROUND_ROBIN or CONSISTENT_HASH, but is \"7\"",
            ),
            (
                |it| it.subset_size = 10_001,
                "policy.subset_size must be 0 to 10000, but is \"10001\"",
            ),
            (
                |it| it.warm_up = seconds(3_601),
                "policy.warm_up must be 0 ms to 1 h, but is \"3601 s\"",
            ),
            (
                |it| it.warm_up = seconds(i64::MAX),
                "policy.warm_up must be 0 ms to 1 h",
            ),
            (
                |it| it.warm_up = seconds(-1),
                "policy.warm_up must not be negative, but is \"-1 s\"",
            ),
            (
                |it| it.outliers.as_mut().unwrap().consecutive_failures = 1_001,
                "policy.outliers.consecutive_failures must be 1 to 1000, but is \"1001\"",
            ),
            (
                |it| it.outliers.as_mut().unwrap().max_ejected_percent = 101,
                "policy.outliers.max_ejected_percent must be 1 to 100, but is \"101\"",
            ),
            (
                |it| it.outliers.as_mut().unwrap().base_ejection = seconds(7_200),
                "policy.outliers.base_ejection must be 1 ms to 1 h, but is \"2 h\"",
            ),
            (
                |it| it.outliers.as_mut().unwrap().base_ejection = seconds(-5),
                "policy.outliers.base_ejection must not be negative",
            ),
        ];
        for (spoil, said) in cases {
            let mut policy = everything();
            spoil(&mut policy);
            let refused = asked(policy).unwrap_err().to_string();
            assert!(refused.starts_with(said), "{refused}");
        }
    }

    #[test]
    fn less_than_a_millisecond_is_not_nothing() {
        let mut policy = everything();
        policy.warm_up = Some(Duration {
            seconds: 0,
            nanos: 1,
        });
        assert_eq!(asked(policy).unwrap().warm_up.as_millis(), 1);
    }
}

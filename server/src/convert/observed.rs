//! Durations and what callers report of their calls.

use std::time::Duration;

use trimtab_proto::latency::{BUCKETS, Latencies};
use trimtab_proto::v1;
use trimtab_registry::name::{GroupName, ServiceName};
use trimtab_registry::rejection::Invalid;

use crate::watchers::Load;

/// A duration as it travels. One too long to say becomes the longest.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// A duration that may be absent or, from a confused peer, negative: both
/// mean none.
fn optional_duration(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| trimtab_proto::duration::parse(&duration))
}

/// What a caller reported of one group.
///
/// # Errors
/// More counts of latencies than there are buckets.
pub(crate) fn load(reported: &v1::GroupLoad) -> Result<Load, Invalid> {
    let latencies = Latencies::from_counts(&reported.latency_buckets).map_err(|too_many| {
        Invalid::new(
            "load_reports.loads.latency_buckets",
            format_args!("{} counts", too_many.0),
            format!("must have at most {BUCKETS}"),
        )
    })?;
    Ok(Load {
        calls: reported.calls,
        errors: reported.errors.min(reported.calls),
        latency_total: optional_duration(reported.latency_total).unwrap_or_default(),
        latencies,
        last_call_age: optional_duration(reported.last_call_age),
    })
}

/// The same, to another replica.
pub(crate) fn load_message(service: &ServiceName, group: &GroupName, load: Load) -> v1::GroupLoad {
    v1::GroupLoad {
        service: service.to_string(),
        group: group.to_string(),
        calls: load.calls,
        errors: load.errors,
        latency_total: Some(duration(load.latency_total)),
        last_call_age: load.last_call_age.map(duration),
        latency_buckets: load.latencies.to_counts(),
    }
}

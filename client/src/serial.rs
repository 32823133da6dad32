//! How times look in the serialized form: milliseconds and RFC 3339.

use std::time::{Duration, SystemTime};

use serde::Serializer;

/// Whole microseconds are kept: more digits would be noise.
fn rounded_milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

pub(crate) fn milliseconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded_milliseconds(*duration))
}

pub(crate) fn milliseconds_or_null<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn timestamp<S: Serializer>(
    at: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(&humantime::format_rfc3339_millis(*at)),
        None => serializer.serialize_none(),
    }
}

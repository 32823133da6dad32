//! What callers do beyond the weights of a route: how to choose within a group, and whom to leave out.
//!
//! A policy belongs to the route. Operators change it with `trimtab policy`
//! or [`crate::operator::Operator::shift`], callers receive it with the view
//! and obey it from the next call on.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use crate::serial;

/// The most instances of a group that a subset may be asked for.
pub const SUBSET_SIZE_MAX: u32 = 10_000;
/// The longest warm-up.
pub const WARM_UP_MAX: Duration = Duration::from_secs(3_600);
/// The most failures that an outlier policy may wait for.
pub const CONSECUTIVE_FAILURES_MAX: u32 = 1_000;
/// The longest first ejection.
pub const BASE_EJECTION_MAX: Duration = Duration::from_secs(3_600);

/// What callers do beyond the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Policy {
    /// May callers use groups that never carried traffic, when no other group
    /// can take a call? Off by default.
    pub fall_back_to_dark: bool,
    /// How a caller chooses within a group: the least loaded by default.
    pub balancing: Balancing,
    /// Prefer the instances of the caller's own zone as far as they have
    /// ready capacity for it? Off by default.
    pub prefer_zone: bool,
    /// How many instances of each group a caller keeps connections to, at
    /// most [`SUBSET_SIZE_MAX`]. `None`, the default: all.
    pub subset_size: Option<NonZeroU32>,
    /// Over what time a group that never had weight comes up to its share, at
    /// most [`WARM_UP_MAX`]. Zero, the default: at once.
    #[serde(rename = "warm_up_ms", serialize_with = "serial::milliseconds")]
    pub warm_up: Duration,
    /// When a caller stops calling an instance that fails it.
    pub outliers: OutlierPolicy,
}

/// How a caller chooses among the instances of the group whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// The less loaded of two drawn at random, by calls in flight and recent
    /// latency, in proportion to capacity.
    #[default]
    LeastLoaded,
    /// One after another, in proportion to capacity.
    RoundRobin,
    /// The instance that the call's key hashes to; without a key, the least
    /// loaded.
    ConsistentHash,
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LeastLoaded => "least-loaded",
            Self::RoundRobin => "round-robin",
            Self::ConsistentHash => "consistent-hash",
        })
    }
}

/// When a caller stops calling an instance that others may still reach. The
/// defaults are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OutlierPolicy {
    /// Eject at all? On by default.
    pub enabled: bool,
    /// This many failures one after another eject an instance, 1 to
    /// [`CONSECUTIVE_FAILURES_MAX`]: 5 by default.
    pub consecutive_failures: u32,
    /// At most this part of a group's instances is ejected at a time, in
    /// percent, but always one may be. 1 to 100: 10 by default.
    pub max_ejected_percent: u32,
    /// How long the first ejection lasts, at most [`BASE_EJECTION_MAX`]; each
    /// one after it lasts as much longer again. 30 seconds by default.
    #[serde(rename = "base_ejection_ms", serialize_with = "serial::milliseconds")]
    pub base_ejection: Duration,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            max_ejected_percent: 10,
            base_ejection: Duration::from_secs(30),
        }
    }
}

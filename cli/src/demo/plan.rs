//! How long each part of the demo takes and how much traffic there is.

use std::time::Duration;

/// The service that everything is about.
pub(crate) const SERVICE: &str = "catalog";
/// The release that runs at first.
pub(crate) const OLD: &str = "v1";
/// The release that replaces it.
pub(crate) const NEW: &str = "v2";
/// The release that fails and slows.
pub(crate) const BROKEN: &str = "v3";

pub(crate) const REPLICAS: usize = 3;
pub(crate) const CALLERS: usize = 4;
/// Instances of a release that is all there.
pub(crate) const INSTANCES: usize = 4;

/// The pace of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Calls a second, over all callers.
    pub(crate) calls_per_second: u32,
    /// All on the old release, before anything happens.
    pub(crate) steady: Duration,
    /// One instance of the new release.
    pub(crate) canary: Duration,
    /// All instances of the new release, the canary's share as before.
    pub(crate) spin_up: Duration,
    /// All on the new release, the old one standing by.
    pub(crate) bake: Duration,
    /// How long nobody looks at the broken release's numbers.
    pub(crate) suspicion: Duration,
    /// After the rollback from the broken release.
    pub(crate) recovered: Duration,
    /// After the shift that goes on while the leader is killed.
    pub(crate) without_leader: Duration,
    /// How long the old release must have been idle to be torn down.
    pub(crate) quiet: Duration,
    /// After the teardown.
    pub(crate) end: Duration,
}

impl Plan {
    /// About a minute.
    pub(crate) fn normal(calls_per_second: Option<u32>) -> Self {
        Self {
            calls_per_second: calls_per_second.unwrap_or(3_000),
            steady: Duration::from_secs(6),
            canary: Duration::from_secs(8),
            spin_up: Duration::from_secs(6),
            bake: Duration::from_secs(8),
            suspicion: Duration::from_secs(4),
            recovered: Duration::from_secs(5),
            without_leader: Duration::from_secs(6),
            quiet: Duration::from_secs(4),
            end: Duration::from_secs(2),
        }
    }

    /// A quarter of that, and traffic that a build without optimization bears.
    pub(crate) fn fast(calls_per_second: Option<u32>) -> Self {
        Self {
            calls_per_second: calls_per_second.unwrap_or(600),
            steady: Duration::from_millis(1_000),
            canary: Duration::from_millis(1_000),
            spin_up: Duration::from_millis(500),
            bake: Duration::from_millis(1_000),
            suspicion: Duration::ZERO,
            recovered: Duration::from_millis(500),
            without_leader: Duration::from_millis(1_000),
            quiet: Duration::from_millis(1_000),
            end: Duration::from_millis(500),
        }
    }
}

//! Who gets which share of a service's calls.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::policy::Policy;

/// All of a service's calls, in basis points.
pub const WHOLE_BASIS_POINTS: u32 = 10_000;

/// The weights over a service's groups and what callers do beyond them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Route {
    /// Basis points by group, summing to 10,000. A group not listed has none.
    pub weights: BTreeMap<String, u32>,
    /// What callers do beyond the weights.
    pub policy: Policy,
    /// What callers mix into the hash of a call's key: the revision of the
    /// change by which the service left a single group. 0 while one group has
    /// all.
    pub salt: u64,
}

impl Route {
    /// The basis points of a group, 0 when it is not listed.
    pub fn weight(&self, group: &str) -> u32 {
        self.weights.get(group).copied().unwrap_or(0)
    }
}

/// A route and the revision at which it took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CurrentRoute {
    /// Whose route it is.
    pub service: String,
    /// What a compare-and-set compares with.
    pub route_revision: u64,
    /// The route.
    #[serde(flatten)]
    pub route: Route,
}

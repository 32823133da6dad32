//! Removals that are held back, as operators are told of them.

use std::cmp::Reverse;

use trimtab_proto::v1::{Brake, ReplicaStatus};
use trimtab_registry::name::ServiceName;

use super::context::Context;
use crate::convert;

/// Brakes told of one replica, at most: when a network fails they may be as
/// many as there are services and zones.
const TOLD_MAX: usize = 100;

/// Of these in words, for people: as many as fit on a screen beside the rest.
const IN_WORDS_MAX: usize = 10;

/// Where this replica holds removals back, the most first.
pub(super) fn own(context: &Context) -> Vec<Brake> {
    let mut brakes = context.keeper.brakes();
    brakes.sort_by_key(|brake| Reverse(brake.held));
    brakes.truncate(TOLD_MAX);
    brakes.iter().map(convert::brake).collect()
}

/// The removals that this replica holds back in some services.
pub(super) fn own_of(context: &Context, services: &[ServiceName]) -> Vec<Brake> {
    let brakes = context.keeper.brakes();
    let asked = brakes
        .iter()
        .filter(|brake| services.contains(&brake.service));
    asked.map(convert::brake).collect()
}

/// Where replicas hold removals back, in words.
pub(super) fn in_words(replicas: &[ReplicaStatus]) -> Vec<String> {
    let brakes = || replicas.iter().flat_map(|replica| &replica.brakes);
    let mut words: Vec<String> = brakes()
        .take(IN_WORDS_MAX)
        .map(|brake| format!("service {}: {}", brake.service, brake.reason))
        .collect();
    let more = brakes().count() - words.len();
    if more > 0 {
        words.push(format!(
            "removals are held back in {more} more places; `cluster status --output json` has them"
        ));
    }
    words
}

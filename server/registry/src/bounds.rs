//! How much a registry can hold.

/// How many services there can be.
pub const SERVICES_MAX: usize = 100_000;
/// How many groups a service can have, those without instances included, and
/// so the most that a route can list.
pub const GROUPS_MAX: usize = 100;
/// How many instances a service can have: a view of all of them must stay a
/// message of a few megabytes.
pub const INSTANCES_MAX: usize = 20_000;
/// How many changes of the route of one service are kept.
pub const HISTORY_MAX: usize = 100;

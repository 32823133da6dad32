//! Removals that the registry holds back, and why.

use std::time::Duration;

use serde::Serialize;

use crate::serial;

/// More instances stopped renewing together than are taken to have died: they
/// stay, suspect, until they renew or the time is up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Brake {
    /// The service.
    pub service: String,
    /// The zone that all of them are in, if it is one with a name.
    pub zone: Option<String>,
    /// The replica that all of them renewed through last, if it is one.
    pub via_replica: Option<u64>,
    /// Instances whose removal waits.
    pub held: u32,
    /// Instances there that stopped renewing, those included whose lease is
    /// not over yet.
    pub unwell: u32,
    /// All instances there, but for those that are about to leave.
    pub leases: u32,
    /// How long ago it began.
    #[serde(rename = "age_ms", serialize_with = "serial::milliseconds")]
    pub age: Duration,
    /// When it ends, at the latest.
    #[serde(rename = "ends_in_ms", serialize_with = "serial::milliseconds")]
    pub ends_in: Duration,
    /// Why, in words.
    pub reason: String,
}

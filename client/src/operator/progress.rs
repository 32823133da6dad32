//! How far a revision has come among the watchers.

use serde::Serialize;

/// How far a revision has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReceiptProgress {
    /// Live watchers of the services asked about, each counted once per
    /// service.
    pub watchers: u32,
    /// How many of these use the revision.
    pub confirmed: u32,
    /// Those that do not yet; at most 100 are named.
    pub laggards: Vec<Laggard>,
    /// Replicas whose watchers are not counted.
    pub unreachable_replicas: Vec<u64>,
    /// Everyone has confirmed: nothing more will come.
    pub complete: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A watcher that does not use the revision yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Laggard {
    /// Unique per process.
    pub watcher_id: String,
    /// What it calls itself.
    pub name: String,
    /// The replica it watches through.
    pub replica_id: u64,
    /// The service it has not confirmed.
    pub service: String,
    /// The newest revision it has confirmed.
    pub revision: u64,
}

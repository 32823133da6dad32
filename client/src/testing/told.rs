//! What the registry of a test was told: by callers and by instances.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::operator::service_status::Instance;

/// Everything that is connected or registered now, and the loads reported
/// since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Callers that watch now.
    pub watchers: Vec<ToldWatcher>,
    /// Instances that are registered, by service and id.
    pub registrations: Vec<ToldRegistration>,
    pub(super) loads: BTreeMap<(String, String), ToldLoad>,
}

/// A caller that watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldWatcher {
    /// Unique for the process.
    pub id: String,
    /// What an operator would call it.
    pub name: String,
    /// The failure domain it is in; may be empty.
    pub zone: String,
    /// The services it follows, with the newest revision that its calls use;
    /// 0 before the first receipt.
    pub services: BTreeMap<String, u64>,
}

/// An instance that registered, and has not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldRegistration {
    /// Of the instance.
    pub service: String,
    /// As it described itself, with the status it said last.
    pub instance: Instance,
    /// For how long it asked to stay registered without a renewal.
    pub ttl: Duration,
    /// How often its lease was renewed.
    pub renewals: u64,
}

/// Calls to one group, of all callers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToldLoad {
    /// Calls that ended.
    pub calls: u64,
    /// Of these, those that failed.
    pub errors: u64,
    /// How long all of them took together.
    pub latency_total: Duration,
}

impl Told {
    /// The newest revision that the calls of all who follow a service use;
    /// `None` when nobody follows it.
    pub fn confirmed(&self, service: &str) -> Option<u64> {
        let of = |watcher: &ToldWatcher| watcher.services.get(service).copied();
        self.watchers.iter().filter_map(of).min()
    }

    /// What was reported of a group: nothing if nobody called it.
    pub fn load(&self, service: &str, group: &str) -> ToldLoad {
        let key = (service.to_owned(), group.to_owned());
        self.loads.get(&key).copied().unwrap_or_default()
    }

    /// An instance that is registered.
    pub fn registration(&self, service: &str, id: &str) -> Option<&ToldRegistration> {
        let mut all = self.registrations.iter();
        all.find(|it| it.service == service && it.instance.id == id)
    }
}

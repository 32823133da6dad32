//! An observer that writes down what it is told, and waiting for what will come.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use trimtab_registry::event::Event;
use trimtab_registry::state::Registry;

use super::super::handle::Handle;
use super::super::observer::Observer;
use super::super::status::ConsensusStatus;

/// Longer than any test takes on a busy machine; reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What an observer was told, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Restored { instances: usize },
    Applied { events: usize, instances: usize },
    Role { leads: bool, leader: u64 },
}

/// Writes down what it is told.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    told: Arc<Mutex<Vec<Told>>>,
}

impl Recorder {
    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("not poisoned").clone()
    }

    fn note(&self, told: Told) {
        self.told.lock().expect("not poisoned").push(told);
    }
}

impl Observer for Recorder {
    fn applied(&mut self, registry: &Registry, events: &[Event]) {
        self.note(Told::Applied {
            events: events.len(),
            instances: instances_in(registry),
        });
    }

    fn restored(&mut self, registry: &Registry) {
        self.note(Told::Restored {
            instances: instances_in(registry),
        });
    }

    fn role_changed(&mut self, status: &ConsensusStatus) {
        self.note(Told::Role {
            leads: status.is_leader(),
            leader: status.leader_id,
        });
    }
}

pub(super) fn instances_in(registry: &Registry) -> usize {
    let services = registry.services();
    services.map(|service| service.instances().len()).sum()
}

pub(super) async fn instances(handle: &Handle) -> usize {
    handle.query(instances_in).await.expect("is running")
}

/// The status as soon as it is as wanted.
pub(super) async fn until(
    handle: &Handle,
    wanted: impl FnMut(&ConsensusStatus) -> bool,
) -> ConsensusStatus {
    let mut status: watch::Receiver<ConsensusStatus> = handle.status();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await;
    match reached {
        Ok(Ok(status)) => status.clone(),
        other => panic!("{other:?}"),
    }
}

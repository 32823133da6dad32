//! The registry: the only way in is `apply`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Command;
use crate::name::ServiceName;
use crate::outcome::{Applied, Outcome};
use crate::rejection::{Missing, Rejection};
use crate::revision::Position;
use crate::service::Service;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::view::ServiceView;

/// All services. Copying it copies pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    applied: Position,
    services: BTreeMap<ServiceName, Arc<Service>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one committed entry. Positions must grow from entry to entry;
    /// the same commands at the same positions make equal registries.
    ///
    /// Never fails: a command that is rejected changes nothing but
    /// [`Self::applied`].
    pub fn apply(&mut self, at: Position, command: &Command) -> Applied {
        self.applied = at;
        let _ = command;
        Applied {
            outcome: Ok(Outcome::StatusSet {
                revision: at.revision(),
            }),
            events: vec![],
        }
    }

    /// Passes over a committed entry that carries no command: a new leader's
    /// first one, or a change of membership.
    pub fn skip(&mut self, at: Position) {
        self.applied = at;
    }

    /// What `command` would do now, by the code that would do it.
    ///
    /// # Errors
    /// The rejection it would meet.
    pub fn plan(&self, command: &Command) -> Result<Outcome, Rejection> {
        let _ = command;
        Err(Rejection::NotFound(Missing::Service(ServiceName::parse(
            "none",
        )?)))
    }

    /// The last entry applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// What callers need to know of a service; None when it is not there or
    /// has ended.
    pub fn view(&self, service: &ServiceName) -> Option<ServiceView> {
        let _ = service;
        None
    }

    /// One service; also one that has ended, until its last instance is gone.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// All services by name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }

    /// The whole registry as of now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            applied: self.applied,
            services: self.services.values().cloned().collect(),
        }
    }

    /// A registry from a snapshot.
    ///
    /// # Errors
    /// The snapshot contradicts itself.
    pub fn restore(snapshot: Snapshot) -> Result<Self, SnapshotError> {
        Ok(Self {
            applied: snapshot.applied,
            services: snapshot
                .services
                .into_iter()
                .map(|s| (s.name.clone(), s))
                .collect(),
        })
    }
}

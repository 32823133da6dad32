//! The registry itself, and the only way in: `apply`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Command;
use crate::event::Event;
use crate::instance::InstanceSpec;
use crate::interner::Interner;
use crate::name::ServiceName;
use crate::outcome::{Applied, Outcome};
use crate::revision::Position;
use crate::service::Service;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::view::ServiceView;

/// All services. Copying it copies pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    applied: Position,
    services: BTreeMap<ServiceName, Arc<Service>>,
    interner: Interner,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one committed entry. The index must be greater than that of
    /// the last one; the same commands at the same positions make equal
    /// registries.
    ///
    /// Never fails: a command that is rejected changes nothing but
    /// [`Self::applied`].
    pub fn apply(&mut self, at: Position, command: &Command) -> Applied {
        self.skip(at);
        let done = match command {
            Command::Register(asked) => self.register(at, asked),
            Command::SetStatus(asked) => self.set_status(at, asked),
            Command::Deregister(asked) => Ok(self.deregister(at, asked)),
            Command::JudgeLeases(asked) => self.judge(at, asked),
            Command::Shift(asked) => self.shift(at, asked),
            Command::Rollback(asked) => self.rollback(at, asked),
            Command::Teardown(asked) => self.teardown(at, asked),
            Command::AdjustInstance(asked) => self.adjust(at, asked),
        };
        match done {
            Ok(Done { outcome, events }) => Applied {
                outcome: Ok(outcome),
                events,
            },
            Err(rejection) => Applied {
                outcome: Err(rejection),
                events: Vec::new(),
            },
        }
    }

    /// Passes over a committed entry that carries no command: a new leader's
    /// first one, or a change of membership.
    pub fn skip(&mut self, at: Position) {
        debug_assert!(
            at.index > self.applied.index,
            "applied {at:?} after {:?}",
            self.applied
        );
        self.applied = at;
    }

    /// The last entry applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// What callers need to know of a service; None when it is not there or
    /// has ended.
    pub fn view(&self, service: &ServiceName) -> Option<ServiceView> {
        self.service(service)?.view()
    }

    /// One service; also one that has ended, until its last instance is gone.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// All services by name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.values().map(Arc::as_ref)
    }

    /// The services whose names come after `name`, in order.
    pub fn services_after(&self, name: &str) -> impl Iterator<Item = &Service> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.services
            .range::<str, _>((Excluded(name), Unbounded))
            .map(|(_, service)| service.as_ref())
    }

    /// The whole registry as of now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.applied, self.services.values().cloned().collect())
    }

    /// A registry from a snapshot.
    ///
    /// # Errors
    /// The snapshot contradicts itself, or is of a format that this version
    /// does not read.
    pub fn restore(snapshot: Snapshot) -> Result<Self, SnapshotError> {
        let (applied, services) = snapshot.check()?;
        let interner = Interner::default();
        Ok(Self {
            applied,
            services,
            interner,
        })
    }

    /// The same, in memory that instances share who say alike.
    pub(crate) fn shared(&mut self, spec: &InstanceSpec) -> InstanceSpec {
        let mut spec = spec.clone();
        self.interner.share(&mut spec);
        spec
    }

    pub(crate) fn service_mut(&mut self, name: &ServiceName) -> Option<&mut Service> {
        self.services.get_mut(name).map(Arc::make_mut)
    }

    pub(crate) fn services_mut(&mut self) -> impl Iterator<Item = &mut Arc<Service>> {
        self.services.values_mut()
    }

    pub(crate) fn service_or_new(&mut self, name: &ServiceName) -> &mut Service {
        let service = self
            .services
            .entry(name.clone())
            .or_insert_with_key(|name| Arc::new(Service::new(name.clone())));
        Arc::make_mut(service)
    }

    /// Drops a service that has ended once its last instance is gone.
    pub(crate) fn forget_if_over(&mut self, name: &ServiceName) {
        let over = |service: &Arc<Service>| service.route.is_none() && service.instances.is_empty();
        if self.services.get(name).is_some_and(over) {
            self.services.remove(name);
        }
    }
}

/// What a command did, before it is told.
#[derive(Debug)]
pub(crate) struct Done<O = Outcome> {
    pub(crate) outcome: O,
    pub(crate) events: Vec<Event>,
}

impl<O> Done<O> {
    /// Nothing for others to act on.
    pub(crate) fn quietly(outcome: O) -> Self {
        let events = Vec::new();
        Self { outcome, events }
    }

    pub(crate) fn map<P>(self, f: impl FnOnce(O) -> P) -> Done<P> {
        Done {
            outcome: f(self.outcome),
            events: self.events,
        }
    }
}

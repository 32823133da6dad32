//! Callers that follow services: what each is shown, and how it catches up.

use std::collections::BTreeMap;

use trimtab_registry::name::ServiceName;

use crate::chance::Chance;
use crate::packet::{Node, Outbox, Request, View};
use crate::planted::Planted;

/// One caller. Of the client it has the rule by which views are taken and
/// the stream is resumed, not the code.
#[derive(Debug)]
pub(crate) struct Watcher {
    number: usize,
    replicas: u64,
    replica: u64,
    services: Vec<ServiceName>,
    planted: Option<Planted>,
    /// Revision and checksum of what it uses.
    pub(crate) views: BTreeMap<ServiceName, (u64, Option<u64>)>,
    heard: bool,
    subscribed: bool,
}

impl Watcher {
    pub(crate) fn new(
        number: usize,
        replicas: u64,
        services: &[ServiceName],
        planted: Option<Planted>,
    ) -> Self {
        Self {
            number,
            replicas,
            replica: number as u64 % replicas + 1,
            services: services.to_vec(),
            planted,
            views: BTreeMap::new(),
            heard: false,
            subscribed: false,
        }
    }

    /// Resumes its stream, now and then elsewhere: a push may have been lost.
    pub(crate) fn wake(&mut self, chance: &mut Chance, out: &mut Outbox) {
        out.wakes.push(chance.between(400, 900));
        let is_deaf = self.planted == Some(Planted::WatcherIgnoresGap) && self.subscribed;
        if is_deaf && self.heard {
            return;
        }
        if !self.heard || chance.per_mille(100) {
            self.replica = chance.between(1, self.replicas);
        }
        for service in &self.services {
            let known = self.views.get(service).map_or(0, |(revision, _)| *revision);
            let service = service.clone();
            let request = Request::Watch { service, known };
            out.call(Node::Watcher(self.number), self.replica, 0, request);
        }
        self.heard = is_deaf;
        self.subscribed = true;
    }

    /// A view came.
    ///
    /// # Errors
    ///
    /// When it uses an older view after a newer one.
    pub(crate) fn shown(&mut self, view: &View) -> Result<(), String> {
        self.heard = true;
        let used = self.views.get(&view.service).map_or(0, |(used, _)| *used);
        let takes_anything = self.planted == Some(Planted::WatcherGoesBack);
        if view.revision <= used && !takes_anything {
            return Ok(());
        }
        let checksum = view
            .bytes
            .as_ref()
            .map(|bytes| trimtab_proto::checksum(bytes));
        self.views
            .insert(view.service.clone(), (view.revision, checksum));
        if view.revision < used {
            return Err(format!(
                "watcher {} went back from {used} to {} of {}",
                self.number, view.revision, view.service
            ));
        }
        Ok(())
    }
}

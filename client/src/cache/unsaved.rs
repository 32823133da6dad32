//! Views that were taken and are not on disk yet: the newest of each service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use trimtab_proto::v1 as wire;

use crate::delta::Base;
use crate::view::View;

/// Between the resolver, which never waits, and the writer, which does.
///
/// Bounded by the services that one client may follow: a newer view replaces
/// one that is still waiting.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    waiting: Mutex<BTreeMap<Arc<str>, News>>,
    /// Told when something waits.
    pub(crate) changed: Notify,
}

/// What is to become of a service's file.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// It is to hold this view of this cluster's.
    View(u64, wire::ViewUpdate),
    /// The same of one that came of deltas, and is not encoded.
    Parts(u64, Arc<View>, Base),
    /// This cluster says that the service is no more.
    Absent(u64),
}

impl Unsaved {
    pub(crate) fn add(&self, service: &Arc<str>, news: News) {
        self.waiting().insert(Arc::clone(service), news);
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) -> BTreeMap<Arc<str>, News> {
        std::mem::take(&mut *self.waiting())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, News>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

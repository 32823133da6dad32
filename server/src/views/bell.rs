//! Wakes one reader of many services, and says which of them to look at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use trimtab_registry::name::ServiceName;

/// One reader's bell. Whoever has news for it rings; the reader looks at what
/// it was rung for and at nothing else, so that following a thousand services
/// costs no more than following the few that change.
#[derive(Debug, Default)]
pub struct Bell {
    waker: AtomicWaker,
    /// In the order of the news. Holds a service once, as its listener rings
    /// again only after it was looked at.
    due: Mutex<VecDeque<ServiceName>>,
}

impl Bell {
    /// There is something about the reader itself.
    pub fn ring(&self) {
        self.waker.wake();
    }

    /// There is news of this service.
    pub fn ring_for(&self, service: &ServiceName) {
        self.due().push_back(service.clone());
        self.waker.wake();
    }

    /// Whom to wake from now on.
    pub fn listen(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// The service that has waited longest.
    pub fn pop(&self) -> Option<ServiceName> {
        self.due().pop_front()
    }

    /// No longer of interest.
    pub fn forget(&self, service: &ServiceName) {
        self.due().retain(|due| due != service);
    }

    fn due(&self) -> MutexGuard<'_, VecDeque<ServiceName>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

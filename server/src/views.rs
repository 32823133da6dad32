//! The latest view of each service, encoded once and shared by all who read or follow it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use trimtab_registry::name::ServiceName;
use trimtab_registry::state::Registry;
use trimtab_registry::view::ServiceView;

pub mod bell;
pub mod published;
pub mod step;

use self::bell::Bell;
use self::published::{Published, PublishedView, Wire};

/// The latest views of all services. Written by the one who applies the log,
/// read by everybody without waiting for a writer.
#[derive(Debug)]
pub struct Views {
    topics: DashMap<ServiceName, Arc<Topic>>,
    revision: AtomicU64,
    wire: Wire,
}

/// One service, as it is read and followed.
#[derive(Debug)]
struct Topic {
    latest: RwLock<Arc<Published>>,
    listeners: Mutex<Listeners>,
}

/// Who follows a service, in the order of arrival: those of one connection
/// come together as a rule, and what is told them together is sent together.
#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    all: BTreeMap<u64, Arc<Listener>>,
}

#[derive(Debug)]
struct Listener {
    bell: Arc<Bell>,
    service: ServiceName,
    /// It was told that there is news, and has not looked yet.
    is_told: AtomicBool,
}

/// One reader's place on one service.
#[derive(Debug)]
pub struct Subscription {
    number: u64,
    listener: Arc<Listener>,
    topic: Arc<Topic>,
    views: Arc<Views>,
}

impl Views {
    /// No views yet.
    pub fn new(wire: Wire) -> Arc<Views> {
        Arc::new(Views {
            topics: DashMap::new(),
            revision: AtomicU64::new(0),
            wire,
        })
    }

    /// The position in the log up to which the views are true.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// What there is to say about a service now.
    pub fn latest(&self, service: &ServiceName) -> Arc<Published> {
        match self.topics.get(service) {
            Some(topic) => topic.latest(),
            None => Arc::new(Published::Absent(self.revision())),
        }
    }

    /// Follow a service, known or not: `bell` says at once that there is news,
    /// and again after each change. A reader that is slow skips to the newest:
    /// nothing is queued.
    pub fn subscribe(self: &Arc<Views>, service: &ServiceName, bell: &Arc<Bell>) -> Subscription {
        let listener = Arc::new(Listener {
            bell: Arc::clone(bell),
            service: service.clone(),
            is_told: AtomicBool::new(false),
        });
        let absent = || Topic::new(Arc::new(Published::Absent(self.revision())));
        // Entered under the lock of the entry, so that the topic is not
        // forgotten as one that nobody follows.
        let entry = self.topics.entry(service.clone()).or_insert_with(absent);
        let topic = Arc::clone(&entry);
        let number = topic.listeners().add(Arc::clone(&listener));
        drop(entry);
        listener.tell();
        Subscription {
            number,
            listener,
            topic,
            views: Arc::clone(self),
        }
    }

    /// Publishes the views of services that changed, all true at the position
    /// the registry has applied.
    pub fn publish<'a>(
        &self,
        registry: &Registry,
        changed: impl IntoIterator<Item = &'a ServiceName>,
    ) {
        let revision = registry.applied().index;
        for service in changed {
            match registry.view(service) {
                Some(view) => self.put(service, view),
                None => self.end(service, revision),
            }
        }
        self.revision.store(revision, Ordering::Release);
    }

    /// Publishes everything anew: the state was replaced whole.
    pub fn replace(&self, registry: &Registry) {
        let known: Vec<ServiceName> = registry
            .services()
            .map(|service| service.name().clone())
            .collect();
        let gone: Vec<ServiceName> = self
            .topics
            .iter()
            .map(|entry| entry.key().clone())
            .filter(|name| registry.service(name).is_none())
            .collect();
        self.publish(registry, known.iter().chain(&gone));
    }

    fn put(&self, service: &ServiceName, view: ServiceView) {
        // Only this thread publishes, so what is read here is still the latest
        // when the entry is locked.
        let followed = self.topics.get(service).and_then(|topic| {
            let is_followed = !topic.listeners().all.is_empty();
            is_followed.then(|| topic.latest())
        });
        let before = followed.as_ref().and_then(|published| published.present());
        let published = PublishedView::after(before, view, self.wire);
        self.set(service, Published::Present(Box::new(published)));
    }

    fn end(&self, service: &ServiceName, revision: u64) {
        if self.topics.contains_key(service) {
            self.set(service, Published::Absent(revision));
        }
        self.forget(service);
    }

    fn set(&self, service: &ServiceName, published: Published) {
        let absent = || Topic::new(Arc::new(Published::Absent(0)));
        let entry = self.topics.entry(service.clone()).or_insert_with(absent);
        // Before the entry is let go: nobody may forget the topic in between.
        let before = entry.replace(published);
        let topic = Arc::clone(&entry);
        drop(entry);
        topic.tell();
        // What may be a large view is taken apart when nobody waits.
        drop(before);
    }

    /// Names that nobody follows and nobody registered leave nothing behind.
    fn forget(&self, service: &ServiceName) {
        self.topics.remove_if(service, |_, topic| {
            topic.listeners().all.is_empty() && topic.latest().present().is_none()
        });
    }
}

// === impl Topic ===

impl Topic {
    fn new(published: Arc<Published>) -> Arc<Topic> {
        Arc::new(Topic {
            latest: RwLock::new(published),
            listeners: Mutex::default(),
        })
    }

    fn latest(&self) -> Arc<Published> {
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&latest)
    }

    fn replace(&self, published: Published) -> Arc<Published> {
        let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *latest, Arc::new(published))
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        for listener in self.listeners().all.values() {
            listener.tell();
        }
    }
}

// === impl Listeners ===

impl Listeners {
    fn add(&mut self, listener: Arc<Listener>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.all.insert(number, listener);
        number
    }
}

// === impl Listener ===

impl Listener {
    /// Once, until it has looked.
    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::AcqRel) {
            self.bell.ring_for(&self.service);
        }
    }
}

// === impl Subscription ===

impl Subscription {
    /// What there is to say now. The bell rings when that changes.
    pub fn look(&self) -> Arc<Published> {
        // In this order: what is published in between is told again.
        self.listener.is_told.swap(false, Ordering::AcqRel);
        self.topic.latest()
    }

    /// Has the bell ring though nothing changed.
    pub fn remind(&self) {
        self.listener.tell();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.topic.listeners().all.remove(&self.number);
        self.views.forget(&self.listener.service);
    }
}

//! The services this process follows: what is known of each, and what its callers use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::load::Loads;
use crate::view::View;

/// What the registry allows on one stream.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 1_024;

/// What the registry has said of a service.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// Nothing yet.
    Nothing,
    /// It is not registered, as of this revision.
    Absent {
        /// Of the registry.
        revision: u64,
    },
    /// Its newest view.
    View {
        /// As read.
        view: Arc<View>,
        /// Of the view as it travelled.
        checksum: u64,
    },
}

/// All services of one client. The resolver fills it, pools use it.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    followed: Mutex<BTreeMap<Arc<str>, Arc<Followed>>>,
    /// Told when a service is added or dropped, or a revision confirmed.
    pub(crate) changed: Notify,
}

/// One service that is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) service: Arc<str>,
    pub(crate) known: watch::Sender<Known>,
    pub(crate) loads: Loads,
    /// The newest revision that each user's picker uses.
    confirmed: Mutex<Vec<Arc<AtomicU64>>>,
}

/// One user's interest in a service. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    all: Arc<Subscriptions>,
    followed: Arc<Followed>,
    confirmed: Arc<AtomicU64>,
}

// === impl Known ===

impl Known {
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Absent { revision } => *revision,
            Self::View { view, .. } => view.revision,
        }
    }

    /// What callers are to follow: a service that is not registered has no
    /// instances. `None` when nothing was said yet.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        match self {
            Self::Nothing => None,
            Self::Absent { revision } => Some(Arc::new(View {
                revision: *revision,
                ..View::default()
            })),
            Self::View { view, .. } => Some(Arc::clone(view)),
        }
    }
}

// === impl Subscriptions ===

impl Subscriptions {
    /// Begins, or joins in, to follow a service.
    ///
    /// # Errors
    /// [`Error::Invalid`] when this client follows as many as it may.
    pub(crate) fn subscribe(self: &Arc<Self>, service: &str) -> Result<Subscription, Error> {
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(service) && all.len() >= SUBSCRIPTIONS_MAX {
            return Err(Error::Invalid(format!(
                "cannot follow {service:?}: this client already follows {SUBSCRIPTIONS_MAX} \
                 services, the most it may; drop some or use a second client"
            )));
        }
        let name: Arc<str> = service.into();
        let followed = all.entry(Arc::clone(&name)).or_insert_with(|| {
            Arc::new(Followed {
                service: name,
                known: watch::Sender::new(Known::Nothing),
                loads: Loads::default(),
                confirmed: Mutex::default(),
            })
        });
        let followed = Arc::clone(followed);
        let confirmed = Arc::new(AtomicU64::new(0));
        followed.users().push(Arc::clone(&confirmed));
        drop(all);
        self.changed.notify_one();
        Ok(Subscription {
            all: Arc::clone(self),
            followed,
            confirmed,
        })
    }

    pub(crate) fn get(&self, service: &str) -> Option<Arc<Followed>> {
        let all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(service).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Followed>> {
        let all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    fn leave(&self, followed: &Followed, confirmed: &Arc<AtomicU64>) {
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut users = followed.users();
        users.retain(|user| !Arc::ptr_eq(user, confirmed));
        if users.is_empty() {
            all.remove(&followed.service);
        }
        drop(users);
        drop(all);
        self.changed.notify_one();
    }
}

// === impl Followed ===

impl Followed {
    /// The revision that every user's picker uses, or a later one.
    pub(crate) fn confirmed(&self) -> u64 {
        let users = self.users();
        users
            .iter()
            .map(|user| user.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Subscription ===

impl Subscription {
    pub(crate) fn service(&self) -> &Arc<str> {
        &self.followed.service
    }

    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.followed.known.subscribe()
    }

    /// The revision this user confirmed last.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    pub(crate) fn loads(&self) -> &Loads {
        &self.followed.loads
    }

    /// This user's picker uses `revision` from now on.
    pub(crate) fn confirm(&self, revision: u64) {
        self.confirmed.store(revision, Ordering::Release);
        self.all.changed.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.all.leave(&self.followed, &self.confirmed);
    }
}

//! The services this process follows: what is known of each, and what its callers use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use trimtab_proto::v1 as wire;

use crate::cache::unsaved::{News, Unsaved};
use crate::delta::Base;
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
        /// Of the view as it travelled; 0 of one that came of deltas.
        checksum: u64,
        /// What the next delta is applied to, beside the view.
        base: Base,
        /// Who says so.
        source: Source,
    },
}

/// Where a view came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A replica sent it to this process.
    Registry,
    /// The disk, where an earlier process kept it.
    Disk {
        /// The cluster that made it; 0 when it did not say.
        cluster: u64,
    },
}

/// All services of one client. The resolver fills it, pools use it.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    followed: Mutex<BTreeMap<Arc<str>, Arc<Followed>>>,
    /// Told when a service is added or dropped, or a revision confirmed.
    pub(crate) changed: Notify,
    /// Where views are left for the disk, if they are kept there.
    unsaved: Option<Arc<Unsaved>>,
}

/// One service that is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) service: Arc<str>,
    pub(crate) known: watch::Sender<Known>,
    pub(crate) loads: Loads,
    users: Mutex<Vec<Arc<User>>>,
}

/// What one user of a service said of its picker.
#[derive(Debug, Default)]
struct User {
    /// The newest revision it uses.
    used: AtomicU64,
    /// Whether that came from the disk.
    is_from_disk: AtomicBool,
    /// The newest it uses that a registry sent. Only this is anything that the
    /// registry may be told: the disk may have been another registry's.
    confirmed: AtomicU64,
}

/// One user's interest in a service. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    all: Arc<Subscriptions>,
    followed: Arc<Followed>,
    user: Arc<User>,
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

    /// Who says so.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Nothing | Self::Absent { .. } => Source::Registry,
            Self::View { source, .. } => *source,
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
    /// Of a process that keeps views on disk.
    pub(crate) fn kept_in(unsaved: Arc<Unsaved>) -> Self {
        Self {
            unsaved: Some(unsaved),
            ..Self::default()
        }
    }

    /// A view was taken from this cluster.
    pub(crate) fn took(&self, followed: &Followed, cluster: u64, update: &wire::ViewUpdate) {
        if let Some(unsaved) = &self.unsaved {
            unsaved.add(&followed.service, News::View(cluster, update.clone()));
        }
    }

    /// The same, and it came of a delta: encoded if it comes to the disk.
    pub(crate) fn took_delta(
        &self,
        followed: &Followed,
        cluster: u64,
        view: &Arc<View>,
        base: &Base,
    ) {
        if let Some(unsaved) = &self.unsaved {
            let news = News::Parts(cluster, Arc::clone(view), base.clone());
            unsaved.add(&followed.service, news);
        }
    }

    /// This cluster said that a service is no more.
    pub(crate) fn ended(&self, followed: &Followed, cluster: u64) {
        if let Some(unsaved) = &self.unsaved {
            unsaved.add(&followed.service, News::Absent(cluster));
        }
    }

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
                loads: Loads::of(&name),
                service: name,
                known: watch::Sender::new(Known::Nothing),
                users: Mutex::default(),
            })
        });
        let followed = Arc::clone(followed);
        let user = Arc::new(User::default());
        followed.users().push(Arc::clone(&user));
        drop(all);
        self.changed.notify_one();
        Ok(Subscription {
            all: Arc::clone(self),
            followed,
            user,
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

    fn leave(&self, followed: &Followed, gone: &Arc<User>) {
        let mut all = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut users = followed.users();
        users.retain(|user| !Arc::ptr_eq(user, gone));
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
    /// The revision that every user's picker uses, or a later one, as far as
    /// the registry may be told.
    pub(crate) fn confirmed(&self) -> u64 {
        let users = self.users();
        users
            .iter()
            .map(|user| user.confirmed.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Vec<Arc<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    /// The revision this user's picker uses, and whether it is from the disk.
    pub(crate) fn used(&self) -> (u64, bool) {
        let is_from_disk = self.user.is_from_disk.load(Ordering::Acquire);
        (self.user.used.load(Ordering::Acquire), is_from_disk)
    }

    pub(crate) fn loads(&self) -> &Loads {
        &self.followed.loads
    }

    /// This user's picker uses `revision` from now on.
    pub(crate) fn confirm(&self, revision: u64, source: Source) {
        let is_from_disk = source != Source::Registry;
        self.user.used.store(revision, Ordering::Release);
        self.user
            .is_from_disk
            .store(is_from_disk, Ordering::Release);
        if !is_from_disk {
            self.user.confirmed.store(revision, Ordering::Release);
            self.all.changed.notify_one();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.all.leave(&self.followed, &self.user);
    }
}

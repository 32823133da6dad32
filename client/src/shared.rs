//! What a client, its balancers and its registrations share and keep running.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::cold_start::{fall_back, offer};
use crate::cache::directory::Directory;
use crate::cache::unsaved::Unsaved;
use crate::cache::writer::write;
use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::error::Error;
use crate::pool::Pool;
use crate::renewal::{Leases, renew};
use crate::resolver::resolve;
use crate::subscription::{Followed, Subscriptions};
use crate::watcher::{Standpoint, Watcher};

/// The streams to the registry, and what is called through them. The streams
/// end when this is dropped.
pub(crate) struct Shared {
    cluster: Cluster,
    watcher_id: String,
    zone: Arc<str>,
    instance_metrics: bool,
    subscriptions: Arc<Subscriptions>,
    leases: Arc<Leases>,
    pools: Mutex<HashMap<PoolKey, Weak<Pool>>>,
    /// Where views are kept for the next process, if they are.
    cache: Option<Arc<Directory>>,
    stop: CancellationToken,
    _stops: DropGuard,
}

/// Balancers share what they call the same service in the same way with.
type PoolKey = (Arc<str>, Protocol);

impl Shared {
    /// Starts to watch and to renew, as soon as there is something to.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub(crate) fn start(cluster: Cluster, watcher: Watcher, cache_dir: Option<PathBuf>) -> Self {
        let watcher_id = watcher.id.clone();
        let zone = watcher.zone.as_str().into();
        let instance_metrics = watcher.instance_metrics;
        let stop = CancellationToken::new();
        let endpoints = || cluster.endpoints().map(str::to_owned).collect();
        let cache = cache_dir.map(|path| Arc::new(Directory::new(path, endpoints())));
        let subscriptions = Arc::new(match &cache {
            None => Subscriptions::default(),
            Some(directory) => {
                let unsaved = Arc::new(Unsaved::default());
                let written = write(Arc::clone(directory), Arc::clone(&unsaved), stop.clone());
                tokio::spawn(written);
                Subscriptions::kept_in(unsaved)
            }
        });
        tokio::spawn(resolve(
            cluster.clone(),
            watcher,
            Arc::clone(&subscriptions),
            stop.clone(),
        ));
        let leases = Arc::new(Leases::default());
        tokio::spawn(renew(cluster.clone(), Arc::clone(&leases), stop.clone()));
        Self {
            cluster,
            watcher_id,
            zone,
            instance_metrics,
            subscriptions,
            leases,
            pools: Mutex::default(),
            cache,
            stop: stop.clone(),
            _stops: stop.drop_guard(),
        }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn watcher_id(&self) -> &str {
        &self.watcher_id
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The pool of a service, shared by all who call it the same way.
    pub(crate) fn pool(&self, service: &str, protocol: Protocol) -> Result<Arc<Pool>, Error> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::from(service), protocol);
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return Ok(pool);
        }
        pools.retain(|_, pool| pool.strong_count() > 0);
        let subscription = self.subscriptions.subscribe(service)?;
        let standpoint = Standpoint {
            caller: self.watcher_id.as_str().into(),
            zone: Arc::clone(&self.zone),
            origin: Instant::now(),
            instance_metrics: self.instance_metrics,
        };
        let pool = Arc::new(Pool::start(subscription, protocol, standpoint));
        self.fall_back(pool.subscription().followed());
        pools.insert(key, Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Has calls follow what is on disk if the registry is silent for long.
    fn fall_back(&self, followed: &Arc<Followed>) {
        if let Some(directory) = &self.cache {
            let (directory, followed) = (Arc::clone(directory), Arc::clone(followed));
            tokio::spawn(fall_back(directory, followed, self.stop.clone()));
        }
    }

    /// The same at once.
    pub(crate) async fn fall_back_now(&self, followed: &Arc<Followed>) {
        if let Some(directory) = &self.cache {
            offer(directory, followed).await;
        }
    }
}

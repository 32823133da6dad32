//! What a client, its balancers and its registrations share and keep running.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::error::Error;
use crate::pool::Pool;
use crate::renewal::{Leases, renew};
use crate::resolver::resolve;
use crate::subscription::Subscriptions;
use crate::watcher::Watcher;

/// The streams to the registry, and what is called through them. The streams
/// end when this is dropped.
pub(crate) struct Shared {
    cluster: Cluster,
    watcher_id: String,
    subscriptions: Arc<Subscriptions>,
    leases: Arc<Leases>,
    pools: Mutex<HashMap<PoolKey, Weak<Pool>>>,
    _stop: DropGuard,
}

/// Balancers share what they call the same service in the same way with.
type PoolKey = (Arc<str>, Protocol);

impl Shared {
    /// Starts to watch and to renew, as soon as there is something to.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub(crate) fn start(cluster: Cluster, watcher: Watcher) -> Self {
        let watcher_id = watcher.id.clone();
        let subscriptions = Arc::new(Subscriptions::default());
        let stop = CancellationToken::new();
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
            subscriptions,
            leases,
            pools: Mutex::default(),
            _stop: stop.drop_guard(),
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
        let pool = Arc::new(Pool::start(subscription, protocol));
        pools.insert(key, Arc::downgrade(&pool));
        Ok(pool)
    }
}

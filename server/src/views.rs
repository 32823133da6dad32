//! The latest view of each service, encoded once and shared by all who read or watch it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::Stream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use trimtab_registry::name::ServiceName;
use trimtab_registry::state::Registry;
use trimtab_registry::view::ServiceView;

/// Turns a view into the bytes that travel. Passed in, since wire types stop
/// at the gRPC door.
pub type Encode = fn(&ServiceView) -> Encoded;

/// A view as it travels.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The encoded view.
    pub bytes: Bytes,
    /// The checksum of `bytes`.
    pub checksum: u64,
}

/// What there is to say about one service at one revision.
#[derive(Debug)]
pub enum Published {
    /// The service is not registered, as of this revision.
    Absent(u64),
    /// The service's view.
    Present(PublishedView),
}

/// One view and, once somebody asked for it, its bytes.
#[derive(Debug)]
pub struct PublishedView {
    /// The view.
    pub view: ServiceView,
    encoded: OnceLock<Encoded>,
    encode: Encode,
}

impl PublishedView {
    /// The bytes that travel: made by the first who asks, shared by all.
    pub fn encoded(&self) -> &Encoded {
        self.encoded.get_or_init(|| (self.encode)(&self.view))
    }
}

impl Published {
    /// The revision this was true at.
    pub fn revision(&self) -> u64 {
        match self {
            Published::Absent(revision) => *revision,
            Published::Present(present) => present.view.revision.0,
        }
    }

    /// The view, when there is one.
    pub fn present(&self) -> Option<&PublishedView> {
        match self {
            Published::Absent(_) => None,
            Published::Present(present) => Some(present),
        }
    }
}

/// The latest views of all services. Written by the one who applies the log,
/// read by everybody without waiting for a writer.
#[derive(Debug)]
pub struct Views {
    services: DashMap<ServiceName, watch::Sender<Arc<Published>>>,
    revision: AtomicU64,
    encode: Encode,
}

impl Views {
    /// No views yet.
    pub fn new(encode: Encode) -> Arc<Views> {
        Arc::new(Views {
            services: DashMap::new(),
            revision: AtomicU64::new(0),
            encode,
        })
    }

    /// The position in the log up to which the views are true.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// What there is to say about a service now.
    pub fn latest(&self, service: &ServiceName) -> Arc<Published> {
        match self.services.get(service) {
            Some(sender) => sender.borrow().clone(),
            None => Arc::new(Published::Absent(self.revision())),
        }
    }

    /// Follow a service, known or not. A reader that is slow skips to the
    /// newest: nothing is queued.
    pub fn subscribe(self: &Arc<Views>, service: ServiceName) -> Subscription {
        let revision = self.revision();
        let receiver = self
            .services
            .entry(service.clone())
            .or_insert_with(|| watch::Sender::new(Arc::new(Published::Absent(revision))))
            .subscribe();
        Subscription {
            changes: Some(WatchStream::new(receiver)),
            service,
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
                Some(view) => self.put(service, self.present(view)),
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
            .services
            .iter()
            .map(|entry| entry.key().clone())
            .filter(|name| registry.service(name).is_none())
            .collect();
        self.publish(registry, known.iter().chain(&gone));
    }

    fn present(&self, view: ServiceView) -> Arc<Published> {
        Arc::new(Published::Present(PublishedView {
            view,
            encoded: OnceLock::new(),
            encode: self.encode,
        }))
    }

    fn put(&self, service: &ServiceName, published: Arc<Published>) {
        if let Some(sender) = self.services.get(service) {
            sender.send_replace(published);
            return;
        }
        self.services
            .entry(service.clone())
            .or_insert_with(|| watch::Sender::new(Arc::clone(&published)))
            .send_replace(published);
    }

    fn end(&self, service: &ServiceName, revision: u64) {
        if let Some(sender) = self.services.get(service) {
            sender.send_replace(Arc::new(Published::Absent(revision)));
        }
        self.forget(service);
    }

    /// Names that nobody follows and nobody registered leave nothing behind.
    fn forget(&self, service: &ServiceName) {
        self.services.remove_if(service, |_, sender| {
            sender.receiver_count() == 0 && sender.borrow().present().is_none()
        });
    }
}

/// One reader's place on one service: what there is to say now, then what
/// there is to say after each change.
#[derive(Debug)]
pub struct Subscription {
    changes: Option<WatchStream<Arc<Published>>>,
    service: ServiceName,
    views: Arc<Views>,
}

impl Stream for Subscription {
    type Item = Arc<Published>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.changes {
            Some(changes) => Pin::new(changes).poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.changes = None;
        self.views.forget(&self.service);
    }
}

//! Being found: register when ready, stay registered, leave without a failed call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::registration_client::RegistrationClient;

use crate::cluster::{DEFAULT_DEADLINE, Repeat};
use crate::error::Error;
use crate::kept::{Kept, RETRY_FIRST, START_WITHIN, keep};
use crate::many::start_all;
use crate::operator::Operator;
use crate::renewal::{Key, Lease};
use crate::shared::Shared;

/// How long [`Registration::drain`] waits for callers unless told otherwise:
/// well above the time a view takes to every caller that lives.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is said of an instance when it registers. Call
/// [`start`](RegistrationBuilder::start).
#[derive(Clone)]
#[must_use = "call start() to register"]
pub struct RegistrationBuilder {
    client: Arc<Shared>,
    request: wire::RegisterRequest,
    instance: wire::Instance,
    ttl: Option<Duration>,
    within: Duration,
}

/// Whether an instance takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet. Callers may connect.
    Starting,
    /// It does.
    Ready,
}

/// How leaving went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Whether every caller said in time that it sends nothing any more.
    pub complete: bool,
    /// Callers that had not, by name; at most 100.
    pub laggards: Vec<String>,
}

/// An instance that is registered, and stays so until this is drained,
/// deregistered or dropped.
///
/// Dropped without a word, it is not renewed any more: callers prefer others
/// at once, and the registry removes it when its lease ends.
pub struct Registration {
    kept: Arc<Kept>,
    _stop: DropGuard,
}

// === impl RegistrationBuilder ===

impl RegistrationBuilder {
    pub(crate) fn new(
        client: Arc<Shared>,
        service: String,
        group: String,
        address: String,
    ) -> Self {
        Self {
            client,
            request: wire::RegisterRequest {
                service,
                ..wire::RegisterRequest::default()
            },
            instance: wire::Instance {
                id: format!("{:016x}", rand::random::<u64>()),
                group,
                address,
                status: wire::InstanceStatus::Ready.into(),
                ..wire::Instance::default()
            },
            ttl: None,
            within: START_WITHIN,
        }
    }

    /// Unique within the service: 1 to 64 of `[a-z0-9._-]`. Random by default.
    /// One that is kept over restarts keeps what operators set on the instance.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.instance.id = id.into();
        self
    }

    /// The failure domain it is in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.instance.zone = zone.into();
        self
    }

    /// Its weight within its group, 1 to 10,000; 100 unless set.
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.instance.capacity = capacity;
        self
    }

    /// A pair that callers can read: at most 32 of them.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.instance.metadata.insert(key.into(), value.into());
        self
    }

    /// How long it stays registered after its last renewal, 1 second to 10
    /// minutes; 15 seconds unless set. It is renewed three times within.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Registers as [`Readiness::Starting`]; say
    /// [`Registration::set_readiness`] when it serves.
    pub fn starting(mut self) -> Self {
        self.instance.status = wire::InstanceStatus::Starting.into();
        self
    }

    /// How long to try while the registry is unavailable; 30 seconds unless
    /// set.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Registers, and renews from now on. Call it when the instance listens.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field, its value and the rule;
    /// [`Error::Refused`] when the group is being torn down;
    /// [`Error::Unavailable`] when no replica took it in time.
    pub async fn start(self) -> Result<Registration, Error> {
        let within = self.within;
        let prepared = self.prepare()?;
        prepared.registration.kept.register_within(within).await?;
        Ok(prepared.begin())
    }

    /// Registers many, and renews them from now on: so many calls of
    /// [`start`](RegistrationBuilder::start) at the price of a few, for
    /// whoever registers others. One result for each, in their order; what
    /// fails for one leaves the others alone. All are tried for as long as
    /// the most patient of them says.
    ///
    /// # Errors
    /// Each as [`start`](RegistrationBuilder::start).
    pub async fn start_all(
        builders: impl IntoIterator<Item = RegistrationBuilder>,
    ) -> Vec<Result<Registration, Error>> {
        start_all(builders.into_iter().collect()).await
    }

    pub(crate) fn patience(&self) -> Duration {
        self.within
    }

    /// All but the registration itself.
    pub(crate) fn prepare(mut self) -> Result<Prepared, Error> {
        let ttl = self.ttl.map(prost_types::Duration::try_from).transpose();
        self.request.ttl = ttl.map_err(|_| {
            let given = self.ttl.unwrap_or_default();
            Error::Invalid(format!("ttl {given:?} must be 1 second to 10 minutes"))
        })?;
        let key = Key {
            service: self.request.service.clone(),
            instance_id: self.instance.id.clone(),
        };
        self.request.instance = Some(self.instance);
        let lease = Arc::new(Lease::new(key));
        self.client.leases().add(&lease)?;
        let stop = CancellationToken::new();
        let registration = Registration {
            kept: Arc::new(Kept::new(self.client, lease, self.request)),
            _stop: stop.clone().drop_guard(),
        };
        Ok(Prepared { registration, stop })
    }
}

/// An instance that is about to be registered.
pub(crate) struct Prepared {
    registration: Registration,
    stop: CancellationToken,
}

impl Prepared {
    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.registration.kept
    }

    /// It has its lease: keeps it from now on.
    pub(crate) fn begin(self) -> Registration {
        tokio::spawn(keep(Arc::clone(&self.registration.kept), self.stop));
        self.registration
    }
}

impl fmt::Debug for RegistrationBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationBuilder")
            .field("service", &self.request.service)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

// === impl Registration ===

impl Registration {
    /// The service it belongs to.
    pub fn service(&self) -> &str {
        &self.kept.lease.key.service
    }

    /// What it is called within the service.
    pub fn id(&self) -> &str {
        &self.kept.lease.key.instance_id
    }

    /// Says whether it takes calls.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no replica took it within 5 seconds. The
    /// wish is kept: it is part of the next registration, should the lease be
    /// lost.
    pub async fn set_readiness(&self, readiness: Readiness) -> Result<(), Error> {
        let status = match readiness {
            Readiness::Starting => wire::InstanceStatus::Starting,
            Readiness::Ready => wire::InstanceStatus::Ready,
        };
        self.kept.wish(status);
        match self.kept.set_status(status, DEFAULT_DEADLINE).await {
            // Lost meanwhile: it is registered anew as wished.
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Resolves when the registry tells the instance to leave, because its
    /// group is being torn down. [`drain`](Registration::drain) then.
    pub async fn retired(&self) {
        let mut retired = self.kept.lease.retired.subscribe();
        // Fails only when the sender is gone, which `self` holds.
        let _ = retired.wait_for(|retired| *retired).await;
    }

    /// Whether the registry has told the instance to leave.
    pub fn is_retired(&self) -> bool {
        *self.kept.lease.retired.borrow()
    }

    /// Leaves without a failed call: says DRAINING, waits until every caller
    /// has said that it sends nothing new, at most `wait`, and deregisters.
    /// Then end the server in order: what callers sent before they said so may
    /// be about to arrive, and what is being answered is the server's to
    /// finish. `client/examples/graceful_shutdown.rs` does all of it.
    ///
    /// A caller that is not connected to the registry is not waited for; it
    /// sees the server close its connections.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the registry could not be told within
    /// `wait`, or 5 seconds if that is longer; the lease then ends by itself.
    pub async fn drain(self, wait: Duration) -> Result<Drained, Error> {
        let drained = self.stop_calls(wait).await?;
        self.deregister().await?;
        Ok(drained)
    }

    /// The first part of [`drain`](Registration::drain): says DRAINING, and
    /// waits until every caller has said that it sends nothing new, at most
    /// `wait`. It stays registered, for operators to see, and takes no calls
    /// ever again; [`deregister`](Registration::deregister) it when the last
    /// is answered. May be given up, and asked again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the registry could not be told.
    pub async fn stop_calls(&self, wait: Duration) -> Result<Drained, Error> {
        let begun = Instant::now();
        self.kept.settle().await;
        let status = wire::InstanceStatus::Draining;
        let revision = self
            .kept
            .set_status(status, wait.max(DEFAULT_DEADLINE))
            .await?;
        Ok(match revision {
            Some(revision) => self.receipts(revision, begun, wait).await,
            None => Drained {
                complete: true,
                laggards: Vec::new(),
            },
        })
    }

    /// Leaves at once. Calls that are on their way may fail.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the registry could not be told; the lease
    /// then ends by itself.
    pub async fn deregister(self) -> Result<(), Error> {
        self.kept.settle().await;
        let lease = self.kept.lease.reference();
        // Not renewed from here on.
        self.kept.client.leases().remove(&self.kept.lease);
        let Some(lease) = lease else {
            return Ok(());
        };
        let request = wire::DeregisterRequest { lease: Some(lease) };
        let cluster = self.kept.client.cluster();
        cluster
            .call("Deregister", Repeat::Safe, DEFAULT_DEADLINE, |channel| {
                let request = request.clone();
                async move { RegistrationClient::new(channel).deregister(request).await }
            })
            .await?;
        Ok(())
    }

    /// Follows who uses `revision` until all do or `wait` is over.
    async fn receipts(&self, revision: u64, begun: Instant, wait: Duration) -> Drained {
        let operator = Operator::new(self.kept.client.cluster().clone());
        let services = [self.service().to_owned()];
        let mut receipts = operator.receipts(&services, revision);
        let mut laggards = Vec::new();
        loop {
            let remaining = wait.saturating_sub(begun.elapsed());
            match timeout(remaining, receipts.next()).await {
                Ok(Ok(Some(progress))) => {
                    laggards = progress
                        .laggards
                        .into_iter()
                        .map(|laggard| laggard.name)
                        .collect();
                    if progress.complete {
                        break;
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "cannot see who still calls this instance");
                    sleep(RETRY_FIRST.min(remaining)).await;
                }
                Err(_) => {
                    return Drained {
                        complete: false,
                        laggards,
                    };
                }
            }
        }
        Drained {
            complete: true,
            laggards: Vec::new(),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.kept.client.leases().remove(&self.kept.lease);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

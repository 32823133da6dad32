//! One instance's registration as it is kept: taken, taken anew when lost, and told its status.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::registration_client::RegistrationClient;

use crate::backoff::Backoff;
use crate::cluster::{DEFAULT_DEADLINE, Repeat};
use crate::error::Error;
use crate::renewal::Lease;
use crate::shared::Shared;

/// A start outlasts a restart of the whole registry.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(30);

/// Between attempts to register while the registry is away.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(2);

/// A lease that was held for so long was a real one. What is lost sooner, again
/// and again, is waited with before it is taken anew: each is a write to the
/// registry's log.
const REAL_AFTER: Duration = Duration::from_secs(10);

/// What the registration and the task that restores it share.
pub(crate) struct Kept {
    pub(crate) client: Arc<Shared>,
    pub(crate) lease: Arc<Lease>,
    request: Mutex<wire::RegisterRequest>,
    /// Held while a lease is being taken.
    taking: AsyncMutex<()>,
}

// === impl Kept ===

impl Kept {
    pub(crate) fn new(
        client: Arc<Shared>,
        lease: Arc<Lease>,
        request: wire::RegisterRequest,
    ) -> Self {
        Self {
            client,
            lease,
            request: Mutex::new(request),
            taking: AsyncMutex::new(()),
        }
    }

    /// What a registration from now on says.
    pub(crate) fn wish(&self, status: wire::InstanceStatus) {
        let mut request = self.request();
        if let Some(instance) = &mut request.instance {
            instance.status = status.into();
        }
    }

    /// No lease is taken from here on, and what is being taken has been: a
    /// lease that comes late is there to be given back.
    pub(crate) async fn settle(&self) {
        self.wish(wire::InstanceStatus::Draining);
        // As long as an attempt may last; beyond that its outcome is unknown.
        let _ = timeout(DEFAULT_DEADLINE, self.taking.lock()).await;
    }

    fn is_leaving(&self) -> bool {
        self.wished() == wire::InstanceStatus::Draining
    }

    fn wished(&self) -> wire::InstanceStatus {
        self.request()
            .instance
            .as_ref()
            .map(wire::Instance::status)
            .unwrap_or_default()
    }

    fn request(&self) -> MutexGuard<'_, wire::RegisterRequest> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to register as long as the registry is away.
    pub(crate) async fn register_within(&self, within: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            let remaining = within.saturating_sub(begun.elapsed());
            let error = match self.register(remaining.min(DEFAULT_DEADLINE)).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let wait = backoff.next(&mut rand::rng());
            if !error.is_transient() || wait >= within.saturating_sub(begun.elapsed()) {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    /// Takes the lease. Doing it twice only makes the lease a newer one.
    async fn register(&self, deadline: Duration) -> Result<(), Error> {
        let taking = self.taking.lock().await;
        if self.is_leaving() {
            return Err(Error::Closed);
        }
        let request = self.request().clone();
        let said = request
            .instance
            .as_ref()
            .map(wire::Instance::status)
            .unwrap_or_default();
        let cluster = self.client.cluster();
        let granted = cluster
            .call("Register", Repeat::Safe, deadline, |channel| {
                let request = request.clone();
                async move { RegistrationClient::new(channel).register(request).await }
            })
            .await?;
        self.take(&granted)?;
        drop(taking);
        // Another wish may have come while this was under way, and found no
        // lease to set it on.
        let wished = self.wished();
        if wished != said {
            self.set_status(wished, deadline).await?;
        }
        Ok(())
    }

    /// What is said when it registers now.
    pub(crate) fn asks(&self) -> wire::RegisterRequest {
        self.request().clone()
    }

    /// Takes the lease that the registry granted.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is none.
    pub(crate) fn take(&self, granted: &wire::RegisterResponse) -> Result<(), Error> {
        let interval: Option<Duration> = granted
            .renew_interval
            .and_then(|interval| trimtab_proto::duration::parse(&interval));
        let interval = interval
            .ok_or_else(|| Error::Malformed("registration: it has no renewal interval".into()))?;
        if granted.lease == 0 {
            return Err(Error::Malformed("registration: its lease is 0".into()));
        }
        self.client
            .leases()
            .granted(&self.lease, granted.lease, interval);
        tracing::info!(
            service = %self.lease.key.service, instance = %self.lease.key.instance_id,
            revision = granted.revision, "registered"
        );
        Ok(())
    }

    /// The revision of the change; `None` when the lease is lost.
    pub(crate) async fn set_status(
        &self,
        status: wire::InstanceStatus,
        deadline: Duration,
    ) -> Result<Option<u64>, Error> {
        let Some(lease) = self.lease.reference() else {
            return Ok(None);
        };
        let number = lease.lease;
        let request = wire::SetStatusRequest {
            lease: Some(lease),
            status: status.into(),
        };
        let cluster = self.client.cluster();
        let set = cluster
            .call("SetStatus", Repeat::Safe, deadline, |channel| {
                let request = request.clone();
                async move { RegistrationClient::new(channel).set_status(request).await }
            })
            .await;
        match set {
            Ok(response) => Ok(Some(response.revision)),
            Err(Error::NotFound(_)) => {
                self.lease.is_lost(number);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Registers anew whenever the lease is lost, until `stop`.
pub(crate) async fn keep(kept: Arc<Kept>, stop: CancellationToken) {
    let key = &kept.lease.key;
    let work = async {
        let mut taken = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            kept.lease.lost.notified().await;
            if kept.is_leaving() {
                return;
            }
            tracing::warn!(
                service = %key.service, instance = %key.instance_id,
                "the lease was lost, registering anew"
            );
            if taken.elapsed() >= REAL_AFTER {
                backoff.reset();
            }
            let wait = backoff.next(&mut rand::rng());
            sleep(wait).await;
            if !take_again(&kept).await {
                return;
            }
            taken = Instant::now();
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Tries until there is a lease; false when there is to be none.
async fn take_again(kept: &Kept) -> bool {
    let service = &kept.lease.key.service;
    loop {
        match kept.register_within(START_WITHIN).await {
            Ok(()) => return true,
            Err(Error::Closed) => return false,
            Err(Error::Refused(reason)) => {
                tracing::warn!(%service, %reason, "told to leave");
                kept.lease.retired.send_replace(true);
                return false;
            }
            Err(error) => {
                tracing::error!(%service, %error, "not registered");
                sleep(RETRY_MOST).await;
            }
        }
    }
}

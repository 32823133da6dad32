//! The registry of a test: started, told what to say, looked at, and broken.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use trimtab_proto::v1::discovery_server::DiscoveryServer;
use trimtab_proto::v1::registration_server::RegistrationServer;
use trimtab_proto::v1::routing_server::RoutingServer;

use crate::error::Error;
use crate::testing::discovery::FakeDiscovery;
use crate::testing::fake_service::FakeService;
use crate::testing::line::{Line, Mode};
use crate::testing::registration::FakeRegistrations;
use crate::testing::routing::FakeRouting;
use crate::testing::state::Shared;
use crate::testing::told::Told;

/// Whatever is waited for comes in milliseconds; a busy machine may take long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between attempts to have a port again that was in use a moment ago.
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// Connections that wait to be served.
const BACKLOG: usize = 16;

/// What its first cluster is called.
const CLUSTER: u64 = 1;

/// A registry of one replica, for one test. Ends when dropped, with all its
/// connections.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl FakeRegistry {
    /// Starts on a free port of 127.0.0.1. It knows no services yet.
    ///
    /// # Errors
    /// When the system has no port to give.
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.state().cluster = CLUSTER;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self {
            address: listener.local_addr()?,
            running: Some(Running::start(listener, &shared)),
            shared,
        })
    }

    /// Where it listens, as [`Client::connect`](crate::Client::connect) takes
    /// it. The same after a restart.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Has a service be like this, whatever it was before, in one revision,
    /// which it returns. A group that had weight before is known to have
    /// carried traffic.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the weights do not sum to 10,000.
    pub fn publish(&self, service: FakeService) -> Result<u64, Error> {
        self.shared.tell(|state| state.publish(service))
    }

    /// Changes a service that there is, in one revision, which it returns.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such service; [`Error::Invalid`]
    /// when its weights no longer sum to 10,000.
    pub fn change(
        &self,
        service: &str,
        change: impl FnOnce(&mut FakeService),
    ) -> Result<u64, Error> {
        self.shared.tell(|state| {
            let known = state.service(service).cloned();
            let mut changed = known.ok_or_else(|| {
                Error::NotFound(format!("service {service:?} was never published"))
            })?;
            change(&mut changed);
            state.publish(changed)
        })
    }

    /// Forgets a service: callers are told that it is not registered. Returns
    /// the revision of that.
    pub fn remove(&self, service: &str) -> u64 {
        self.shared.tell(|state| state.remove(service))
    }

    /// Everything it was told so far.
    pub fn told(&self) -> Told {
        self.shared.state().told()
    }

    /// Waits until what it was told fulfils `condition`.
    ///
    /// # Errors
    /// [`Error::Deadline`] when that takes a minute; `what` is in its message.
    pub async fn until(
        &self,
        what: &str,
        condition: impl Fn(&Told) -> bool,
    ) -> Result<Told, Error> {
        let mut changed = self.shared.told.subscribe();
        let fulfilled = async {
            loop {
                changed.borrow_and_update();
                let told = self.told();
                if condition(&told) {
                    return told;
                }
                if changed.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        timeout(PATIENCE, fulfilled)
            .await
            .map_err(|_| Error::Deadline {
                waiting_for: format!("{what}, of which the registry was told {:?},", self.told()),
                after: PATIENCE,
            })
    }

    /// Tells an instance, with its next renewal, that it is to leave.
    pub fn retire(&self, service: &str, id: &str) {
        self.shared.tell(|state| state.retire(service, id));
    }

    /// Ends an instance's lease, as if it had expired: callers are told that it
    /// is gone, and it that its lease is lost.
    pub fn expire(&self, service: &str, id: &str) {
        self.shared.tell(|state| state.lose(service, id));
    }

    /// Refuses registrations from now on, with this reason; `None` takes them
    /// again.
    pub fn refuse_registrations(&self, reason: Option<&str>) {
        self.shared
            .tell(|state| state.refusal = reason.map(str::to_owned));
    }

    /// How often instances that register from now on are to renew, instead of
    /// three times within their TTL.
    pub fn renew_every(&self, interval: Duration) {
        self.shared
            .tell(|state| state.renew_interval = Some(interval));
    }

    /// Forgets everything, as if the registry had been founded anew on empty
    /// disks: another cluster, whose revisions begin again. Restart it to have
    /// callers notice.
    pub fn found_anew(&self) {
        self.shared.tell(|state| {
            let next = state.cluster + 1;
            state.found_anew(next);
        });
    }

    /// Stops, as if it had been killed: connections break, and nobody listens.
    /// What it knows is kept for a restart.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts again, at the same address, with what it knew; stops first if it
    /// runs.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let begun = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => sleep(BIND_PAUSE).await,
            }
        };
        self.running = Some(Running::start(listener, &self.shared));
        Ok(())
    }

    /// Goes on listening, and neither reads nor answers, as behind a switch
    /// that died; or ends that.
    pub fn set_silent(&self, silent: bool) {
        if let Some(running) = &self.running {
            let mode = if silent { Mode::Silent } else { Mode::Open };
            running.mode.send_replace(mode);
        }
    }
}

impl Running {
    fn start(listener: TcpListener, shared: &Arc<Shared>) -> Self {
        let mode = watch::Sender::new(Mode::Open);
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let modes = mode.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // No connection could be opened; one may end meanwhile.
                    sleep(BIND_PAUSE).await;
                    continue;
                };
                let line = Line::new(stream, modes.subscribe());
                if sender.send(Ok::<_, io::Error>(line)).await.is_err() {
                    return;
                }
            }
        });
        let server = Server::builder()
            .add_service(DiscoveryServer::new(FakeDiscovery(Arc::clone(shared))))
            .add_service(RegistrationServer::new(FakeRegistrations(Arc::clone(
                shared,
            ))))
            .add_service(RoutingServer::new(FakeRouting(Arc::clone(shared))));
        let serving = server.serve_with_incoming(ReceiverStream::new(incoming));
        let serving = tokio::spawn(async move {
            // Ends when it is stopped, and has nobody to tell before that.
            let _ = serving.await;
        });
        Self {
            mode,
            accepting,
            serving,
        }
    }

    async fn stop(mut self) {
        self.mode.send_replace(Mode::Cut);
        self.accepting.abort();
        self.serving.abort();
        // Whoever connects after this must find nobody.
        let _ = (&mut self.accepting).await;
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.accepting.abort();
        self.serving.abort();
    }
}

//! The way in: one client per process and registry, from which services are called and registered.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::balancer::Balancer;
use crate::call::CallOptions;
use crate::cluster::Cluster;
use crate::connection::{PING_INTERVAL, Protocol};
use crate::error::Error;
use crate::make_balancer::MakeBalancer;
use crate::pool::Pool;
use crate::registration::RegistrationBuilder;
use crate::shared::Shared;
use crate::subscription::Known;
use crate::watcher::{Watcher, process_name};

/// Longer than an election and a reconnect, so that neither fails a start.
const FIRST_VIEW_WITHIN: Duration = Duration::from_secs(5);

/// Calls survive the moment between the end of one instance and the
/// connection to the next.
const WAIT_FOR_READY: Duration = Duration::from_secs(3);

/// A process's connection to the registry. Cheap to clone.
///
/// One watch stream, and one renewal stream where instances are registered,
/// serve the whole process. They end when the client, its balancers and its
/// registrations are dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What can be said of a process before it connects.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    name: Option<String>,
    zone: String,
    watcher_id: Option<String>,
    report_interval: Option<Duration>,
    cache_dir: Option<PathBuf>,
    instance_metrics: bool,
}

/// How a service is to be called. Await it.
#[derive(Debug, Clone)]
#[must_use = "await it to get the balancer"]
pub struct ServiceBuilder {
    client: Client,
    service: String,
    protocol: Protocol,
    options: CallOptions,
    first_view_within: Duration,
    may_be_absent: bool,
}

// === impl Client ===

impl Client {
    /// A client of the replicas in `endpoints`, a comma separated list of
    /// `host:port`. Connects to nothing yet: the registry need not be up.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the endpoint that cannot be read.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect(endpoints: &str) -> Result<Self, Error> {
        Self::builder().connect(endpoints)
    }

    /// As [`Client::connect`], with more to say of this process.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            name: None,
            zone: String::new(),
            watcher_id: None,
            report_interval: None,
            cache_dir: None,
            instance_metrics: false,
        }
    }

    /// Calls to `service`. Awaiting it gives the balancer, once the service is
    /// known.
    pub fn service(&self, service: impl Into<String>) -> ServiceBuilder {
        ServiceBuilder {
            client: self.clone(),
            service: service.into(),
            protocol: Protocol::Http2 {
                ping_interval: Some(PING_INTERVAL),
            },
            options: CallOptions {
                wait_for_ready: WAIT_FOR_READY,
                idempotent: false,
                timeout: None,
                attempt_timeout: None,
            },
            first_view_within: FIRST_VIEW_WITHIN,
            may_be_absent: false,
        }
    }

    /// Balancers by the name of their service, for code that is built on tower.
    pub fn make_balancer(&self) -> MakeBalancer {
        MakeBalancer::new(self.clone())
    }

    /// One instance of `service`: the release it runs, and the `host:port`
    /// that callers connect to. Start it when it listens.
    pub fn register(
        &self,
        service: impl Into<String>,
        group: impl Into<String>,
        address: impl Into<String>,
    ) -> RegistrationBuilder {
        let client = Arc::clone(&self.shared);
        RegistrationBuilder::new(client, service.into(), group.into(), address.into())
    }

    /// The replicas.
    pub fn cluster(&self) -> &Cluster {
        self.shared.cluster()
    }

    /// What this process is called in receipts.
    pub fn watcher_id(&self) -> &str {
        self.shared.watcher_id()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("watcher_id", &self.watcher_id())
            .field("cluster", self.cluster())
            .finish_non_exhaustive()
    }
}

// === impl ClientBuilder ===

impl ClientBuilder {
    /// What an operator would call this process, at most 128 bytes. The
    /// default is the name of the program and its process id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The failure domain this process is in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Unique for this process, 1 to 64 of `[a-z0-9._-]`. Random by default.
    #[must_use]
    pub fn watcher_id(mut self, id: impl Into<String>) -> Self {
        self.watcher_id = Some(id.into());
        self
    }

    /// How often to report loads, between 50 ms and 60 s, instead of as often
    /// as the registry asks for.
    #[must_use]
    pub fn report_interval(mut self, interval: Duration) -> Self {
        self.report_interval = Some(interval);
        self
    }

    /// Counts calls by instance as well, in a metric of its own. Off unless
    /// set: a recorder keeps what it counts by instances that are long gone.
    #[must_use]
    pub fn instance_metrics(mut self, wanted: bool) -> Self {
        self.instance_metrics = wanted;
        self
    }

    /// Keeps the last view of each service in this directory, so that a process
    /// that starts while no replica answers can call what it could call before.
    /// The directory is made if it is not there, and may be shared by processes
    /// and registries: at most 2,048 files and 512 MiB are kept in it.
    ///
    /// A view is written within seconds after it is taken. It is used when the
    /// registry has said nothing of the service for half a second after the
    /// start, until it does. A file that is damaged, that another layout of
    /// this crate wrote or that is another registry's is not used; neither that
    /// nor a disk that cannot be written to is more than a warning.
    ///
    /// An instance that went away meanwhile is not connected and so not called.
    /// But an address that has been given to something else may be: keep the
    /// directory where it does not outlive the machine's place in the network.
    #[must_use]
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(path.into());
        self
    }

    /// As [`Client::connect`].
    ///
    /// # Errors
    /// [`Error::Invalid`] names the endpoint, or the id or name, that cannot
    /// be used.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect(self, endpoints: &str) -> Result<Client, Error> {
        let watcher = Watcher {
            id: self
                .watcher_id
                .unwrap_or_else(|| format!("{:016x}", rand::random::<u64>())),
            name: self.name.unwrap_or_else(process_name),
            zone: self.zone,
            report_interval: self.report_interval,
            instance_metrics: self.instance_metrics,
        };
        watcher.check()?;
        // A crowd with one list spreads over the replicas.
        let cluster = Cluster::parse(endpoints)?.starting_at(rand::random_range(0..usize::MAX));
        Ok(Client {
            shared: Arc::new(Shared::start(cluster, watcher, self.cache_dir)),
        })
    }
}

// === impl ServiceBuilder ===

impl ServiceBuilder {
    /// How long a call waits for an instance to be connected when none is;
    /// 3 seconds unless set. Zero: not at all.
    pub fn wait_for_ready(mut self, wait: Duration) -> Self {
        self.options.wait_for_ready = wait;
        self
    }

    /// Says of all calls what [`Idempotent`](crate::call::Idempotent) says of
    /// one: they may be sent again when their instance is lost, fails, or keeps
    /// them waiting.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = idempotent;
        self
    }

    /// How long a call may take, its whole answer included, if the call does
    /// not say so itself; for ever unless set. The instance is told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long a call that may be repeated waits for one instance before
    /// another is asked as well; the first to answer counts. Not later than a
    /// third of the time that the call has, in any case. Unless set: 5 seconds,
    /// or four times what other instances of the service take, if that is
    /// longer.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = Some(timeout);
        self
    }

    /// For calls by other protocols than HTTP/2: an instance counts as
    /// connected when a TCP connect succeeded, until
    /// [`Picked::unreachable`](crate::balancer::Picked::unreachable). Such a
    /// balancer answers [`pick`](Balancer::pick) only.
    pub fn tcp(mut self) -> Self {
        self.protocol = Protocol::Tcp;
        self
    }

    /// How often to ping an instance to notice that it hangs; every 5 seconds
    /// unless set. `None` for servers that do not want pings, as those of
    /// gRPC for Go and C++ do not by default.
    pub fn ping_interval(mut self, interval: Option<Duration>) -> Self {
        self.protocol = Protocol::Http2 {
            ping_interval: interval,
        };
        self
    }

    /// How long to wait for the first word of the registry; 5 seconds unless
    /// set. Zero: not at all, calls wait instead.
    pub fn first_view_within(mut self, wait: Duration) -> Self {
        self.first_view_within = wait;
        self
    }

    /// Take a service that is not registered yet for one without instances.
    pub fn may_be_absent(mut self) -> Self {
        self.may_be_absent = true;
        self
    }

    /// The balancer, once the service is known. The same as awaiting the
    /// builder.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the registry says that the service is not
    /// registered; [`Error::Deadline`] when no replica said anything in time;
    /// [`Error::Invalid`] when this client follows 1,024 services already.
    pub async fn build(self) -> Result<Balancer, Error> {
        let shared = &self.client.shared;
        let pool = shared.pool(&self.service, self.protocol)?;
        if !self.first_view_within.is_zero() {
            self.await_first_view(&pool).await?;
        }
        Ok(Balancer::new(pool, self.options, Arc::clone(shared)))
    }

    async fn await_first_view(&self, pool: &Pool) -> Result<(), Error> {
        let mut known = pool.subscription().known();
        let first = known.wait_for(|known| !matches!(known, Known::Nothing));
        let heard = match timeout(self.first_view_within, first).await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => false,
        };
        if !heard {
            let followed = pool.subscription().followed();
            self.client.shared.fall_back_now(followed).await;
        }
        match *known.borrow() {
            Known::Nothing => return Err(self.nothing_heard()),
            Known::Absent { revision } if !self.may_be_absent => {
                return Err(Error::NotFound(format!(
                    "service {:?} is not registered, as of revision {revision}",
                    self.service
                )));
            }
            Known::Absent { .. } | Known::View { .. } => {}
        }
        pool.first_picker().await;
        Ok(())
    }

    fn nothing_heard(&self) -> Error {
        let replicas: Vec<&str> = self.client.cluster().endpoints().collect();
        Error::Deadline {
            waiting_for: format!(
                "the first view of {} from any of {}",
                self.service,
                replicas.join(", ")
            ),
            after: self.first_view_within,
        }
    }
}

impl IntoFuture for ServiceBuilder {
    type Output = Result<Balancer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.build())
    }
}

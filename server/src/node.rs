//! One replica: puts the rooms together, and starts and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};
use trimtab_proto::internal::v1::peer_server::PeerServer;
use trimtab_proto::v1::cluster_server::ClusterServer;
use trimtab_proto::v1::registration_server::RegistrationServer;
use trimtab_proto::v1::routing_server::RoutingServer;

use crate::config::Config;
use crate::consensus::start::{self, Settings, StartError};
use crate::consensus::status::ConsensusStatus;
use crate::convert::WIRE;
use crate::enrolment::{EnrolError, enrol};
use crate::gathering::Gathering;
use crate::grpc::cluster::ClusterService;
use crate::grpc::context::Context;
use crate::grpc::discovery::DiscoveryService;
use crate::grpc::peer::PeerService;
use crate::grpc::registration::RegistrationService;
use crate::grpc::routing::RoutingService;
use crate::lease_keeper::LeaseKeeper;
use crate::observation::{CONTACT_INTERVAL, Observer};
use crate::peers::error::PeerError;
use crate::peers::{Contact, MESSAGE_BYTES_MAX, Own, Peers};
use crate::publish::Publisher;
use crate::relay;
use crate::removal;
use crate::renewals::Renewals;
use crate::storage::error::StorageError;
use crate::storage::file::{FILE_NAME, Identity, Storage};
use crate::storage::gauge::Gauge;
use crate::views::Views;
use crate::watchers::Watchers;

/// A peer that is gone without a word is noticed after this and
/// [`KEEPALIVE_TIMEOUT`]: its streams end, its watchers stop counting.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams on one connection: what a proxy of many callers may multiplex.
const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;
/// What a request of a client may be: 10,000 leases of the longest names.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longer than the usual election: one round of votes, or two.
const ELECTION_TAKES: Duration = Duration::from_secs(2);
/// How long open requests may take to end when the replica stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The address of another replica cannot be used.
    #[error(transparent)]
    Peers(#[from] PeerError),
    /// It has no cluster, and gets none.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The log cannot be resumed.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A running replica.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    context: Context,
    /// Ends what other replicas need: after leadership was handed over.
    closing: CancellationToken,
    server: JoinHandle<()>,
    tasks: TaskTracker,
}

impl Node {
    /// Listens on the configured address and starts. With an empty data
    /// directory it waits until all founders are there, or a cluster takes it
    /// in; dropped meanwhile, it has left nothing behind.
    ///
    /// # Errors
    /// When the address, the data directory or the log in it cannot be used, or
    /// the cluster knows this replica with another data directory.
    pub async fn start(config: Config) -> Result<Node, NodeError> {
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| NodeError::Listen { address, source })?;
        Node::start_on(listener, config).await
    }

    /// Starts on a socket that is already bound; `config.listen` is not used.
    ///
    /// # Errors
    /// When the data directory or the log in it cannot be used.
    pub async fn start_on(listener: TcpListener, config: Config) -> Result<Node, NodeError> {
        let address = listener.local_addr().map_err(|source| NodeError::Listen {
            address: config.listen,
            source,
        })?;
        let was_down = config.data_dir.join(FILE_NAME).exists();
        let fresh = Identity::of_new(config.id, rand::random());
        let mut storage = Storage::open(&config.data_dir, fresh)?;
        let gauge = Gauge::new(storage.path().to_owned());
        // Port 0 has the system choose one: others need to know which.
        let advertised = match config.advertise() {
            chosen if chosen.ends_with(":0") => address.to_string(),
            advertised => advertised.to_owned(),
        };
        let listener = enrol(listener, &mut storage, &advertised, &config.way()).await?;
        let own = own(&storage, &advertised);
        let peers = Peers::new(own, config.members.clone())?;
        let views = Views::new(WIRE);
        let watchers = Arc::new(Watchers::default());
        let keeper = Arc::new(LeaseKeeper::new(config.leases));
        let (sender, relay) = relay::relay();
        let renewals = Renewals::new(config.id, Arc::clone(&keeper), sender);
        let started = Instant::now();
        let settles_at = storage.settles_for()?.map(|settle| {
            info!(
                ?settle,
                "restored from a snapshot; views are held back while instances register anew"
            );
            started + settle
        });
        let publisher = Publisher {
            views: Arc::clone(&views),
            watchers: Arc::clone(&watchers),
            renewals: Arc::clone(&renewals),
            keeper: Arc::clone(&keeper),
        };
        let settings = Settings {
            tick_interval: config.tick_interval,
            snapshot_every: config.snapshot_every,
            ..Settings::new(rand::random())
        };
        let handle = start::start(settings, storage, peers.clone(), publisher)?;
        let (watched, others) = (Arc::clone(&watchers), peers.clone());
        let observer = Observer::new(config.id, started, was_down, watched, others);
        let (cuts, cut_off) = watch::channel(false);
        let context = Context {
            id: config.id,
            started,
            handle,
            gauge,
            peers,
            views,
            watchers,
            renewals,
            keeper,
            observer: Arc::new(observer),
            cut_off,
            standing: Arc::default(),
            settles_at,
            stop: CancellationToken::new(),
        };

        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (handle, peers) = (context.handle.clone(), context.peers.clone());
        let keeper = Arc::clone(&context.keeper);
        tasks.spawn(Arc::clone(&keeper).run(handle.clone(), closing.clone()));
        tasks.spawn(relay.run(keeper, handle, peers, closing.clone()));
        tasks.spawn(keep_contact(Arc::clone(&context.observer), closing.clone()));
        let cut_off = context.cut_off.clone();
        let (handle, peers) = (context.handle.clone(), context.peers.clone());
        tasks.spawn(removal::find_out(handle, peers, cut_off, closing.clone()));
        tasks.spawn(notice_cuts(context.handle.status(), cuts, closing.clone()));
        let (status, stop) = (context.handle.status(), context.stop.clone());
        tasks.spawn(leave_when_removed(status, stop, closing.clone()));
        let (cut_off, stop) = (context.cut_off.clone(), context.stop.clone());
        tasks.spawn(Arc::clone(&context.standing).follow(cut_off, stop));
        tasks.close();
        let server = tokio::spawn(serve(listener, context.clone(), closing.clone()));
        Ok(Node {
            address,
            context,
            closing,
            server,
            tasks,
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until this replica serves: it has caught up with a leader, and
    /// after a restore has let instances register anew.
    ///
    /// # Errors
    /// What stopped it before that.
    pub async fn ready(&self) -> Result<(), String> {
        let mut status = self.context.handle.status();
        let decided = status.wait_for(|status| status.caught_up || status.fatal.is_some());
        match decided.await {
            Ok(status) => {
                if let Some(reason) = &status.fatal {
                    return Err(reason.clone());
                }
            }
            Err(_) => return Err("the replica has stopped".to_owned()),
        }
        if let Some(at) = self.context.settles_at {
            sleep_until(at).await;
        }
        Ok(())
    }

    /// Waits until the replica stops by itself, and tells why.
    pub async fn failed(&self) -> String {
        let mut status = self.context.handle.status();
        match status.wait_for(|status| status.fatal.is_some()).await {
            Ok(status) => status.fatal.clone().unwrap_or_default(),
            Err(_) => "the replica has stopped".to_owned(),
        }
    }

    /// Stops in order: says goodbye to watchers and instances, hands
    /// leadership over, ends the log, then closes the door.
    pub async fn shutdown(self) {
        info!("stopping");
        self.context.stop.cancel();
        self.context.handle.shutdown().await;
        self.closing.cancel();
        let abort = self.server.abort_handle();
        if timeout(DRAIN_TIMEOUT, self.server).await.is_err() {
            warn!("requests were still open after {DRAIN_TIMEOUT:?}; closing anyway");
            abort.abort();
        }
        self.tasks.wait().await;
    }
}

fn own(storage: &Storage, address: &str) -> Own {
    let identity = storage.identity();
    Own {
        id: identity.replica_id,
        cluster_id: identity.cluster_id,
        contact: Contact {
            address: address.to_owned(),
            disk_id: identity.disk_id,
        },
    }
}

async fn serve(listener: TcpListener, context: Context, closing: CancellationToken) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.map_ok(Gathering::new);
    let discovery = DiscoveryService::new(context.clone(), REQUEST_BYTES_MAX);
    let registration = RegistrationServer::new(RegistrationService::new(context.clone()));
    let routing = RoutingServer::new(RoutingService::new(context.clone()));
    let cluster = ClusterServer::new(ClusterService::new(context.clone()));
    let peer = PeerServer::new(PeerService::new(context, closing.clone()));
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION_MAX))
        .add_service(discovery)
        .add_service(registration.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(routing.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(cluster.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(peer.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(incoming, closing.cancelled_owned())
        .await;
    if let Err(error) = served {
        warn!(%error, "the listener has failed");
    }
}

/// Tells watches when this replica is cut off from a leader, and when no more.
/// An election is not worth a word: all replicas are without a leader then.
async fn notice_cuts(
    mut status: watch::Receiver<ConsensusStatus>,
    cuts: watch::Sender<bool>,
    closing: CancellationToken,
) {
    let notice = async {
        loop {
            // Fails only when consensus has ended, and with it this replica.
            if status
                .wait_for(|status| !status.has_leader())
                .await
                .is_err()
            {
                return;
            }
            tokio::select! {
                () = sleep(ELECTION_TAKES) => {}
                _ = status.wait_for(ConsensusStatus::has_leader) => continue,
            }
            cuts.send_replace(true);
            if status.wait_for(ConsensusStatus::has_leader).await.is_err() {
                return;
            }
            cuts.send_replace(false);
        }
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = notice => {}
    }
}

/// A replica that was removed may have to stay a little ([`removal`]), but hears
/// of no more changes: it sends its callers and instances to the others at once.
async fn leave_when_removed(
    mut status: watch::Receiver<ConsensusStatus>,
    stop: CancellationToken,
    closing: CancellationToken,
) {
    tokio::select! {
        () = closing.cancelled() => {}
        removed = status.wait_for(|status| status.removed) => {
            if removed.is_ok() {
                stop.cancel();
            }
        }
    }
}

/// Asks the other replicas now and then whether they are there, so that it is
/// known since when one is not.
async fn keep_contact(observer: Arc<Observer>, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(CONTACT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        observer.gather(&[]).await;
    }
}

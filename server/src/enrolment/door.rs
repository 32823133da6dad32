//! The door while there is no cluster: says who is there, and nothing else.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::internal::v1::peer_server::{Peer, PeerServer};
use trimtab_proto::internal::v1::{
    InstallSnapshotRequest, InstallSnapshotResponse, IntroduceRequest, IntroduceResponse,
    ObserveRequest, ObserveResponse, ProposeManyRequest, ProposeManyResponse, ProposeRequest,
    ProposeResponse, RaftRequest, RaftResponse, RenewLeasesRequest, RenewLeasesResponse,
    ReplicaStatusRequest, ReplicaStatusResponse,
};

use crate::peers::protocol;

/// How long whoever still asks may keep the door from being handed on.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

/// An open door.
#[derive(Debug)]
pub(super) struct Door {
    server: JoinHandle<()>,
    closing: CancellationToken,
    words: watch::Sender<String>,
}

impl Door {
    /// Answers on `listener` with `answer`, until it is closed.
    pub(super) fn open(listener: TcpListener, answer: IntroduceResponse) -> Self {
        let closing = CancellationToken::new();
        let (words, heard) = watch::channel(String::new());
        let asked = Asked {
            answer: Arc::new(answer),
            words: heard.clone(),
        };
        let closed = closing.clone();
        let server = tokio::spawn(async move {
            let unavailable = move || {
                let status = not_yet(&heard);
                async move { status.into_http::<tonic::body::Body>() }
            };
            let routes = Routes::new(PeerServer::new(asked)).into_axum_router();
            let routes = routes.fallback(unavailable);
            let served = Server::builder()
                .add_routes(Routes::from(routes))
                .serve_with_incoming_shutdown(
                    TcpIncoming::from(listener).with_nodelay(Some(true)),
                    closed.cancelled_owned(),
                );
            if let Err(error) = served.await {
                tracing::warn!(%error, "the listener has failed");
            }
        });
        Self {
            server,
            closing,
            words,
        }
    }

    /// Tells whoever asks for more what is waited for. True when it is news.
    pub(super) fn tell(&self, words: &str) -> bool {
        self.words.send_if_modified(|told| {
            let is_news = *told != words;
            words.clone_into(told);
            is_news
        })
    }

    /// Lets what is being answered end.
    pub(super) async fn close(mut self) {
        self.closing.cancel();
        if timeout(CLOSE_TIMEOUT, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Asked {
    answer: Arc<IntroduceResponse>,
    words: watch::Receiver<String>,
}

fn not_yet(words: &watch::Receiver<String>) -> Status {
    let words = words.borrow();
    Status::unavailable(format!(
        "this replica has no cluster yet; it waits for {}",
        *words
    ))
}

#[tonic::async_trait]
impl Peer for Asked {
    async fn introduce(
        &self,
        request: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceResponse>, Status> {
        protocol::check(request.get_ref().protocol)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new((*self.answer).clone()))
    }

    async fn raft(
        &self,
        _: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<RaftResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn propose(
        &self,
        _: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn propose_many(
        &self,
        _: Request<ProposeManyRequest>,
    ) -> Result<Response<ProposeManyResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn renew_leases(
        &self,
        _: Request<RenewLeasesRequest>,
    ) -> Result<Response<RenewLeasesResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn observe(
        &self,
        _: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        Err(not_yet(&self.words))
    }

    async fn replica_status(
        &self,
        _: Request<ReplicaStatusRequest>,
    ) -> Result<Response<ReplicaStatusResponse>, Status> {
        Err(not_yet(&self.words))
    }
}

//! A watch stream driven by hand, for what a caller would not say.

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{Hello, Receipt, Subscribe, View, ViewUpdate, WatchRequest, WatchResponse};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::PATIENCE;

/// A watch stream driven by hand.
pub(crate) struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    pub(crate) async fn open(cluster: &Cluster, replica: u64, watcher: &str) -> Watch {
        let (requests, receiver) = mpsc::channel(16);
        let hello = Hello {
            watcher_id: watcher.to_owned(),
            name: format!("{watcher}-name"),
            zone: String::new(),
        };
        let mut watch = Watch {
            responses: cluster
                .discovery(replica)
                .watch(ReceiverStream::new(receiver))
                .await
                .expect("watching")
                .into_inner(),
            requests,
        };
        watch.ask(Ask::Hello(hello)).await;
        assert!(matches!(watch.next().await, Answer::Welcome(_)));
        watch
    }

    pub(crate) async fn ask(&self, kind: Ask) {
        let request = WatchRequest { kind: Some(kind) };
        self.requests
            .send(request)
            .await
            .expect("the stream is open");
    }

    pub(crate) async fn subscribe(&self, service: &str, known: Option<&ViewUpdate>) {
        self.ask(Ask::Subscribe(Subscribe {
            service: service.to_owned(),
            known_revision: known.map_or(0, |update| update.revision),
            known_checksum: known.map_or(0, |update| update.checksum),
            ..Subscribe::default()
        }))
        .await;
    }

    pub(crate) async fn confirm(&self, service: &str, revision: u64) {
        self.ask(Ask::Receipt(Receipt {
            service: service.to_owned(),
            revision,
        }))
        .await;
    }

    /// Says that nothing more will be asked, and waits for the end.
    pub(crate) async fn end(self) {
        drop(self.requests);
        let mut responses = self.responses;
        while let Some(Ok(_)) = responses.next().await {}
    }

    pub(crate) async fn next_result(&mut self) -> Result<WatchResponse, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.responses.next()).await;
        answer.expect("in time").expect("open")
    }

    pub(crate) async fn next_response(&mut self) -> WatchResponse {
        self.next_result().await.expect("no error")
    }

    /// The next that is more than whether the replica is cut off: on a busy
    /// machine it may take itself to be for a moment.
    pub(crate) async fn next(&mut self) -> Answer {
        loop {
            if let Some(kind) = self.next_response().await.kind {
                return kind;
            }
        }
    }

    /// Waits until it is told, by itself, whether its replica is cut off.
    pub(crate) async fn until_cut_off(&mut self, is_cut_off: bool) {
        loop {
            let told = self.next_response().await;
            assert_eq!(told.kind, None);
            if told.possibly_stale == is_cut_off {
                return;
            }
        }
    }

    /// Subscribes, and passes over what a replica says that has not caught up
    /// yet, until a view has so many instances.
    pub(crate) async fn follow(&mut self, service: &str, instances: usize) -> ViewUpdate {
        self.subscribe(service, None).await;
        loop {
            if let Answer::View(update) = self.next().await {
                let view = View::decode(update.view.clone()).expect("a view");
                if view.instances.len() == instances {
                    return update;
                }
            }
        }
    }

    pub(crate) async fn next_view(&mut self) -> (ViewUpdate, View) {
        match self.next().await {
            Answer::View(update) => {
                assert_eq!(update.checksum, trimtab_proto::checksum(&update.view));
                let view = View::decode(update.view.clone()).expect("a view");
                (update, view)
            }
            other => panic!("expected a view, got {other:?}"),
        }
    }
}

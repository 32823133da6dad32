//! A caller that confirms a view only when the test wants it to.

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{
    Hello, InstanceStatus, Receipt, Subscribe, View, WatchRequest, WatchResponse,
};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::PATIENCE;

use crate::stage::SERVICE;

/// Its name among the laggards.
pub(crate) const NAME: &str = "slow-caller";

pub(crate) struct Caller {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Caller {
    pub(crate) async fn open(cluster: &Cluster) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let asks = [
            Ask::Hello(Hello {
                watcher_id: NAME.into(),
                name: NAME.into(),
                zone: String::new(),
            }),
            Ask::Subscribe(Subscribe {
                service: SERVICE.into(),
                known_revision: 0,
                known_checksum: 0,
                ..Subscribe::default()
            }),
        ];
        for ask in asks {
            let kind = Some(ask);
            requests.send(WatchRequest { kind }).await.unwrap();
        }
        let answers = cluster
            .discovery(1)
            .watch(ReceiverStream::new(receiver))
            .await
            .unwrap();
        let answers = answers.into_inner();
        Self { requests, answers }
    }

    pub(crate) async fn next(&mut self) -> View {
        loop {
            let answer = timeout(PATIENCE, self.answers.message()).await;
            let answer = answer.expect("in time").unwrap().expect("open");
            if let Some(Answer::View(update)) = answer.kind {
                return View::decode(update.view).unwrap();
            }
        }
    }

    /// The first view in which the only instance has this status; `None`: in
    /// which there is none.
    pub(crate) async fn until(&mut self, wanted: Option<InstanceStatus>) -> View {
        loop {
            let view = self.next().await;
            let first = view.instances.first();
            if first.map(trimtab_proto::v1::Instance::status) == wanted {
                return view;
            }
        }
    }

    pub(crate) async fn confirm(&self, revision: u64) {
        let kind = Some(Ask::Receipt(Receipt {
            service: SERVICE.into(),
            revision,
        }));
        self.requests.send(WatchRequest { kind }).await.unwrap();
    }
}

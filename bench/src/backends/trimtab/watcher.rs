//! A caller that follows a service of Trimtab's: it takes each view in and gives its receipt.

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use trimtab_client::simulation::held::Held;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::{
    Hello, Receipt, Subscribe, View, ViewDelta, ViewUpdate, WatchRequest, WatchResponse,
    watch_request, watch_response,
};

use crate::backends::{Outcome, Watcher};
use crate::failure::Failure;

/// Requests that may wait to be sent: hello, subscribe, and a receipt for each of a few views.
const REQUESTS_WAITING_MAX: usize = 4;

struct TrimtabWatcher {
    service: String,
    ask: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    revision: u64,
    /// As the client crate holds it, to apply what changes in it.
    held: Option<Held>,
}

/// Opens a watch, and returns when its first view is taken in.
pub(super) async fn open(
    mut client: DiscoveryClient<Channel>,
    name: String,
    service: &str,
) -> Result<Box<dyn Watcher>, Failure> {
    let (ask, asked) = mpsc::channel(REQUESTS_WAITING_MAX);
    let hello = Hello {
        watcher_id: name.clone(),
        name,
        zone: String::new(),
    };
    let subscribe = Subscribe {
        service: service.to_owned(),
        takes_deltas: true,
        ..Subscribe::default()
    };
    for kind in [
        watch_request::Kind::Hello(hello),
        watch_request::Kind::Subscribe(subscribe),
    ] {
        send(&ask, kind).await?;
    }
    let answers = client.watch(ReceiverStream::new(asked)).await;
    let mut watcher = TrimtabWatcher {
        service: service.to_owned(),
        ask,
        answers: answers.map_err(Failure::call("watching"))?.into_inner(),
        revision: 0,
        held: None,
    };
    watcher.next().await?;
    Ok(Box::new(watcher))
}

async fn send(ask: &mpsc::Sender<WatchRequest>, kind: watch_request::Kind) -> Result<(), Failure> {
    let request = WatchRequest { kind: Some(kind) };
    let sent = ask.send(request).await;
    sent.map_err(|_| Failure::Wrong("a watch ended".to_owned()))
}

impl TrimtabWatcher {
    /// What a caller does with a view before calls go by it: checksum, decoding, receipt.
    async fn take_in(&mut self, update: ViewUpdate) -> Result<(), Failure> {
        // The null server's checksum is 1: it would have to do work for another.
        if update.checksum == 1 {
            View::decode(update.view)
                .map_err(|error| Failure::Wrong(format!("decoding a view: {error}")))?;
        } else {
            let held = Held::of(&update).map_err(|error| Failure::Wrong(error.to_string()))?;
            self.held = Some(held);
        }
        self.confirm(update.revision).await
    }

    /// The same with what changed in the view that it holds: digest, receipt.
    async fn take_change(&mut self, delta: ViewDelta) -> Result<(), Failure> {
        let held = self.held.take();
        let held = held.ok_or_else(|| Failure::Wrong("a delta before a view".to_owned()))?;
        let held = held.after(&delta);
        self.held = Some(held.map_err(|error| Failure::Wrong(error.to_string()))?);
        self.confirm(delta.revision).await
    }

    async fn confirm(&mut self, revision: u64) -> Result<(), Failure> {
        self.revision = revision;
        let receipt = Receipt {
            service: self.service.clone(),
            revision,
        };
        send(&self.ask, watch_request::Kind::Receipt(receipt)).await
    }
}

impl Watcher for TrimtabWatcher {
    fn next(&mut self) -> Outcome<'_, u64> {
        Box::pin(async move {
            loop {
                let answer = self.answers.message().await;
                let answer = answer.map_err(Failure::call("watching"))?;
                let answer = answer.ok_or_else(|| Failure::Wrong("a watch ended".to_owned()))?;
                match answer.kind {
                    Some(watch_response::Kind::View(update)) => self.take_in(update).await?,
                    Some(watch_response::Kind::Delta(delta)) => self.take_change(delta).await?,
                    _ => continue,
                }
                return Ok(self.revision);
            }
        })
    }
}

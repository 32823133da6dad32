//! etcd's two streams: leases that are kept alive, and keys that are watched.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::v3::lease_client::LeaseClient;
use super::v3::watch_client::WatchClient;
use super::v3::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_request,
};
use crate::backends::{Lease, Outcome, Renewals, Watcher};
use crate::failure::Failure;
use crate::wire::ANSWER_BYTES_MAX;

/// Renewals of one stream that wait for their answers: all that a round of the workload has there.
const ON_THEIR_WAY_MAX: usize = 1_000;

/// One stream on which leases are kept alive.
pub(super) struct EtcdRenewals {
    leases: Vec<i64>,
    ask: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl EtcdRenewals {
    pub(super) async fn open(
        mut client: LeaseClient<Channel>,
        leases: &[Lease],
    ) -> Result<Self, Failure> {
        let (ask, asked) = mpsc::channel(ON_THEIR_WAY_MAX);
        let numbers: Vec<i64> = leases
            .iter()
            .map(|lease| lease.number.cast_signed())
            .collect();
        // etcd's answer begins with the first answer, not with the stream.
        let first = numbers.first().copied().unwrap_or_default();
        let sent = ask.send(LeaseKeepAliveRequest { id: first }).await;
        sent.map_err(|_| Failure::Wrong("a stream of renewals did not open".to_owned()))?;
        let answers = client.lease_keep_alive(ReceiverStream::new(asked)).await;
        let mut renewals = Self {
            leases: numbers,
            ask,
            answers: answers.map_err(Failure::call("renewing"))?.into_inner(),
        };
        renewals.answered().await?;
        Ok(renewals)
    }

    async fn answered(&mut self) -> Result<(), Failure> {
        let answer = self.answers.message().await;
        match answer.map_err(Failure::call("renewing"))? {
            Some(answer) if answer.ttl > 0 => Ok(()),
            Some(answer) => Err(Failure::Wrong(format!("lease {:x} was lost", answer.id))),
            None => Err(Failure::Wrong("a stream of renewals ended".to_owned())),
        }
    }
}

impl Renewals for EtcdRenewals {
    fn all(&mut self) -> Outcome<'_, ()> {
        Box::pin(async move {
            let leases = std::mem::take(&mut self.leases);
            for some in leases.chunks(ON_THEIR_WAY_MAX) {
                for &id in some {
                    let sent = self.ask.send(LeaseKeepAliveRequest { id }).await;
                    sent.map_err(|_| Failure::Wrong("a stream of renewals ended".to_owned()))?;
                }
                for _ in some {
                    self.answered().await?;
                }
            }
            self.leases = leases;
            Ok(())
        })
    }
}

/// One watch, alone on its stream, as a caller of its own has it.
struct EtcdWatcher {
    /// Held so that the stream stays open.
    _ask: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

/// Opens a watch, and returns when etcd says that it is there.
pub(super) async fn watch(
    client: WatchClient<Channel>,
    key: Bytes,
    range_end: Bytes,
) -> Result<Box<dyn Watcher>, Failure> {
    let (ask, asked) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: 0,
    };
    let request = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    let sent = ask.send(request).await;
    sent.map_err(|_| Failure::Wrong("a watch did not open".to_owned()))?;
    let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
    let answers = client.watch(ReceiverStream::new(asked)).await;
    let mut answers = answers.map_err(Failure::call("watching"))?.into_inner();
    let first = answers.message().await.map_err(Failure::call("watching"))?;
    match first {
        Some(first) if first.created => Ok(Box::new(EtcdWatcher { _ask: ask, answers })),
        _ => Err(Failure::Wrong("a watch did not open".to_owned())),
    }
}

impl Watcher for EtcdWatcher {
    fn next(&mut self) -> Outcome<'_, u64> {
        Box::pin(async move {
            loop {
                let answer = self.answers.message().await;
                let answer = answer.map_err(Failure::call("watching"))?;
                let answer = answer.ok_or_else(|| Failure::Wrong("a watch ended".to_owned()))?;
                if answer.canceled {
                    return Err(Failure::Wrong("a watch was cancelled".to_owned()));
                }
                let newest = answer.events.iter().filter_map(|event| event.kv.as_ref());
                if let Some(revision) = newest.map(|kv| kv.mod_revision).max() {
                    return Ok(u64::try_from(revision).unwrap_or(0));
                }
            }
        })
    }
}

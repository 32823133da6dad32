//! Following who has applied a revision, over all replicas.

use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use trimtab_proto::v1::{Laggard, ReceiptsResponse};
use trimtab_registry::name::ServiceName;

use super::context::Context;
use crate::observation::Receipts;

/// Laggards in one answer: more than a person reads.
const LAGGARDS_MAX: usize = 100;
/// Between two rounds of asking, though replicas do not wait that are older
/// than waiting.
const ROUND_EVERY: Duration = Duration::from_millis(10);
/// An answer is given this often though nothing changed.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// Gathers the receipts of `revision` from all replicas when all have confirmed
/// `awaited`, or a little later.
async fn gather_when(
    context: &Context,
    services: &[ServiceName],
    revision: u64,
    awaited: u64,
) -> Receipts {
    // Whoever has applied the change knows all replicas whose callers may not
    // follow it.
    let is_behind = context.handle.status().borrow().applied < revision;
    let observation = context.observer.gather_when(services, awaited).await;
    Receipts {
        is_behind,
        ..observation.receipts(services, revision)
    }
}

/// Answers at once, after each change and each second, until complete.
pub(super) fn follow(
    context: Context,
    services: Vec<ServiceName>,
    revision: u64,
) -> impl Stream<Item = Result<ReceiptsResponse, Status>> + Send {
    let following = Following {
        context,
        services,
        revision,
        last: None,
        ended: false,
    };
    stream::unfold(following, |mut following| async move {
        let answer = following.next().await?;
        Some((answer, following))
    })
}

struct Following {
    context: Context,
    services: Vec<ServiceName>,
    revision: u64,
    last: Option<(Receipts, Instant)>,
    ended: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Result<ReceiptsResponse, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if self.context.stop.is_cancelled() {
                self.ended = true;
                let words = "the replica is stopping; ask another one";
                return Some(Err(Status::unavailable(words)));
            }
            let began = Instant::now();
            // At once, then each time when it may be complete.
            let awaited = if self.last.is_none() {
                0
            } else {
                self.revision
            };
            let receipts = gather_when(&self.context, &self.services, self.revision, awaited).await;
            let news = match &self.last {
                None => true,
                Some((last, at)) => *last != receipts || at.elapsed() >= ANSWER_INTERVAL,
            };
            if news {
                self.ended = receipts.complete();
                let answer = message(&receipts);
                self.last = Some((receipts, Instant::now()));
                return Some(Ok(answer));
            }
            sleep_until(began + ROUND_EVERY).await;
        }
    }
}

fn message(receipts: &Receipts) -> ReceiptsResponse {
    let laggards = receipts.laggards.iter().take(LAGGARDS_MAX);
    ReceiptsResponse {
        watchers: receipts.watchers as u32,
        confirmed: receipts.confirmed() as u32,
        laggards: laggards
            .map(|(service, heard)| Laggard {
                watcher_id: heard.watcher_id.clone(),
                name: heard.name.clone(),
                replica_id: heard.replica,
                service: service.to_string(),
                revision: heard.revision,
            })
            .collect(),
        unreachable_replicas: receipts.unreachable.clone(),
        complete: receipts.complete(),
        warnings: receipts.warnings(),
    }
}

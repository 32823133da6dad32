//! A replica that was removed: it finds out, and stops when nobody needs it any more.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use trimtab_proto::internal::v1::IntroduceResponse;

use crate::consensus::farewell::{Farewell, Word};
use crate::consensus::handle::Handle;
use crate::consensus::status::ConsensusStatus;
use crate::peers::{Peers, introduce_at};

/// Between two rounds of questions while no leader is heard of, and when it
/// knows that it was removed: the others know it with the next heartbeat.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
const FAREWELL_INTERVAL: Duration = Duration::from_millis(200);

/// Asks the others as long as `cut_off` holds, or the log says that this
/// replica was removed; ends it when enough of them know that. Nobody tells a
/// removed replica anything: it gets no more messages, and the last one may
/// have come too early.
pub(crate) async fn find_out(
    handle: Handle,
    peers: Peers,
    mut cut_off: watch::Receiver<bool>,
    closing: CancellationToken,
) {
    let mut status = handle.status();
    let begun = Instant::now();
    let asking = async {
        let mut farewell = Farewell::default();
        while is_of_interest(&mut status, &mut cut_off).await {
            for answer in ask_all(&peers, &farewell).await {
                if answer.removed && answer.cluster_id == handle.cluster_id() {
                    farewell.heard(word(answer), begun.elapsed());
                }
            }
            if farewell.is_over(begun.elapsed()) {
                handle.removed();
            }
            let is_known = status.borrow().removed;
            let interval = if is_known {
                FAREWELL_INTERVAL
            } else {
                ASK_INTERVAL
            };
            sleep(interval).await;
        }
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = asking => {}
    }
}

/// Waits until there is something to ask about. False when the replica ended.
async fn is_of_interest(
    status: &mut watch::Receiver<ConsensusStatus>,
    cut_off: &mut watch::Receiver<bool>,
) -> bool {
    let removed = async { status.wait_for(|it| it.removed).await.is_ok() };
    let is_cut_off = async { cut_off.wait_for(|it| *it).await.is_ok() };
    tokio::select! {
        is_so = removed => is_so,
        is_so = is_cut_off => is_so,
    }
}

/// Asks the members it knows, and who votes by the newest word.
async fn ask_all(peers: &Peers, farewell: &Farewell) -> Vec<IntroduceResponse> {
    let own = peers.own();
    let ids = peers.ids();
    let others = farewell.voters().iter();
    let others = others.filter(|(id, _)| **id != own.id && !ids.contains(id));
    let others =
        others.map(|(id, address)| introduce_at(address, *id, own.id, own.contact.disk_id));
    let (known, others) = tokio::join!(
        join_all(ids.iter().map(|id| peers.introduce(*id))),
        join_all(others)
    );
    known.into_iter().chain(others).flatten().collect()
}

fn word(answer: IntroduceResponse) -> Word {
    let voters = answer.voters.into_iter();
    Word {
        from: answer.replica_id,
        applied: answer.applied_index,
        voters: voters.map(|it| (it.replica_id, it.address)).collect(),
    }
}

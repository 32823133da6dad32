//! Who can be reached, in words, for those who were refused for want of a quorum.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::status::ConsensusStatus;
use crate::peers::Peers;

/// How long a peer may take to show that it lives.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// How long the words are reused: while there is no quorum every caller wants
/// them, and the peers should not pay for it.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Asks around, at most once a second.
#[derive(Debug, Default)]
pub(super) struct Reach {
    last: Mutex<Option<(Instant, String)>>,
}

impl Reach {
    /// Who leads as far as is known, and which members answer.
    pub(super) async fn describe(&self, status: &ConsensusStatus, peers: &Peers) -> String {
        let mut last = self.last.lock().await;
        if let Some((_, words)) = last.as_ref().filter(|(when, _)| when.elapsed() < FRESH_FOR) {
            return words.clone();
        }
        let words = ask(status, peers).await;
        *last = Some((Instant::now(), words.clone()));
        words
    }
}

async fn ask(status: &ConsensusStatus, peers: &Peers) -> String {
    let probes = peers.ids().into_iter().map(|id| async move {
        let address = peers.address(id).unwrap_or_default();
        match timeout(PROBE_TIMEOUT, peers.replica_status(id)).await {
            Ok(Ok(_)) => format!("replica {id} at {address} answers"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("replica {id} at {address} does not answer"),
        }
    });
    let mut words = vec![match status.leader() {
        Some(id) => format!("replica {id} is the last known leader"),
        None => format!("no leader is known in term {}", status.term),
    }];
    words.push(match &status.halted {
        Some(reason) => format!("replica {} is this one: {reason}", status.id),
        None => format!("replica {} is this one", status.id),
    });
    words.extend(join_all(probes).await);
    words.join("; ")
}

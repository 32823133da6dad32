//! How an empty data directory becomes a member's: all founders gather, or a cluster takes it in.
//!
//! Until then the replica answers one question, who it is, and asks the same
//! of the others. A replica whose directory was emptied by mistake finds out
//! here: the others know it by the directory it had, and it is refused before
//! it could give its vote a second time.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::sleep;
use trimtab_proto::internal::v1::IntroduceResponse;

use crate::consensus::start::{self, StartError};
use crate::peers::introduce_at;
use crate::peers::protocol::PROTOCOL;
use crate::storage::file::Storage;

mod door;
mod judge;

use door::Door;
use judge::{Answer, Newcomer, Verdict, judge_founders, judge_join};

/// Between two rounds of questions: founders start within moments of each
/// other, and whoever waits to be taken in waits for a person.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// How a replica without a cluster gets one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// It founds one with these, itself among them; at once when it is alone.
    Found(BTreeMap<u64, String>),
    /// It waits until one that these addresses belong to takes it in.
    Join(Vec<String>),
}

/// Why a replica has no cluster and will get none.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its directory is not the one the cluster knows.
    #[error(
        "replica {id} has an empty data directory, but replica {by} knows it with another one: it must not vote under its old id again. Give it the directory it had; if that is lost, run `trimtab cluster remove {id}`, start it with --join instead of --peers, and run `trimtab cluster add` with its address"
    )]
    LostDisk {
        /// This replica.
        id: u64,
        /// Who said so.
        by: u64,
    },
    /// The cluster was founded without it.
    #[error(
        "replica {by} belongs to a cluster that does not know replica {id}: start it with --join instead of --peers, and run `trimtab cluster add` with its address"
    )]
    Unknown {
        /// This replica.
        id: u64,
        /// Who said so.
        by: u64,
    },
    /// Its directory was that of a member that was removed.
    #[error(
        "replica {id} was removed from the cluster with the data directory it has: to bring it back, start it with an empty one and --join, and run `trimtab cluster add` with its address"
    )]
    Removed {
        /// This replica.
        id: u64,
    },
    /// The data directory cannot be written.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The socket cannot be handed on.
    #[error("the listening socket cannot be used: {0}")]
    Socket(#[from] io::Error),
}

#[cfg(test)]
impl PartialEq for EnrolError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Makes the data directory that of a member, if it is not one yet; `address`
/// is where others reach this replica. Waits as long as it takes for the
/// others. Gives the listener back.
///
/// # Errors
///
/// When the others know this replica by another data directory, or not at
/// all; or the directory cannot be written.
pub async fn enrol(
    listener: TcpListener,
    storage: &mut Storage,
    address: &str,
    way: &Way,
) -> Result<TcpListener, EnrolError> {
    let identity = storage.identity();
    if identity.cluster_id != 0 {
        return Ok(listener);
    }
    if matches!(way, Way::Found(founders) if founders.len() <= 1) {
        start::found_alone(storage, address)?;
        return Ok(listener);
    }
    let own = Newcomer {
        id: identity.replica_id,
        disk_id: identity.disk_id,
        address: address.to_owned(),
    };
    let listener = listener.into_std()?;
    let lent = TcpListener::from_std(listener.try_clone()?)?;
    let door = Door::open(lent, introduction(&own, way));
    let verdict = ask_until_decided(&own, way, &door).await?;
    match verdict {
        Verdict::Found(founders) => start::found(storage, &founders)?,
        Verdict::Join(cluster_id) => start::join(storage, cluster_id)?,
        Verdict::Wait(_) => {}
    }
    door.close().await;
    Ok(TcpListener::from_std(listener)?)
}

fn introduction(own: &Newcomer, way: &Way) -> IntroduceResponse {
    IntroduceResponse {
        protocol: PROTOCOL,
        replica_id: own.id,
        disk_id: own.disk_id,
        address: own.address.clone(),
        founders: match way {
            Way::Found(founders) => founders.keys().copied().collect(),
            Way::Join(_) => Vec::new(),
        },
        ..IntroduceResponse::default()
    }
}

async fn ask_until_decided(own: &Newcomer, way: &Way, door: &Door) -> Result<Verdict, EnrolError> {
    loop {
        let verdict = match way {
            Way::Found(founders) => {
                let others = founders.iter().filter(|(id, _)| **id != own.id);
                let asked = others.map(|(id, at)| async move { (*id, ask(own, *id, at).await) });
                let answers = join_all(asked).await.into_iter().collect();
                judge_founders(own, founders, &answers)?
            }
            Way::Join(members) => {
                let asked = members.iter().map(|at| ask(own, 0, at));
                judge_join(own, &join_all(asked).await)?
            }
        };
        let Verdict::Wait(words) = verdict else {
            return Ok(verdict);
        };
        if door.tell(&words) {
            tracing::info!(replica = own.id, "no cluster yet: waiting for {words}");
        }
        sleep(ASK_INTERVAL).await;
    }
}

async fn ask(own: &Newcomer, id: u64, address: &str) -> Answer {
    let asked = introduce_at(address, id, own.id, own.disk_id).await;
    asked.map_err(|error| error.to_string())
}

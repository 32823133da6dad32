//! Taking what other replicas send.

use std::sync::atomic::Ordering;
use std::sync::mpsc::TrySendError;

use tokio::time::sleep;
use trimtab_proto::internal::v1::{Message, RaftRequest};

use super::super::error::DeliverError;
use super::super::input::Input;
use super::super::message::{MessageError, from_wire};
use super::super::replica::is_for_all;
use super::{Handle, RETRY_PAUSE};
use crate::peers::{Contact, protocol};

/// Attempts to queue an arrived snapshot, [`RETRY_PAUSE`] apart.
const INSTALL_ATTEMPTS: u32 = 100;

/// Whom a peer's message is for, and in which version it is written.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The version of the protocol.
    pub protocol: u32,
    /// The replica.
    pub replica: u64,
    /// Its data directory.
    pub disk_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
}

impl Handle {
    /// Whether a peer's message is for this replica of this cluster, with this
    /// data directory, and in a version that it understands.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn admit(&self, to: &Receiver) -> Result<(), MessageError> {
        protocol::check(to.protocol)?;
        let own = self.inner.identity;
        if (to.replica, to.cluster_id) != (own.replica_id, own.cluster_id) {
            return Err(MessageError::Misdirected {
                found: to.replica,
                found_cluster: to.cluster_id,
                expected: own.replica_id,
                expected_cluster: own.cluster_id,
            });
        }
        if to.disk_id != own.disk_id {
            return Err(MessageError::OtherDisk {
                id: own.replica_id,
                found: to.disk_id,
                expected: own.disk_id,
            });
        }
        Ok(())
    }

    /// Takes Raft messages from a peer. When too much is queued they are
    /// dropped and counted: Raft repeats what matters.
    ///
    /// # Errors
    ///
    /// When a message is refused, or the replica has stopped.
    pub fn step(&self, request: RaftRequest) -> Result<(), DeliverError> {
        self.admit(&Receiver {
            protocol: request.protocol,
            replica: request.to_replica,
            disk_id: request.to_disk,
            cluster_id: request.cluster_id,
        })?;
        let from = request.from_replica;
        let messages = request
            .messages
            .into_iter()
            .map(|message| self.convert(from, message))
            .collect::<Result<Vec<_>, _>>()?;
        let count = messages.len() as u64;
        // A leader knows the members. To others, whoever speaks in the present
        // term gets answers, though they know its id by another disk.
        let (term, leads) = {
            let status = self.inner.status.borrow();
            (status.term, status.is_leader())
        };
        let is_new = (messages.iter()).any(|it| is_for_all(it.get_msg_type()) && it.term >= term);
        let contact = Contact {
            address: request.from_address,
            disk_id: request.from_disk,
        };
        self.inner.peers.meet(from, contact, is_new && !leads);
        let input = Input::Step {
            from_disk: request.from_disk,
            messages,
        };
        match self.inner.inputs.try_send(input) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                let dropped = &self.inner.shared.dropped_messages;
                dropped.fetch_add(count, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => Err(self.gone()),
        }
    }

    /// Takes a snapshot message that arrived whole
    /// ([`crate::consensus::transfer::Arriving`]) from a replica with this data
    /// directory.
    ///
    /// # Errors
    ///
    /// When it is refused, cannot be queued in time, or the replica has
    /// stopped.
    pub async fn install(&self, from_disk: u64, message: Message) -> Result<(), DeliverError> {
        let messages = vec![self.convert(message.from, message)?];
        let mut input = Input::Step {
            from_disk,
            messages,
        };
        for _ in 0..INSTALL_ATTEMPTS {
            match self.inner.inputs.try_send(input) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(returned)) => input = returned,
                Err(TrySendError::Disconnected(_)) => return Err(self.gone()),
            }
            sleep(RETRY_PAUSE).await;
        }
        Err(DeliverError::Full)
    }

    fn convert(&self, from: u64, message: Message) -> Result<raft::eraftpb::Message, MessageError> {
        if message.to != self.id() {
            return Err(MessageError::Misdirected {
                found: message.to,
                found_cluster: self.cluster_id(),
                expected: self.id(),
                expected_cluster: self.cluster_id(),
            });
        }
        if message.from != from {
            return Err(MessageError::NotAMember { from: message.from });
        }
        from_wire(message)
    }
}

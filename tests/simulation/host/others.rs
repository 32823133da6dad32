//! The other replicas, as one process knows them: who gets its messages, whose are taken, and who knows whether it was removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::MessageType;
use trimtab_proto::internal::v1 as wire;
use trimtab_server::consensus::error::FatalError;
use trimtab_server::consensus::input::Input;
use trimtab_server::consensus::membership::Membership;
use trimtab_server::consensus::message;
use trimtab_server::consensus::outside::Carrier;

use super::Host;
use crate::packet::{Node, Packet, Request};
use crate::planted::Planted;

/// Between two rounds of questions whether it was removed, as in production.
const ASK_INTERVAL: u64 = 2_000;

/// Messages on their way out, with the data directory each is for; and the
/// data directories of the members, and of others that were heard of.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) messages: Vec<(u64, wire::Message)>,
    members: BTreeMap<u64, u64>,
    pub(super) guests: BTreeMap<u64, u64>,
}

impl Carrier for Outgoing {
    fn send(&mut self, message: wire::Message) {
        let id = message.to;
        if let Some(disk) = self.members.get(&id).or_else(|| self.guests.get(&id)) {
            self.messages.push((*disk, message));
        }
    }

    fn follow(&mut self, membership: &Membership) {
        let members = membership.iter().map(|(id, it)| (id, it.disk_id));
        self.members = members.collect();
        let members = &self.members;
        self.guests.retain(|id, _| !members.contains_key(id));
    }
}

impl Host {
    /// As `handle::deliver` does it: what is for another data directory is
    /// refused, and who is unknown is met.
    pub(super) fn step(
        &mut self,
        (from_disk, to_disk): (u64, u64),
        bytes: Bytes,
    ) -> Result<Option<Input>, FatalError> {
        let unchecked = self.setup.planted == Some(Planted::DisksUnchecked);
        if to_disk != self.disk_id && !unchecked {
            return Ok(None);
        }
        let decoded = wire::Message::decode(bytes)
            .map_err(|error| FatalError::Raft(format!("undecodable: {error}")))?;
        let message = message::from_wire(decoded)
            .map_err(|error| FatalError::Raft(format!("a replica's message: {error}")))?;
        let known = self.replica().membership().get(message.from);
        let from_disk = match known {
            Some(known) if unchecked => known.disk_id,
            Some(_) => from_disk,
            None => {
                let guests = &mut self.engine.parts().carrier.guests;
                guests.insert(message.from, from_disk);
                from_disk
            }
        };
        Ok(Some(Input::Step {
            from_disk,
            messages: vec![message],
        }))
    }

    /// As `removal` does it.
    pub(super) fn ask_whether_removed(&mut self) {
        if self.asks_at > self.now {
            return;
        }
        self.asks_at = self.now + ASK_INTERVAL;
        let me = Node::Replica(self.id());
        for other in self.others() {
            let request = Request::WasRemoved(self.disk_id);
            self.done.out.call(me, other, 0, request);
        }
    }

    /// The other members, as far as it knows.
    pub(crate) fn others(&self) -> Vec<u64> {
        let members = self.replica().membership().iter();
        let ids = members.map(|(id, _)| id);
        ids.filter(|id| *id != self.id()).collect()
    }
}

/// A leader's word to campaign at once, as it is sent when leadership is
/// handed over.
pub(crate) fn campaign_now(from: u64, to: u64, term: u64, disks: (u64, u64)) -> Packet {
    let message = wire::Message {
        msg_type: MessageType::MsgTimeoutNow as u32,
        from,
        to,
        term,
        ..wire::Message::default()
    };
    let bytes = Bytes::from(message.encode_to_vec());
    Packet::Raft {
        disks,
        bytes,
        is_snapshot: false,
    }
}

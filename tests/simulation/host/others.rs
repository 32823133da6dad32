//! The other replicas, as one process knows them: who gets its messages, whose are taken, and who knows whether it was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::MessageType;
use trimtab_proto::internal::v1 as wire;
use trimtab_server::consensus::error::FatalError;
use trimtab_server::consensus::farewell::Word;
use trimtab_server::consensus::input::Input;
use trimtab_server::consensus::membership::Membership;
use trimtab_server::consensus::message;
use trimtab_server::consensus::outside::Carrier;
use trimtab_server::consensus::replica::is_for_all;

use super::Host;
use crate::packet::{Node, Packet, Request};
use crate::planted::Planted;

/// Between two rounds of questions about its removal, as in production:
/// whether there was one, and when it knows of it.
const ASK_INTERVAL: u64 = 2_000;
const FAREWELL_INTERVAL: u64 = 200;

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
        if let Some(disk) = self.guests.get(&id).or_else(|| self.members.get(&id)) {
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

impl Outgoing {
    /// As `Peers::meet`.
    fn meet(&mut self, id: u64, disk: u64, is_owed: bool) {
        match self.members.get(&id) {
            Some(known) if *known == disk => {
                self.guests.remove(&id);
            }
            Some(_) if !is_owed => {}
            Some(_) | None => {
                self.guests.insert(id, disk);
            }
        }
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
            Some(_) | None => {
                let is_new = message.term >= self.replica().term();
                let is_owed = is_new && !self.leads() && is_for_all(message.get_msg_type());
                let carrier = &mut self.engine.parts().carrier;
                carrier.meet(message.from, from_disk, is_owed);
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
        let knows = self.replica().is_removed();
        self.asks_at = self.now
            + if knows {
                FAREWELL_INTERVAL
            } else {
                ASK_INTERVAL
            };
        let me = Node::Replica(self.id());
        let mut asked: BTreeSet<u64> = self.others().into_iter().collect();
        asked.extend(self.farewell.voters().keys());
        asked.remove(&self.id());
        for other in asked {
            let request = Request::WasRemoved(self.disk_id);
            self.done.out.call(me, other, self.incarnation, request);
        }
    }

    /// What it knows of the removal of this disk, if there was one.
    pub(super) fn word_on(&self, disk_id: u64) -> Option<Word> {
        let members = self.replica().members();
        let voters = members.roles.voters.iter().map(|id| (*id, String::new()));
        members.membership.was_removed(disk_id).then(|| Word {
            from: self.id(),
            applied: self.replica().applied(),
            voters: voters.collect(),
        })
    }

    /// Someone has it from the log that this replica was removed. Answers to
    /// an earlier process are about the disk that one had.
    pub(super) fn told_of_removal(&mut self, id: u64, word: Word) -> Option<Input> {
        if id != self.incarnation {
            return None;
        }
        let now = Duration::from_millis(self.now);
        self.farewell.heard(word, now);
        self.farewell.is_over(now).then_some(Input::Removed)
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

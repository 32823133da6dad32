//! Between the wire's Raft messages and the Raft library's, checked on the way in.
//!
//! The library trusts what it is given: an unknown enum value, a missing
//! entry or a gap makes it panic. So nothing reaches it that was not looked
//! at here, and nothing from a peer reaches its own parser at all.

use bytes::Bytes;
use raft::eraftpb;
use raft::eraftpb::{EntryType, MessageType};
use trimtab_proto::internal::v1 as wire;

use super::change::Logged;
use super::membership::{conf_state_flaw, names};
use crate::peers::protocol::UnknownProtocol;

/// Entries in one message, at most. The sender's limit is in bytes; this one
/// only bounds what a broken sender can make us hold.
const ENTRIES_PER_MESSAGE_MAX: usize = 1 << 16;

/// Why a peer's message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is written in another version of the protocol.
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
    /// It was sent to someone else.
    #[error(
        "the message is for replica {found} of cluster {found_cluster:016x}, this is replica {expected} of cluster {expected_cluster:016x}; check which addresses the replicas were started with"
    )]
    Misdirected {
        /// Whom it names.
        found: u64,
        /// The cluster it names.
        found_cluster: u64,
        /// Who we are.
        expected: u64,
        /// Our cluster.
        expected_cluster: u64,
    },
    /// It was sent to whoever had our id before, or will have it.
    #[error(
        "the message is for replica {id} with data directory {found:016x}, this one has {expected:016x}; if its directory was lost, remove it with `trimtab cluster remove {id}` and let it join again with an empty one"
    )]
    OtherDisk {
        /// Our id.
        id: u64,
        /// The data directory it names.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// It pretends to be from us, or from no one.
    #[error("replica {from} is not another member of this cluster")]
    NotAMember {
        /// Whom it names as its sender.
        from: u64,
    },
    /// It was sent by someone who has a member's id and another data
    /// directory.
    #[error(
        "replica {from} is known with another data directory than {disk_id:016x}; if its directory was lost, remove it with `trimtab cluster remove {from}` and let it join again with an empty one"
    )]
    Impostor {
        /// Whom it names as its sender.
        from: u64,
        /// The sender's data directory.
        disk_id: u64,
    },
    /// Its kind is unknown, or not one that replicas send each other.
    #[error("message type {found} is not one that replicas send each other")]
    Kind {
        /// The number it carries.
        found: u32,
    },
    /// An entry's kind is unknown.
    #[error("entry {index} has type {found}, which this version does not know")]
    EntryKind {
        /// Which entry.
        index: u64,
        /// The number it carries.
        found: u32,
    },
    /// An entry that changes the members cannot be read.
    #[error("entry {index}: {reason}")]
    Change {
        /// Which entry.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// Its parts do not fit together.
    #[error("{kind} from replica {from} is malformed: {rule}")]
    Malformed {
        /// Its kind.
        kind: &'static str,
        /// Its sender.
        from: u64,
        /// The rule it breaks.
        rule: String,
    },
}

/// A peer's message as the Raft library takes it.
///
/// # Errors
///
/// When the kind is unknown or local, or the parts do not fit the kind.
pub fn from_wire(message: wire::Message) -> Result<eraftpb::Message, MessageError> {
    let kind = peer_kind(message.msg_type)?;
    check_shape(kind, &message)?;
    let entries = message
        .entries
        .into_iter()
        .map(entry_from_wire)
        .collect::<Result<Vec<_>, _>>()?;
    let mut converted = eraftpb::Message::default();
    converted.set_msg_type(kind);
    converted.to = message.to;
    converted.from = message.from;
    converted.term = message.term;
    converted.log_term = message.log_term;
    converted.index = message.index;
    converted.set_entries(entries);
    converted.commit = message.commit;
    converted.commit_term = message.commit_term;
    if let Some(snapshot) = message.snapshot {
        converted.set_snapshot(snapshot_from_wire(snapshot));
    }
    converted.request_snapshot = message.request_snapshot;
    converted.reject = message.reject;
    converted.reject_hint = message.reject_hint;
    converted.context = message.context;
    converted.priority = message.priority;
    Ok(converted)
}

/// The Raft library's message as peers take it.
pub fn to_wire(mut message: eraftpb::Message) -> wire::Message {
    let snapshot = message.snapshot.take();
    wire::Message {
        msg_type: kind_number(message.get_msg_type()),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message
            .take_entries()
            .into_iter()
            .map(entry_to_wire)
            .collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: snapshot.map(|snapshot| snapshot_to_wire(*snapshot)),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.take_context(),
        priority: message.priority,
    }
}

/// A stored or sent entry as the Raft library takes it.
///
/// # Errors
///
/// When its kind is unknown, or it changes the members in a way that cannot be
/// read: once it is committed it could not be applied.
pub fn entry_from_wire(entry: wire::Entry) -> Result<eraftpb::Entry, MessageError> {
    let kind = match entry.entry_type {
        0 => EntryType::EntryNormal,
        // The older form, 1, was never written.
        2 => {
            Logged::from_bytes(&entry.data).map_err(|error| MessageError::Change {
                index: entry.index,
                reason: error.to_string(),
            })?;
            EntryType::EntryConfChangeV2
        }
        found => {
            return Err(MessageError::EntryKind {
                index: entry.index,
                found,
            });
        }
    };
    Ok(eraftpb::Entry {
        entry_type: kind.into(),
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
    })
}

/// The Raft library's entry as it is stored and sent.
pub fn entry_to_wire(mut entry: eraftpb::Entry) -> wire::Entry {
    wire::Entry {
        entry_type: match entry.get_entry_type() {
            EntryType::EntryNormal => 0,
            EntryType::EntryConfChange => 1,
            EntryType::EntryConfChangeV2 => 2,
        },
        term: entry.term,
        index: entry.index,
        data: entry.take_data(),
        context: entry.take_context(),
    }
}

/// A snapshot as the Raft library takes it.
pub fn snapshot_from_wire(snapshot: wire::Snapshot) -> eraftpb::Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    let mut converted = eraftpb::Snapshot {
        data: snapshot.data,
        ..eraftpb::Snapshot::default()
    };
    let members = conf_state_from_wire(metadata.conf_state.unwrap_or_default());
    converted.mut_metadata().index = metadata.index;
    converted.mut_metadata().term = metadata.term;
    converted.mut_metadata().set_conf_state(members);
    converted
}

/// A snapshot as it is stored and sent.
pub fn snapshot_to_wire(mut snapshot: eraftpb::Snapshot) -> wire::Snapshot {
    let data: Bytes = snapshot.take_data();
    let mut metadata = snapshot.take_metadata();
    wire::Snapshot {
        data,
        metadata: Some(wire::SnapshotMetadata {
            index: metadata.index,
            term: metadata.term,
            conf_state: Some(conf_state_to_wire(metadata.take_conf_state())),
        }),
    }
}

/// The members as the Raft library takes them.
pub fn conf_state_from_wire(conf_state: wire::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: conf_state.voters,
        learners: conf_state.learners,
        voters_outgoing: conf_state.voters_outgoing,
        learners_next: conf_state.learners_next,
        auto_leave: conf_state.auto_leave,
    }
}

/// The members as they are stored and sent.
pub fn conf_state_to_wire(conf_state: eraftpb::ConfState) -> wire::ConfState {
    wire::ConfState {
        voters: conf_state.voters,
        learners: conf_state.learners,
        voters_outgoing: conf_state.voters_outgoing,
        learners_next: conf_state.learners_next,
        auto_leave: conf_state.auto_leave,
    }
}

/// Term, vote and commit index as the Raft library takes them.
pub fn hard_state_from_wire(hard_state: wire::HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: hard_state.term,
        vote: hard_state.vote,
        commit: hard_state.commit,
    }
}

/// Term, vote and commit index as they are stored.
pub fn hard_state_to_wire(hard_state: &eraftpb::HardState) -> wire::HardState {
    wire::HardState {
        term: hard_state.term,
        vote: hard_state.vote,
        commit: hard_state.commit,
    }
}

/// The kinds replicas send each other. Not among them: what a replica tells
/// itself, proposals (forwarded as calls, so that their outcome comes back)
/// and leadership transfers (begun by the leader alone).
fn peer_kind(number: u32) -> Result<MessageType, MessageError> {
    Ok(match number {
        3 => MessageType::MsgAppend,
        4 => MessageType::MsgAppendResponse,
        5 => MessageType::MsgRequestVote,
        6 => MessageType::MsgRequestVoteResponse,
        7 => MessageType::MsgSnapshot,
        8 => MessageType::MsgHeartbeat,
        9 => MessageType::MsgHeartbeatResponse,
        14 => MessageType::MsgTimeoutNow,
        15 => MessageType::MsgReadIndex,
        16 => MessageType::MsgReadIndexResp,
        17 => MessageType::MsgRequestPreVote,
        18 => MessageType::MsgRequestPreVoteResponse,
        found => return Err(MessageError::Kind { found }),
    })
}

fn kind_number(kind: MessageType) -> u32 {
    match kind {
        MessageType::MsgHup => 0,
        MessageType::MsgBeat => 1,
        MessageType::MsgPropose => 2,
        MessageType::MsgAppend => 3,
        MessageType::MsgAppendResponse => 4,
        MessageType::MsgRequestVote => 5,
        MessageType::MsgRequestVoteResponse => 6,
        MessageType::MsgSnapshot => 7,
        MessageType::MsgHeartbeat => 8,
        MessageType::MsgHeartbeatResponse => 9,
        MessageType::MsgUnreachable => 10,
        MessageType::MsgSnapStatus => 11,
        MessageType::MsgCheckQuorum => 12,
        MessageType::MsgTransferLeader => 13,
        MessageType::MsgTimeoutNow => 14,
        MessageType::MsgReadIndex => 15,
        MessageType::MsgReadIndexResp => 16,
        MessageType::MsgRequestPreVote => 17,
        MessageType::MsgRequestPreVoteResponse => 18,
    }
}

fn check_shape(kind: MessageType, message: &wire::Message) -> Result<(), MessageError> {
    let broken = match kind {
        MessageType::MsgAppend => append_flaw(message),
        MessageType::MsgSnapshot => snapshot_flaw(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            (message.entries.len() != 1).then(|| "it carries one entry, the read's id".to_owned())
        }
        _ => (!message.entries.is_empty()).then(|| "it carries no entries".to_owned()),
    };
    let broken = broken.or_else(|| {
        let timeless = matches!(kind, MessageType::MsgReadIndex);
        ((message.term == 0) != timeless)
            .then(|| format!("term {} is not one it is sent in", message.term))
    });
    match broken {
        None => Ok(()),
        Some(rule) => Err(MessageError::Malformed {
            kind: kind_name(kind),
            from: message.from,
            rule,
        }),
    }
}

fn append_flaw(message: &wire::Message) -> Option<String> {
    if message.entries.len() > ENTRIES_PER_MESSAGE_MAX {
        return Some(format!(
            "{} entries are more than {ENTRIES_PER_MESSAGE_MAX}",
            message.entries.len()
        ));
    }
    let mut previous = (message.index, message.log_term);
    for entry in &message.entries {
        if Some(entry.index) != previous.0.checked_add(1) {
            return Some(format!("entry {} follows {}", entry.index, previous.0));
        }
        if entry.term < previous.1 || entry.term > message.term {
            return Some(format!(
                "entry {} has term {}, the one before {}, the message {}",
                entry.index, entry.term, previous.1, message.term
            ));
        }
        previous = (entry.index, entry.term);
    }
    None
}

fn snapshot_flaw(message: &wire::Message) -> Option<String> {
    let Some(metadata) = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref()) else {
        return Some("it carries a snapshot with its metadata".to_owned());
    };
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term {
        return Some(format!(
            "a snapshot of entry {} in term {} cannot come in term {}",
            metadata.index, metadata.term, message.term
        ));
    }
    let Some(members) = metadata.conf_state.as_ref() else {
        return Some("the snapshot names its members".to_owned());
    };
    let members = conf_state_from_wire(members.clone());
    if let Some(flaw) = conf_state_flaw(&members) {
        return Some(format!("the snapshot {flaw}"));
    }
    (!names(&members, message.to)).then(|| "the snapshot names its receiver".to_owned())
}

fn kind_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::MsgAppend => "an append",
        MessageType::MsgSnapshot => "a snapshot",
        MessageType::MsgReadIndex => "a read request",
        MessageType::MsgReadIndexResp => "an answer to a read",
        _ => "a message",
    }
}

#[cfg(test)]
mod tests;

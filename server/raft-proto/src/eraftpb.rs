//! Raft's messages, entries and configurations.
//!
//! Field numbers and kinds of encoding are those of the protocol that raft
//! 0.7.0 was written for, so that what one wrote the other reads. Fields stand
//! in the order of their numbers, as prost writes them.
//!
//! Enumerations are held as numbers, as prost does. A number that is not known
//! reads as the enumeration's first value, as rust-protobuf had it. Whoever
//! takes messages from others has to look at the number first (`try_from`).

use bytes::Bytes;

/// What a log entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum EntryType {
    /// For the state machine.
    EntryNormal = 0,
    /// A [`ConfChange`].
    EntryConfChange = 1,
    /// A [`ConfChangeV2`].
    EntryConfChangeV2 = 2,
}

/// One position of the log.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Entry {
    /// An [`EntryType`].
    #[prost(enumeration = "EntryType", tag = "1")]
    pub entry_type: i32,
    /// The term of the leader that appended it.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Its position.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// A command, or an encoded change of members.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// The proposer's own mark.
    #[prost(bytes = "bytes", tag = "6")]
    pub context: Bytes,
}

/// Which part of the log a snapshot stands for.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SnapshotMetadata {
    /// The members at that position.
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    /// The last position in it.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// That position's term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// The state machine at one position of the log.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Snapshot {
    /// The state machine, as its owner encodes it.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// Where it stands.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// To itself: start an election.
    MsgHup = 0,
    /// To itself: send heartbeats.
    MsgBeat = 1,
    /// Append these entries, if you lead.
    MsgPropose = 2,
    /// These entries come next.
    MsgAppend = 3,
    /// They were taken, or do not fit.
    MsgAppendResponse = 4,
    /// Vote for me.
    MsgRequestVote = 5,
    /// The vote.
    MsgRequestVoteResponse = 6,
    /// The log no longer goes back that far: here is a snapshot.
    MsgSnapshot = 7,
    /// I lead, and this much is committed.
    MsgHeartbeat = 8,
    /// Heard.
    MsgHeartbeatResponse = 9,
    /// From the transport: a message did not arrive.
    MsgUnreachable = 10,
    /// From the transport: a snapshot arrived or did not.
    MsgSnapStatus = 11,
    /// To itself: does a majority still answer?
    MsgCheckQuorum = 12,
    /// Hand leadership to the sender named.
    MsgTransferLeader = 13,
    /// Start an election now: leadership is yours.
    MsgTimeoutNow = 14,
    /// Up to where must one have applied to read now?
    MsgReadIndex = 15,
    /// Up to there.
    MsgReadIndexResp = 16,
    /// Would you vote for me?
    MsgRequestPreVote = 17,
    /// Whether it would.
    MsgRequestPreVoteResponse = 18,
}

/// What replicas say to each other, and to themselves.
///
/// What a field means depends on the kind; given here is the common meaning.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Message {
    /// A [`MessageType`].
    #[prost(enumeration = "MessageType", tag = "1")]
    pub msg_type: i32,
    /// Its receiver.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// Its sender.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// Its sender's term; 0 where none is needed.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// The term at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// The position before `entries`; in answers the last one taken or refused.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// Entries to append, or the id of a read.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// The sender's commit index.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// In a snapshot's place in the log: state, members, index and term.
    #[prost(message, optional, boxed, tag = "9")]
    pub snapshot: Option<Box<Snapshot>>,
    /// Whether it says no.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Where the sender of a refusal suggests to try next.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// The sender's own mark, returned in the answer.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    /// The least index of a snapshot that is asked for; 0 for none.
    #[prost(uint64, tag = "13")]
    pub request_snapshot: u64,
    /// [`Message::priority`] as older versions send it, if it is above 0.
    #[prost(uint64, tag = "14")]
    pub deprecated_priority: u64,
    /// The term at `commit`.
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
    /// How much the candidate should win over others.
    #[prost(int64, tag = "16")]
    pub priority: i64,
}

/// What a replica must remember over a restart, beside its log.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HardState {
    /// The latest term it knows.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whom it voted for in it; 0 for nobody.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// The last position it knows to be committed.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// How a joint configuration is entered and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// Only if there is more than one change; left by itself.
    Auto = 0,
    /// In any case; left by itself.
    Implicit = 1,
    /// In any case; left by an empty [`ConfChangeV2`].
    Explicit = 2,
}

/// Who belongs to the cluster.
///
/// Numbers in lists are written one by one, not packed: that is how
/// rust-protobuf wrote them. Both ways are read.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfState {
    /// Who votes.
    #[prost(uint64, repeated, packed = "false", tag = "1")]
    pub voters: Vec<u64>,
    /// Who follows without a vote.
    #[prost(uint64, repeated, packed = "false", tag = "2")]
    pub learners: Vec<u64>,
    /// Who voted before; none outside joint configurations.
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Who of them will follow without a vote once it is left.
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub learners_next: Vec<u64>,
    /// Whether Raft leaves the joint configuration by itself.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeType {
    /// It votes.
    AddNode = 0,
    /// It leaves.
    RemoveNode = 1,
    /// It follows without a vote.
    AddLearnerNode = 2,
}

/// One change of members, in the older form.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfChange {
    /// The proposer's own number for it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// A [`ConfChangeType`].
    #[prost(enumeration = "ConfChangeType", tag = "2")]
    pub change_type: i32,
    /// Whose.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// What the members' owner needs to apply it.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

/// One change of members, in a [`ConfChangeV2`].
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfChangeSingle {
    /// A [`ConfChangeType`].
    #[prost(enumeration = "ConfChangeType", tag = "1")]
    pub change_type: i32,
    /// Whose.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

/// Changes of members that take effect together.
///
/// Without changes it leaves a joint configuration.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConfChangeV2 {
    /// A [`ConfChangeTransition`].
    #[prost(enumeration = "ConfChangeTransition", tag = "1")]
    pub transition: i32,
    /// The changes.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// What the members' owner needs to apply it.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

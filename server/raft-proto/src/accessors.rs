//! The accessors raft 0.7.0 calls, under the names rust-protobuf gave them.
//!
//! `get_` of a message that is not there is its default, `mut_` puts that in
//! its place, `take_` leaves it behind. `set_` of an enumeration comes with
//! prost's derive. Fields are public: nothing else is needed to use them.

use std::mem::take;

use bytes::Bytes;

use crate::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, Snapshot, SnapshotMetadata,
};

static NO_MEMBERS: ConfState = ConfState {
    voters: Vec::new(),
    learners: Vec::new(),
    voters_outgoing: Vec::new(),
    learners_next: Vec::new(),
    auto_leave: false,
};

static NO_METADATA: SnapshotMetadata = SnapshotMetadata {
    conf_state: None,
    index: 0,
    term: 0,
};

static NO_SNAPSHOT: Snapshot = Snapshot {
    data: Bytes::new(),
    metadata: None,
};

impl Entry {
    /// What it is for; [`EntryType::EntryNormal`] if the number is unknown.
    #[must_use]
    pub fn get_entry_type(&self) -> EntryType {
        self.entry_type()
    }

    /// Its term.
    #[must_use]
    pub fn get_term(&self) -> u64 {
        self.term
    }

    /// Its position.
    #[must_use]
    pub fn get_index(&self) -> u64 {
        self.index
    }

    /// Its data.
    #[must_use]
    pub fn get_data(&self) -> &[u8] {
        &self.data
    }

    /// Its data, leaving none.
    pub fn take_data(&mut self) -> Bytes {
        take(&mut self.data)
    }

    /// Its context, leaving none.
    pub fn take_context(&mut self) -> Bytes {
        take(&mut self.context)
    }
}

impl SnapshotMetadata {
    /// The members.
    #[must_use]
    pub fn get_conf_state(&self) -> &ConfState {
        self.conf_state.as_ref().unwrap_or(&NO_MEMBERS)
    }

    /// The members, to change.
    pub fn mut_conf_state(&mut self) -> &mut ConfState {
        self.conf_state.get_or_insert_default()
    }

    /// Replaces the members.
    pub fn set_conf_state(&mut self, members: ConfState) {
        self.conf_state = Some(members);
    }

    /// The members, leaving none.
    pub fn take_conf_state(&mut self) -> ConfState {
        self.conf_state.take().unwrap_or_default()
    }
}

impl Snapshot {
    /// Whether it stands for no part of a log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }

    /// Replaces the state machine.
    pub fn set_data(&mut self, data: Bytes) {
        self.data = data;
    }

    /// The state machine, leaving none.
    pub fn take_data(&mut self) -> Bytes {
        take(&mut self.data)
    }

    /// Where it stands.
    #[must_use]
    pub fn get_metadata(&self) -> &SnapshotMetadata {
        self.metadata.as_ref().unwrap_or(&NO_METADATA)
    }

    /// Where it stands, to change.
    pub fn mut_metadata(&mut self) -> &mut SnapshotMetadata {
        self.metadata.get_or_insert_default()
    }

    /// Replaces where it stands.
    pub fn set_metadata(&mut self, metadata: SnapshotMetadata) {
        self.metadata = Some(metadata);
    }

    /// Where it stands, leaving nothing.
    pub fn take_metadata(&mut self) -> SnapshotMetadata {
        self.metadata.take().unwrap_or_default()
    }
}

impl Message {
    /// What it says; [`MessageType::MsgHup`] if the number is unknown.
    #[must_use]
    pub fn get_msg_type(&self) -> MessageType {
        self.msg_type()
    }

    /// Its index.
    #[must_use]
    pub fn get_index(&self) -> u64 {
        self.index
    }

    /// Replaces its index.
    pub fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// Replaces its commit index.
    pub fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    /// Its entries, to change.
    pub fn mut_entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    /// Replaces its entries.
    pub fn set_entries(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
    }

    /// Its entries, leaving none.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        take(&mut self.entries)
    }

    /// Its snapshot.
    #[must_use]
    pub fn get_snapshot(&self) -> &Snapshot {
        self.snapshot.as_deref().unwrap_or(&NO_SNAPSHOT)
    }

    /// Replaces its snapshot.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(Box::new(snapshot));
    }

    /// Its snapshot, leaving none.
    pub fn take_snapshot(&mut self) -> Snapshot {
        self.snapshot
            .take()
            .map_or_else(Snapshot::default, |it| *it)
    }

    /// Its context, leaving none.
    pub fn take_context(&mut self) -> Bytes {
        take(&mut self.context)
    }
}

impl HardState {
    /// Replaces its commit index.
    pub fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }
}

impl ConfState {
    /// Who votes.
    #[must_use]
    pub fn get_voters(&self) -> &[u64] {
        &self.voters
    }

    /// Who follows without a vote.
    #[must_use]
    pub fn get_learners(&self) -> &[u64] {
        &self.learners
    }

    /// Who voted before.
    #[must_use]
    pub fn get_voters_outgoing(&self) -> &[u64] {
        &self.voters_outgoing
    }

    /// Who will follow without a vote.
    #[must_use]
    pub fn get_learners_next(&self) -> &[u64] {
        &self.learners_next
    }

    /// Replaces who votes.
    pub fn set_voters(&mut self, ids: Vec<u64>) {
        self.voters = ids;
    }

    /// Replaces who follows without a vote.
    pub fn set_learners(&mut self, ids: Vec<u64>) {
        self.learners = ids;
    }

    /// Replaces who voted before.
    pub fn set_voters_outgoing(&mut self, ids: Vec<u64>) {
        self.voters_outgoing = ids;
    }

    /// Replaces who will follow without a vote.
    pub fn set_learners_next(&mut self, ids: Vec<u64>) {
        self.learners_next = ids;
    }
}

impl ConfChangeSingle {
    /// What becomes of the member; [`ConfChangeType::AddNode`] if the number is unknown.
    #[must_use]
    pub fn get_change_type(&self) -> ConfChangeType {
        self.change_type()
    }
}

impl ConfChangeV2 {
    /// Replaces its changes.
    pub fn set_changes(&mut self, changes: Vec<ConfChangeSingle>) {
        self.changes = changes;
    }
}

//! What a snapshot file says of itself.

use std::collections::BTreeMap;

use trimtab_proto::internal::v1::{SnapshotFileHeader, SnapshotFileMember, SnapshotFileSource};
use trimtab_registry::revision::Position;

/// Where the state came from, and so what may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A running replica, and a quorum confirmed that nothing is missing.
    Quorum,
    /// A running replica without a quorum: what it had applied.
    Replica,
    /// The data directory of a stopped replica: all of its log.
    Directory {
        /// How many entries it did not know to be committed.
        unconfirmed_entries: u64,
    },
}

/// What a snapshot file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The cluster it was saved from.
    pub cluster_id: u64,
    /// The last entry of the log that is in it.
    pub applied: Position,
    /// The cluster's members then, and their addresses.
    pub members: BTreeMap<u64, String>,
    /// By the clock of whoever made it, in milliseconds since the Unix epoch.
    pub saved_at_ms: u64,
    /// The replica whose state it is.
    pub saved_by: u64,
    /// The release that wrote it.
    pub version: String,
    /// Where the state came from.
    pub source: Source,
}

impl Header {
    /// As the file holds it, before a state of so many bytes.
    pub(super) fn to_wire(&self, state_length: u64) -> SnapshotFileHeader {
        let (source, unconfirmed_entries) = match self.source {
            Source::Quorum => (SnapshotFileSource::Quorum, 0),
            Source::Replica => (SnapshotFileSource::Replica, 0),
            Source::Directory {
                unconfirmed_entries,
            } => (SnapshotFileSource::Directory, unconfirmed_entries),
        };
        let members = self.members.iter().map(|(id, address)| SnapshotFileMember {
            id: *id,
            address: address.clone(),
        });
        SnapshotFileHeader {
            cluster_id: self.cluster_id,
            index: self.applied.index,
            term: self.applied.term,
            members: members.collect(),
            saved_at_ms: self.saved_at_ms,
            saved_by: self.saved_by,
            version: self.version.clone(),
            state_length,
            source: source.into(),
            unconfirmed_entries,
        }
    }

    /// From the file; or what is wrong with it.
    pub(super) fn from_wire(header: SnapshotFileHeader) -> Result<Self, String> {
        let unconfirmed_entries = header.unconfirmed_entries;
        let source = match header.source() {
            SnapshotFileSource::Quorum => Source::Quorum,
            SnapshotFileSource::Replica => Source::Replica,
            SnapshotFileSource::Directory => Source::Directory {
                unconfirmed_entries,
            },
            SnapshotFileSource::Unspecified => {
                return Err(format!("its source is {}, which is none", header.source));
            }
        };
        Ok(Self {
            cluster_id: header.cluster_id,
            applied: Position {
                index: header.index,
                term: header.term,
            },
            members: (header.members.into_iter())
                .map(|member| (member.id, member.address))
                .collect(),
            saved_at_ms: header.saved_at_ms,
            saved_by: header.saved_by,
            version: header.version,
            source,
        })
    }
}

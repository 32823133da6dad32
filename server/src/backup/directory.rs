//! The data directory of a stopped replica: all that its log holds, committed or not.

use std::path::Path;

use raft::eraftpb::EntryType;
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry;

use super::error::BackupError;
use super::header::{Header, Source};
use crate::consensus::entry::{State, decode_command, decode_state};
use crate::consensus::founding::Restored;
use crate::consensus::start::{StartError, restore};
use crate::storage::file::{Identity, Storage};

/// What a stopped replica knows.
#[derive(Debug)]
pub struct Directory {
    /// Whose data it is.
    pub identity: Identity,
    /// Members and registry, with every entry of the log applied.
    pub state: State,
    /// The last entry of its latest snapshot.
    pub snapshot: Position,
    /// The last entry that it knows to be committed. The true one may be later.
    pub commit: u64,
}

impl Directory {
    /// Reads a directory that no replica runs on, and applies its whole log.
    ///
    /// The end of the log may never have been committed; and of what was, the
    /// replica may not have heard. Where the others are lost nobody can tell
    /// the two apart: to keep all of it loses nothing that was acknowledged
    /// and reached this disk, and may carry out changes whose outcome was
    /// unknown to whoever asked for them.
    ///
    /// # Errors
    /// When a replica runs on it, it is damaged, or it holds none.
    pub fn read(directory: &Path) -> Result<Self, BackupError> {
        let mut storage = Storage::open_existing(directory)?;
        let identity = storage.identity();
        let saved = storage.load()?;
        let saved = saved.ok_or_else(|| BackupError::NothingFounded {
            directory: directory.to_owned(),
        })?;
        let restored = restore(saved).map_err(StartError::from)?;
        let unusable = |reason: String| BackupError::State {
            path: directory.to_owned(),
            reason,
        };
        let commit = restored.hard_state.commit;
        let mut state =
            decode_state(&restored.snapshot.data).map_err(|error| unusable(error.to_string()))?;
        let snapshot = state.registry.applied();
        apply_log(&mut state.registry, restored).map_err(unusable)?;
        Ok(Self {
            identity,
            state,
            snapshot,
            commit,
        })
    }

    /// The last entry of its log. Of several survivors the one whose last
    /// entry has the highest term, and then the highest index, knows most.
    pub fn last(&self) -> Position {
        self.state.registry.applied()
    }

    /// How many entries it does not know to be committed.
    pub fn unconfirmed_entries(&self) -> u64 {
        self.last().index.saturating_sub(self.commit)
    }

    /// What a snapshot file of it says of itself.
    pub fn header(&self, saved_at_ms: u64) -> Header {
        Header {
            cluster_id: self.identity.cluster_id,
            applied: self.last(),
            members: self.state.membership.addresses(),
            saved_at_ms,
            saved_by: self.identity.replica_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: Source::Directory {
                unconfirmed_entries: self.unconfirmed_entries(),
            },
        }
    }
}

/// Applies what the log holds beyond the registry; or says which entry cannot
/// be applied.
fn apply_log(registry: &mut Registry, restored: Restored) -> Result<(), String> {
    for entry in restored.entries {
        let at = Position {
            index: entry.index,
            term: entry.term,
        };
        if at.index <= registry.applied().index {
            continue;
        }
        // Who the members were is of no use to a new cluster.
        let is_command = entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty();
        if !is_command {
            registry.skip(at);
            continue;
        }
        let command = decode_command(&entry.data)
            .map_err(|error| format!("log entry {} cannot be applied: {error}", at.index))?;
        // Told to whoever asked long ago, or to nobody.
        let _ = registry.apply(at, &command);
    }
    Ok(())
}

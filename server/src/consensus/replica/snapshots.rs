//! Snapshots: taken when they are due, installed when the leader sends one.

use super::*;

/// A snapshot of fewer bytes costs little.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// A larger one is taken when the log has grown by so many parts of it: so each
/// byte of a change pays for four of snapshots, however many instances there
/// are, and memory and a restart for a quarter more than they must.
const LOG_PARTS: u64 = 4;

impl Replica {
    /// A snapshot to be encoded, when one is due.
    pub fn due_snapshot(&self) -> Option<SnapshotJob> {
        let since = self.applied().saturating_sub(self.snapshot_index());
        let last = self.snapshot_bytes();
        let is_worth_it =
            last < SMALL_BYTES_MAX || self.log_bytes_since_snapshot >= last / LOG_PARTS;
        let is_due = since >= self.snapshot_every && is_worth_it
            || self.log_bytes_since_snapshot >= LOG_BYTES_MAX
            || self.node.store().is_newer_wanted();
        // Of one that was removed only the log says what it knows to the end.
        if !is_due || since == 0 || self.round.is_some() || self.is_removed() {
            return None;
        }
        Some(SnapshotJob {
            members: Arc::clone(&self.members),
            registry: self.registry.clone(),
        })
    }

    /// Such a snapshot to be made durable, and where the log is cut then.
    /// `None` when there is a newer one meanwhile.
    ///
    /// # Errors
    ///
    /// When the log does not hold what it must.
    pub fn compaction(&self, snapshot: Snapshot) -> Result<Option<Compaction>, FatalError> {
        let index = snapshot.get_metadata().index;
        if index <= self.snapshot_index() {
            return Ok(None);
        }
        let base = self
            .node
            .store()
            .cut_before(index, self.trailing_entries, TRAILING_BYTES_MAX)
            .ok_or_else(|| FatalError::Raft(format!("entry {index} is not in the log")))?;
        Ok(Some(Compaction {
            snapshot,
            base,
            hard_state: self.hard_state.clone(),
        }))
    }

    /// The compaction is durable: forgets what it replaces.
    pub fn compacted(&mut self, compaction: Compaction) {
        let index = compaction.snapshot.get_metadata().index;
        let log = self.node.mut_store();
        log.compact(compaction.snapshot, compaction.base);
        self.log_bytes_since_snapshot = log.bytes_after(index);
    }

    pub(super) fn install(&mut self, snapshot: Snapshot) -> Result<(), FatalError> {
        let state = read_snapshot(&snapshot).map_err(|error| FatalError::Snapshot {
            index: snapshot.get_metadata().index,
            reason: error.to_string(),
        })?;
        self.registry = state.registry;
        self.log_bytes_since_snapshot = 0;
        self.node.mut_store().install(snapshot);
        self.set_membership(state.membership);
        self.must_be_member()
    }
}

/// What a snapshot holds, checked against the members that Raft will count.
pub(super) fn read_snapshot(snapshot: &Snapshot) -> Result<State, EntryError> {
    let metadata = snapshot.get_metadata();
    if metadata.index == 0 {
        return Ok(State::default());
    }
    let state = decode_state(&snapshot.data)?;
    let roles = metadata.get_conf_state();
    let flaw = conf_state_flaw(roles).map(str::to_owned);
    match flaw.or_else(|| state.membership.flaw(roles)) {
        None => Ok(state),
        Some(reason) => Err(EntryError::Malformed {
            what: "a snapshot",
            reason,
        }),
    }
}

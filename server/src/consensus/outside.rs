//! What an engine needs of the world: a store that keeps its word, and someone who carries messages.

use bytes::Bytes;
use trimtab_proto::internal::v1::{HardState, Message, Snapshot};

use super::input::Told;
use super::membership::{Member, Membership};
use crate::peers::Contact;
use crate::peers::line::Lines;
use crate::storage::error::StorageError;
use crate::storage::file::{LogBase, Round, Saved, Storage};

/// Where a replica keeps what it must not forget. What a call returned
/// without an error for is durable.
pub trait Store {
    /// Closes what is open and opens it anew, after a failure that may pass
    /// ([`StorageError::may_pass`]). Nothing that is not durable may be read
    /// afterwards. Until it succeeds no other call does.
    ///
    /// # Errors
    ///
    /// When it still cannot be read or written, or is not what it was.
    fn reopen(&mut self) -> Result<(), StorageError>;

    /// Everything it holds, checked; `None` when nothing was founded yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is damaged.
    fn load(&mut self) -> Result<Option<Saved>, StorageError>;

    /// The data of the latest snapshot, which is the one of entry `index`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or is another.
    fn snapshot(&self, index: u64) -> Result<Bytes, StorageError>;

    /// Makes one round durable: all of it or, on error, perhaps nothing.
    ///
    /// # Errors
    ///
    /// When the write or its sync fails, or the entries leave a gap.
    fn save(&mut self, round: Round<'_>) -> Result<(), StorageError>;

    /// Makes a piece of a snapshot durable, the pieces being numbered from 0;
    /// the snapshot counts when it is compacted to, and not before. In between
    /// another one may be begun, or saved.
    ///
    /// # Errors
    ///
    /// When the write or its sync fails.
    fn stage(&mut self, snapshot: &Snapshot, piece: usize) -> Result<(), StorageError>;

    /// Replaces the snapshot with a newer one of our own making, of which
    /// pieces may have been staged, and cuts the log up to `base`.
    ///
    /// # Errors
    ///
    /// When the write or its sync fails.
    fn compact(
        &mut self,
        snapshot: &Snapshot,
        base: LogBase,
        hard_state: &HardState,
    ) -> Result<(), StorageError>;
}

impl Store for Storage {
    fn reopen(&mut self) -> Result<(), StorageError> {
        Storage::reopen(self)?;
        self.try_out()
    }

    fn load(&mut self) -> Result<Option<Saved>, StorageError> {
        Storage::load(self)
    }

    fn snapshot(&self, index: u64) -> Result<Bytes, StorageError> {
        Storage::snapshot(self, index)
    }

    fn save(&mut self, round: Round<'_>) -> Result<(), StorageError> {
        Storage::save(self, round)
    }

    fn stage(&mut self, snapshot: &Snapshot, piece: usize) -> Result<(), StorageError> {
        Storage::stage(self, snapshot, piece)
    }

    fn compact(
        &mut self,
        snapshot: &Snapshot,
        base: LogBase,
        hard_state: &HardState,
    ) -> Result<(), StorageError> {
        Storage::compact(self, snapshot, base, hard_state)
    }
}

/// Carries messages to other replicas, or loses them: Raft repeats what
/// matters.
pub trait Carrier {
    /// Takes a message for the replica it names. Must not block.
    fn send(&mut self, message: Message);

    /// The members are these now: their addresses and data directories.
    fn follow(&mut self, membership: &Membership);

    /// Brings answers to those who wait for them in this process.
    fn tell(&mut self, answers: Vec<Told>) {
        answers.into_iter().for_each(Told::tell);
    }
}

impl Carrier for Lines {
    fn send(&mut self, message: Message) {
        Lines::send(self, message);
    }

    fn follow(&mut self, membership: &Membership) {
        let contact = |member: &Member| Contact {
            address: member.address.clone(),
            disk_id: member.disk_id,
        };
        Lines::follow(self, membership.iter().map(|(id, it)| (id, contact(it))));
    }

    fn tell(&mut self, answers: Vec<Told>) {
        Lines::on_the_runtime(self, answers.len(), move || {
            answers.into_iter().for_each(Told::tell);
        });
    }
}

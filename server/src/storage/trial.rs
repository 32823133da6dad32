//! Whether a disk that failed takes writes again.

use std::fmt;

use redb::TableDefinition;

use super::error::StorageError;
use super::file::Storage;

/// Empty but for a moment after the disk has failed.
const TRIAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("trial");

/// Eight pages: what a round of a few changes may need, and less than what the
/// operator is told to make room for.
const TRIAL_BYTES: usize = 32 * 1024;

impl Storage {
    /// Writes something and takes it back: that a file opens does not say that
    /// there is room to go on.
    ///
    /// # Errors
    ///
    /// When a write or a sync fails.
    pub fn try_out(&mut self) -> Result<(), StorageError> {
        let write = |error: &dyn fmt::Display| self.write_error("anything", error);
        let transaction = self.begin().map_err(|e| write(&e))?;
        {
            let mut trial = transaction.open_table(TRIAL).map_err(|e| write(&e))?;
            trial
                .insert(0, vec![0_u8; TRIAL_BYTES].as_slice())
                .map_err(|e| write(&e))?;
        }
        transaction.commit().map_err(|e| write(&e))?;
        let transaction = self.begin().map_err(|e| write(&e))?;
        transaction.delete_table(TRIAL).map_err(|e| write(&e))?;
        transaction.commit().map_err(|e| write(&e))
    }
}

//! Putting a snapshot together as it arrives from the leader, piece by piece.

use bytes::{Bytes, BytesMut};
use trimtab_proto::internal::v1::{Message, SnapshotHead};

/// A snapshot's size, at most. Beyond it the sender is broken or hostile: a
/// million instances take a quarter.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Memory set aside on the word of the head alone.
const RESERVED_BYTES_MAX: u64 = 16 << 20;

/// Why an arriving snapshot was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The head does not hold a snapshot message.
    #[error("the snapshot's head carries no snapshot message")]
    NoMessage,
    /// It claims to be too large.
    #[error("the snapshot claims {claimed} bytes, at most {SNAPSHOT_BYTES_MAX} are taken")]
    TooLarge {
        /// Its claim.
        claimed: u64,
    },
    /// Its pieces are more or fewer than it claimed.
    #[error("the snapshot claims {claimed} bytes, {received} came")]
    Length {
        /// Its claim.
        claimed: u64,
        /// What came.
        received: u64,
    },
    /// Its pieces are not what was sent.
    #[error("the snapshot's checksum does not match its bytes")]
    Checksum,
}

/// A snapshot of which the head and some pieces are here.
#[derive(Debug)]
pub struct Arriving {
    message: Message,
    data: BytesMut,
    claimed: u64,
    checksum: u64,
}

impl Arriving {
    /// Begins with the head. Whom it is for is checked by
    /// [`super::handle::Handle::admit`].
    ///
    /// # Errors
    ///
    /// When it holds no snapshot message or claims too much.
    pub fn begin(head: SnapshotHead) -> Result<Self, TransferError> {
        if head.data_length > SNAPSHOT_BYTES_MAX {
            return Err(TransferError::TooLarge {
                claimed: head.data_length,
            });
        }
        let message = head
            .message
            .filter(|message| message.snapshot.is_some())
            .ok_or(TransferError::NoMessage)?;
        let reserved = head.data_length.min(RESERVED_BYTES_MAX);
        Ok(Self {
            message,
            data: BytesMut::with_capacity(usize::try_from(reserved).unwrap_or(0)),
            claimed: head.data_length,
            checksum: head.data_checksum,
        })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// When there is more than was claimed.
    pub fn push(&mut self, chunk: &Bytes) -> Result<(), TransferError> {
        let received = self.data.len() as u64 + chunk.len() as u64;
        if received > self.claimed {
            return Err(TransferError::Length {
                claimed: self.claimed,
                received,
            });
        }
        self.data.extend_from_slice(chunk);
        Ok(())
    }

    /// The whole message, for [`super::handle::Handle::install`].
    ///
    /// # Errors
    ///
    /// When pieces are missing or damaged.
    pub fn finish(mut self) -> Result<Message, TransferError> {
        let received = self.data.len() as u64;
        if received != self.claimed {
            return Err(TransferError::Length {
                claimed: self.claimed,
                received,
            });
        }
        if trimtab_proto::checksum(&self.data) != self.checksum {
            return Err(TransferError::Checksum);
        }
        if let Some(snapshot) = &mut self.message.snapshot {
            snapshot.data = self.data.freeze();
        }
        Ok(self.message)
    }
}

#[cfg(test)]
mod tests {
    use trimtab_proto::internal::v1::Snapshot;

    use super::*;

    fn head(data: &[u8]) -> SnapshotHead {
        SnapshotHead {
            message: Some(Message {
                snapshot: Some(Snapshot::default()),
                ..Message::default()
            }),
            data_length: data.len() as u64,
            data_checksum: trimtab_proto::checksum(data),
            ..SnapshotHead::default()
        }
    }

    #[test]
    fn pieces_come_together_only_whole_and_unchanged() {
        let mut arriving = Arriving::begin(head(b"abcdef")).expect("begins");
        arriving.push(&Bytes::from_static(b"abc")).expect("fits");
        assert!(matches!(
            arriving.push(&Bytes::from_static(b"defg")),
            Err(TransferError::Length { .. })
        ));
        arriving.push(&Bytes::from_static(b"def")).expect("fits");
        let message = arriving.finish().expect("whole");
        assert_eq!(
            message.snapshot.expect("snapshot").data,
            b"abcdef".as_slice()
        );

        let mut short = Arriving::begin(head(b"abc")).expect("begins");
        short.push(&Bytes::from_static(b"ab")).expect("fits");
        assert!(matches!(short.finish(), Err(TransferError::Length { .. })));

        let mut changed = Arriving::begin(head(b"abc")).expect("begins");
        changed.push(&Bytes::from_static(b"abd")).expect("fits");
        assert_eq!(changed.finish(), Err(TransferError::Checksum));
    }

    #[test]
    fn a_head_without_a_snapshot_or_with_a_huge_claim_is_refused() {
        let none = SnapshotHead::default();
        assert_eq!(Arriving::begin(none).err(), Some(TransferError::NoMessage));
        let huge = SnapshotHead {
            data_length: u64::MAX,
            ..head(b"")
        };
        let claimed = u64::MAX;
        assert_eq!(
            Arriving::begin(huge).err(),
            Some(TransferError::TooLarge { claimed })
        );
    }
}

//! A snapshot file on its way from a replica, checked as it comes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Streaming;
use trimtab_proto::Checksum;
use trimtab_proto::v1 as wire;
use trimtab_proto::v1::save_snapshot_response::Part;

use crate::error::Error;

/// What was asked for, as errors name it.
pub(super) const REQUEST: &str = "SaveSnapshot";

/// How long the next piece may take: to encode the largest state takes
/// seconds, a piece milliseconds.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// More than the largest snapshot a registry has: a gigabyte and its frame.
const FILE_BYTES_MAX: u64 = (1 << 30) + (1 << 20);

/// The bytes of a snapshot file, piece by piece.
#[derive(Debug)]
pub struct SnapshotDownload {
    parts: Streaming<wire::SaveSnapshotResponse>,
    checksum: Checksum,
    length: u64,
    is_whole: bool,
}

impl SnapshotDownload {
    pub(super) fn new(parts: Streaming<wire::SaveSnapshotResponse>) -> Self {
        Self {
            parts,
            checksum: Checksum::default(),
            length: 0,
            is_whole: false,
        }
    }

    /// The next piece; `None` when all of them came, undamaged. Until then
    /// they are of no use.
    ///
    /// # Errors
    /// [`Error::Malformed`] when pieces are missing or damaged;
    /// [`Error::Deadline`] when none comes; any other when the stream broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.is_whole {
            return Ok(None);
        }
        let answer = timeout(PIECE_TIMEOUT, self.parts.message()).await;
        let answer = answer.map_err(|_| Error::Deadline {
            waiting_for: "the next piece of the snapshot".to_owned(),
            after: PIECE_TIMEOUT,
        })?;
        let answer = answer.map_err(|status| Error::from_status(REQUEST, status))?;
        match answer.and_then(|answer| answer.part) {
            Some(Part::Chunk(chunk)) => self.take(chunk).map(Some),
            Some(Part::End(end)) => self.end(&end).map(|()| None),
            None => Err(malformed("it ended too early")),
        }
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes, Error> {
        self.length += chunk.len() as u64;
        if self.length > FILE_BYTES_MAX {
            return Err(malformed("it does not end"));
        }
        self.checksum.update(&chunk);
        Ok(chunk)
    }

    fn end(&mut self, end: &wire::SnapshotEnd) -> Result<(), Error> {
        let found = self.length;
        if end.length != found {
            let expected = end.length;
            return Err(malformed(&format!("{found} bytes came of {expected}")));
        }
        if end.checksum != self.checksum.finish() {
            return Err(malformed("its checksum does not match"));
        }
        self.is_whole = true;
        Ok(())
    }
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("snapshot: {what}"))
}

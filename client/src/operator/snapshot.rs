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
    received: Received,
}

/// What has come so far.
#[derive(Debug, Default)]
struct Received {
    checksum: Checksum,
    length: u64,
    is_whole: bool,
}

impl SnapshotDownload {
    pub(super) fn new(parts: Streaming<wire::SaveSnapshotResponse>) -> Self {
        Self {
            parts,
            received: Received::default(),
        }
    }

    /// The next piece; `None` when all of them came, undamaged. Until then
    /// they are of no use.
    ///
    /// # Errors
    /// [`Error::Malformed`] when pieces are missing or damaged;
    /// [`Error::Deadline`] when none comes; any other when the stream broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.received.is_whole {
            return Ok(None);
        }
        let answer = timeout(PIECE_TIMEOUT, self.parts.message()).await;
        let answer = answer.map_err(|_| Error::Deadline {
            waiting_for: "the next piece of the snapshot".to_owned(),
            after: PIECE_TIMEOUT,
        })?;
        let answer = answer.map_err(|status| Error::from_status(REQUEST, status))?;
        self.received.take(answer.and_then(|answer| answer.part))
    }
}

impl Received {
    fn take(&mut self, part: Option<Part>) -> Result<Option<Bytes>, Error> {
        match part {
            Some(Part::Chunk(chunk)) => {
                self.length += chunk.len() as u64;
                if self.length > FILE_BYTES_MAX {
                    return Err(malformed("it does not end"));
                }
                self.checksum.update(&chunk);
                Ok(Some(chunk))
            }
            Some(Part::End(end)) => self.end(&end).map(|()| None),
            None => Err(malformed("it ended too early")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(content: &[u8]) -> Option<Part> {
        Some(Part::End(wire::SnapshotEnd {
            length: content.len() as u64,
            checksum: trimtab_proto::checksum(content),
        }))
    }

    fn after(chunks: &[&'static str], last: Option<Part>) -> Result<Option<Bytes>, String> {
        let mut received = Received::default();
        for chunk in chunks {
            let chunk = Bytes::from_static(chunk.as_bytes());
            let taken = received.take(Some(Part::Chunk(chunk.clone())));
            assert_eq!(taken.unwrap(), Some(chunk));
        }
        let taken = received.take(last).map_err(|error| error.to_string());
        assert_eq!(received.is_whole, taken.is_ok());
        taken
    }

    #[test]
    fn all_pieces_together_must_be_what_was_sent() {
        assert_eq!(after(&["abc", "def"], end(b"abcdef")), Ok(None));
        let refused = |chunks: &[&'static str], last, why: &str| {
            let error = after(chunks, last).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(&["abc"], end(b"abcdef"), "3 bytes came of 6");
        refused(&["abd", "cef"], end(b"abcdef"), "checksum does not match");
        refused(&["abc"], None, "it ended too early");
        refused(&[], None, "it ended too early");
    }

    #[test]
    fn a_file_that_does_not_end_is_not_taken_for_ever() {
        let mut received = Received {
            length: FILE_BYTES_MAX,
            ..Received::default()
        };
        let more = received.take(Some(Part::Chunk(Bytes::from_static(b"x"))));
        assert!(more.unwrap_err().to_string().contains("does not end"));
    }
}

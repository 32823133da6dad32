//! The form of a snapshot file, as bytes: framed, versioned, and checked whole.
//!
//! `trimtab/internal/v1/snapshot_file.proto` describes it.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use trimtab_proto::Checksum;
use trimtab_proto::internal::v1::SnapshotFileHeader;

use super::header::Header;

/// What every snapshot file begins with.
const MAGIC: &[u8; 8] = b"TRIMSNAP";

/// The format written, and the only one read.
pub const VERSION: u32 = 1;

/// Magic, version and the header's length.
const PREFIX_BYTES: usize = 16;

/// The checksum at the end.
const CHECKSUM_BYTES: usize = 8;

/// A header's size, at most: nine members take a hundredth.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// The pieces a file is handed out in.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A file's size, at most, as what replicas send each other
/// ([`crate::consensus::transfer::SNAPSHOT_BYTES_MAX`]) and the frame around it.
pub const FILE_BYTES_MAX: u64 = crate::consensus::transfer::SNAPSHOT_BYTES_MAX
    + (PREFIX_BYTES + HEADER_BYTES_MAX + CHECKSUM_BYTES) as u64;

/// Why bytes are not a snapshot that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They begin with something else.
    #[error("it does not begin as a snapshot file does")]
    Foreign,
    /// There are fewer than there should be.
    #[error("it is cut short, or damaged: {found} bytes of {expected}")]
    Short {
        /// How many there are.
        found: u64,
        /// How many there should be, at least.
        expected: u64,
    },
    /// There are more than there should be.
    #[error("{} bytes follow its end", .found - .expected)]
    Long {
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// They are not what was written.
    #[error("its checksum does not match: bytes in it were changed")]
    Checksum,
    /// Written by a version that this one does not know.
    #[error("it has format version {found}, this version of trimtab reads {VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// The checksum holds, and yet the header makes no sense.
    #[error("its header makes no sense: {0}")]
    Header(String),
}

/// The pieces of a file, in order, none longer than [`CHUNK_BYTES`]. The state
/// is shared, not copied.
pub fn encode(header: &Header, mut state: Bytes) -> Vec<Bytes> {
    let header = header.to_wire(state.len() as u64).encode_to_vec();
    let mut start = BytesMut::with_capacity(PREFIX_BYTES + header.len());
    start.put_slice(MAGIC);
    start.put_u32_le(VERSION);
    start.put_u32_le(header.len() as u32);
    start.put_slice(&header);
    let mut parts = vec![start.freeze()];
    while !state.is_empty() {
        parts.push(state.split_to(state.len().min(CHUNK_BYTES)));
    }
    let mut checksum = Checksum::default();
    for part in &parts {
        checksum.update(part);
    }
    parts.push(Bytes::copy_from_slice(&checksum.finish().to_le_bytes()));
    parts
}

/// What a file holds: its header and its state.
///
/// # Errors
/// When it is not a whole and undamaged snapshot file of a known version.
pub fn decode(file: &Bytes) -> Result<(Header, Bytes), FormatError> {
    let head = file.get(..MAGIC.len()).unwrap_or(file);
    if head.is_empty() || !MAGIC.starts_with(head) {
        return Err(FormatError::Foreign);
    }
    let lengths = lengths(file);
    // First of all: nothing else in a damaged file can be believed. But if it
    // says how long it should be, that may be all that is wrong with it.
    if !is_undamaged(file) {
        return Err(match lengths {
            Err(short @ FormatError::Short { .. }) => short,
            Err(_) => FormatError::Checksum,
            Ok(lengths) => lengths.misfit(file).unwrap_or(FormatError::Checksum),
        });
    }
    let lengths = lengths?;
    if lengths.version != VERSION {
        return Err(FormatError::Version {
            found: lengths.version,
        });
    }
    if let Some(misfit) = lengths.misfit(file) {
        return Err(misfit);
    }
    let header = SnapshotFileHeader::decode(file.slice(PREFIX_BYTES..lengths.state_begins))
        .map_err(|error| FormatError::Header(error.to_string()))?;
    let header = Header::from_wire(header).map_err(FormatError::Header)?;
    let state = file.slice(lengths.state_begins..file.len() - CHECKSUM_BYTES);
    Ok((header, state))
}

/// What a file says of its own layout.
struct Lengths {
    version: u32,
    state_begins: usize,
    /// Of the whole file; `None` when the header cannot tell.
    whole: Option<u64>,
}

impl Lengths {
    fn misfit(&self, file: &[u8]) -> Option<FormatError> {
        let found = file.len() as u64;
        let expected = self.whole?;
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => Some(FormatError::Short { found, expected }),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(FormatError::Long { found, expected }),
        }
    }
}

fn lengths(file: &[u8]) -> Result<Lengths, FormatError> {
    let short = |expected: usize| FormatError::Short {
        found: file.len() as u64,
        expected: expected as u64,
    };
    let number = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (Some(version), Some(header)) = (number(8), number(12)) else {
        return Err(short(PREFIX_BYTES + CHECKSUM_BYTES));
    };
    let header = header as usize;
    if header > HEADER_BYTES_MAX {
        return Err(FormatError::Header(format!("it claims {header} bytes")));
    }
    let state_begins = PREFIX_BYTES + header;
    let Some(header) = file.get(PREFIX_BYTES..state_begins) else {
        return Err(short(state_begins + CHECKSUM_BYTES));
    };
    let state_length = SnapshotFileHeader::decode(header)
        .ok()
        .map(|header| header.state_length);
    let frame = (state_begins + CHECKSUM_BYTES) as u64;
    Ok(Lengths {
        version,
        state_begins,
        whole: state_length.and_then(|length| length.checked_add(frame)),
    })
}

fn is_undamaged(file: &[u8]) -> bool {
    let Some((content, checksum)) = file.split_last_chunk::<CHECKSUM_BYTES>() else {
        return false;
    };
    trimtab_proto::checksum(content) == u64::from_le_bytes(*checksum)
}

#[cfg(test)]
mod tests;

//! A view as a file: a header that is checked before anything else is believed, then the view as it travelled.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `TRIMVIEW` |
//! | 4 | version of this layout, little-endian |
//! | 8 | length of the body, little-endian |
//! | 8 | XXH3-64 of version, length and body, little-endian |
//! | rest | the body: a protobuf message |

use std::fmt;

use bytes::Bytes;
use prost::Message;
use trimtab_proto::Checksum;
use trimtab_proto::v1 as wire;

use crate::cluster::MESSAGE_BYTES_MAX;

const MAGIC: &[u8; 8] = b"TRIMVIEW";

/// Raised whenever the layout or the meaning of the body changes. Another one
/// is not read: what is lost is one cold start without the registry.
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 28;

/// The endpoints remembered in one file: as many as a client may have.
const ENDPOINTS_MAX: usize = 64;

/// No file is larger: the largest view that travels, and room for the rest.
pub(crate) const FILE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64 * 1024;

/// One view, and where it came from.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Entry {
    /// The cluster whose view it is; 0 when it did not say.
    #[prost(fixed64, tag = "1")]
    pub(crate) cluster: u64,
    /// Where that cluster's replicas were said to be.
    #[prost(string, repeated, tag = "2")]
    pub(crate) endpoints: Vec<String>,
    /// When it was written, in milliseconds since 1970, by the writer's clock.
    #[prost(uint64, tag = "3")]
    pub(crate) saved_at_ms: u64,
    #[prost(string, tag = "4")]
    pub(crate) service: String,
    #[prost(uint64, tag = "5")]
    pub(crate) revision: u64,
    /// Of the view alone, as the registry sent it.
    #[prost(fixed64, tag = "6")]
    pub(crate) checksum: u64,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) view: Bytes,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not what was written, or was never such a file.
    Damaged(&'static str),
    /// Another release of this crate wrote it.
    Version(u32),
}

impl Entry {
    /// What is said of a view on the wire.
    pub(crate) fn update(&self) -> wire::ViewUpdate {
        wire::ViewUpdate {
            service: self.service.clone(),
            revision: self.revision,
            checksum: self.checksum,
            view: self.view.clone(),
        }
    }
}

/// The file that holds an entry.
pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let body = entry.encode_to_vec();
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    file.extend_from_slice(&checksum(VERSION, &body).to_le_bytes());
    file.extend_from_slice(&body);
    file
}

/// The entry that a file holds.
///
/// # Errors
/// Why it must not be used; never more than that is done with it.
pub(crate) fn decode(file: &Bytes) -> Result<Entry, Unusable> {
    let damaged = |what| Err(Unusable::Damaged(what));
    let Some((header, _)) = file.split_at_checked(HEADER_BYTES) else {
        return damaged("it is shorter than a header");
    };
    let (magic, header) = header.split_at(8);
    if magic != MAGIC {
        return damaged("it is not a view that was kept");
    }
    let (version, header) = header.split_at(4);
    let version = u32::from_le_bytes(version.try_into().unwrap_or_default());
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let (length, sum) = header.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    let sum = u64::from_le_bytes(sum.try_into().unwrap_or_default());
    let body = file.slice(HEADER_BYTES..);
    if body.len() as u64 != length {
        return damaged("it is longer or shorter than it says");
    }
    if checksum(version, &body) != sum {
        return damaged("its checksum is another");
    }
    match Entry::decode(body) {
        Ok(entry) if entry.endpoints.len() <= ENDPOINTS_MAX => Ok(entry),
        _ => damaged("its body cannot be read"),
    }
}

fn checksum(version: u32, body: &[u8]) -> u64 {
    let mut sum = Checksum::default();
    sum.update(&version.to_le_bytes());
    sum.update(&(body.len() as u64).to_le_bytes());
    sum.update(body);
    sum.finish()
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
            Self::Version(version) => {
                write!(f, "it has layout {version}, this release reads {VERSION}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::view_from_wire;
    use proptest::prelude::*;

    fn entry(view: Vec<u8>) -> Entry {
        Entry {
            cluster: 7,
            endpoints: vec!["127.0.0.1:7070".to_owned(), "127.0.0.1:7071".to_owned()],
            saved_at_ms: 1_700_000_000_000,
            service: "catalog".to_owned(),
            revision: 42,
            checksum: trimtab_proto::checksum(&view),
            view: view.into(),
        }
    }

    fn real() -> Entry {
        let view = wire::View {
            service: "catalog".to_owned(),
            revision: 42,
            instances: (0..20)
                .map(|number| wire::Instance {
                    id: format!("i{number}"),
                    group: "v1".to_owned(),
                    address: format!("127.0.0.1:{}", 8_000 + number),
                    ..wire::Instance::default()
                })
                .collect(),
            ..wire::View::default()
        };
        entry(view.encode_to_vec())
    }

    #[test]
    fn what_was_written_is_read() {
        let file = Bytes::from(encode(&real()));
        let read = decode(&file).unwrap();
        assert_eq!(read, real());
        assert_eq!(
            view_from_wire(&read.update()).unwrap().groups[0]
                .instances
                .len(),
            20
        );
    }

    #[test]
    fn the_layout_is_as_it_was() {
        let file = encode(&entry(vec![1, 2, 3]));
        assert_eq!(&file[..12], b"TRIMVIEW\x01\0\0\0");
        // Changed bytes need another VERSION.
        assert_eq!(trimtab_proto::checksum(&file), 3_343_346_147_880_116_091);
    }

    #[test]
    fn every_bit_and_every_length_counts() {
        let file = encode(&real());
        for at in 0..file.len() {
            assert!(
                decode(&Bytes::copy_from_slice(&file[..at])).is_err(),
                "cut at {at}"
            );
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    decode(&Bytes::from(flipped)).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(decode(&Bytes::from(longer)).is_err());
    }

    #[test]
    fn another_layout_is_told_from_damage() {
        let mut file = encode(&real());
        file[8] = 2;
        let unusable = decode(&Bytes::from(file)).unwrap_err();
        assert_eq!(unusable, Unusable::Version(2));
        assert_eq!(
            unusable.to_string(),
            "it has layout 2, this release reads 1"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(file in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(&Bytes::from(file)).is_err());
        }

        /// Whatever a disk makes of a file, it is ignored, or it is what was
        /// written.
        #[test]
        fn damage_is_ignored_or_changes_nothing(
            view in proptest::collection::vec(any::<u8>(), 0..300),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let written = entry(view);
            let mut file = encode(&written);
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if is_cut {
                file.truncate(cut.index(file.len() + 1));
            }
            if let Ok(read) = decode(&Bytes::from(file)) {
                prop_assert_eq!(read, written);
            }
        }

        /// A body that someone made, under a checksum that fits.
        #[test]
        fn a_body_that_is_made_up_does_no_harm(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&VERSION.to_le_bytes());
            file.extend_from_slice(&(body.len() as u64).to_le_bytes());
            file.extend_from_slice(&checksum(VERSION, &body).to_le_bytes());
            file.extend_from_slice(&body);
            if let Ok(entry) = decode(&Bytes::from(file)) {
                // The view in it has a checksum of its own.
                let _ = view_from_wire(&entry.update());
            }
        }
    }
}

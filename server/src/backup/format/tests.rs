//! A snapshot file is read whole and unchanged, or refused with words that fit.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trimtab_registry::revision::Position;

use super::super::header::Source;
use super::*;

fn header() -> Header {
    Header {
        cluster_id: 0xfeed_beef_0000_0001,
        applied: Position { index: 88, term: 4 },
        members: BTreeMap::from([(1, "127.0.0.1:7071".to_owned())]),
        saved_at_ms: 1_700_000_000_000,
        saved_by: 1,
        version: "0.1.0".to_owned(),
        source: Source::Directory {
            unconfirmed_entries: 3,
        },
    }
}

fn file(state: &[u8]) -> Bytes {
    let parts = encode(&header(), Bytes::copy_from_slice(state));
    assert!(parts.iter().all(|part| part.len() <= CHUNK_BYTES));
    parts.concat().into()
}

/// With the checksum made to match.
fn sealed(mut content: Vec<u8>) -> Bytes {
    let checksum = trimtab_proto::checksum(&content);
    content.extend_from_slice(&checksum.to_le_bytes());
    content.into()
}

#[test]
fn a_file_comes_back_as_it_was() {
    for length in [0, 1, 1000, CHUNK_BYTES, 2 * CHUNK_BYTES + 7] {
        let state: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let (found, read) = decode(&file(&state)).expect("whole");
        assert_eq!(found, header());
        assert_eq!(read, state);
    }
    for source in [Source::Quorum, Source::Replica] {
        let header = Header { source, ..header() };
        let file = encode(&header, Bytes::new()).concat().into();
        assert_eq!(decode(&file).expect("whole").0, header);
    }
}

/// The bytes of version 1 are fixed: what an old release saved must be read.
#[test]
fn the_format_is_pinned() {
    let file = file(b"state");
    let (content, checksum) = file.split_at(file.len() - CHECKSUM_BYTES);
    let header =
        b"\x09\x01\0\0\0\xef\xbe\xed\xfe\x10\x58\x18\x04\x22\x12\x08\x01\x12\x0e127.0.0.1:7071\
        \x28\x80\xd0\x95\xff\xbc\x31\x30\x01\x3a\x050.1.0\x40\x05\x48\x03\x50\x03";
    let expected = [&b"TRIMSNAP\x01\0\0\0\x37\0\0\0"[..], header, b"state"].concat();
    assert_eq!(content, expected);
    assert_eq!(checksum, trimtab_proto::checksum(&expected).to_le_bytes());
}

#[test]
fn a_file_cut_short_says_how_short() {
    let file = file(b"some state");
    for length in 0..file.len() {
        let error = decode(&file.slice(..length)).expect_err("cut short");
        match error {
            FormatError::Foreign => assert_eq!(length, 0),
            FormatError::Short { found, expected } => {
                assert_eq!(found, length as u64);
                assert!(expected <= file.len() as u64);
            }
            other => panic!("{length}: {other}"),
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut longer = file(b"some state").to_vec();
    longer.extend_from_slice(b"more");
    let error = decode(&longer.into()).expect_err("too long");
    assert_eq!(error.to_string(), "4 bytes follow its end");
}

#[test]
fn no_flipped_bit_passes() {
    let file = file(b"some state");
    for bit in 0..file.len() * 8 {
        let mut flipped = file.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&flipped.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn another_version_and_other_files_are_told_apart() {
    let mut newer = file(b"some state").to_vec();
    newer.truncate(newer.len() - CHECKSUM_BYTES);
    newer[8] = 2;
    assert_eq!(
        decode(&sealed(newer)),
        Err(FormatError::Version { found: 2 })
    );
    let other = Bytes::from_static(b"redb and more of it, long enough to be anything");
    assert_eq!(decode(&other), Err(FormatError::Foreign));
    assert_eq!(decode(&Bytes::new()), Err(FormatError::Foreign));
}

#[test]
fn a_header_that_makes_no_sense_is_refused_even_under_a_checksum() {
    let mut content = b"TRIMSNAP\x01\0\0\0\x02\0\0\0".to_vec();
    content.extend_from_slice(&[0xff, 0xff]);
    let garbled = decode(&sealed(content)).expect_err("no header");
    assert!(matches!(garbled, FormatError::Header(_)), "{garbled}");

    let no_source = SnapshotFileHeader::default().encode_to_vec();
    let mut content = b"TRIMSNAP\x01\0\0\0".to_vec();
    content.extend_from_slice(&(no_source.len() as u32).to_le_bytes());
    content.extend_from_slice(&no_source);
    let sourceless = decode(&sealed(content)).expect_err("no source");
    assert!(matches!(sourceless, FormatError::Header(_)), "{sourceless}");

    let huge = sealed(b"TRIMSNAP\x01\0\0\0\xff\xff\xff\xff".to_vec());
    assert!(matches!(decode(&huge), Err(FormatError::Header(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_but_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        framed in any::<bool>(),
    ) {
        let mut file = if framed { b"TRIMSNAP\x01\0\0\0".to_vec() } else { Vec::new() };
        file.extend_from_slice(&bytes);
        let _ = decode(&Bytes::from(file.clone()));
        let _ = decode(&sealed(file));
    }
}

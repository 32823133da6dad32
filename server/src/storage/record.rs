//! How one value is framed on disk: a version byte and a checksum before it.

/// The version of the frame and of what is in it.
const RECORD_VERSION: u8 = 1;

/// Version byte and CRC-32.
const HEADER_BYTES: usize = 5;

/// The payload behind its frame. The checksum covers the key too, so that a
/// record found under another key is not taken for good.
pub(super) fn seal(key: u64, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    record.push(RECORD_VERSION);
    record.extend_from_slice(&checksum(key, payload).to_le_bytes());
    record.extend_from_slice(payload);
    record
}

/// The payload of a record, or what is wrong with it.
pub(super) fn unseal(key: u64, record: &[u8]) -> Result<&[u8], String> {
    let Some((header, payload)) = record.split_at_checked(HEADER_BYTES) else {
        return Err(format!("{} bytes are too few for a record", record.len()));
    };
    let [version, stored @ ..] = header else {
        return Err("the record is empty".to_owned());
    };
    if *version != RECORD_VERSION {
        return Err(format!(
            "record version {version}, this version reads {RECORD_VERSION}"
        ));
    }
    let computed = checksum(key, payload).to_le_bytes();
    if computed != *stored {
        return Err("the checksum does not match".to_owned());
    }
    Ok(payload)
}

fn checksum(key: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[RECORD_VERSION]);
    hasher.update(&key.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_record_opens_only_whole_and_under_its_own_key() {
        let record = seal(7, b"payload");
        assert_eq!(unseal(7, &record), Ok(b"payload".as_slice()));
        assert!(unseal(8, &record).is_err());
        for length in 0..record.len() {
            assert!(unseal(7, &record[..length]).is_err());
        }
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 0x10;
            assert!(unseal(7, &flipped).is_err(), "byte {at}");
        }
    }
}

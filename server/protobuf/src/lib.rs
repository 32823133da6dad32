//! Stands in for the few items that the `raft` crate takes from rust-protobuf 2.
//!
//! `raft` 0.7 links the crate `protobuf` 2 whatever its features, and that
//! one's parser overflows the stack on crafted bytes (RUSTSEC-2024-0437), for
//! which there is no fix below 3.7. The workspace puts this crate in its
//! place (`[patch.crates-io]` in the root's `Cargo.toml`). The work is done by
//! prost, whose parser bounds how deep messages nest.
//!
//! Here is what raft 0.7.0 names: [`Message`] with the three calls it makes,
//! for every prost message, and [`ProtobufError`]. Everything else of
//! rust-protobuf is deliberately absent; a version of raft that wanted more
//! would not compile.

/// A message as the `raft` crate sizes, writes and reads it.
///
/// Every prost message is one. Raft sizes log entries by it, to bound a
/// message; writes what it proposes as a change of members; and reads that
/// again on the leader before it appends it.
pub trait Message: prost::Message + Default {
    /// The encoding's length in bytes; `u32::MAX` stands for all that is longer.
    fn compute_size(&self) -> u32 {
        u32::try_from(self.encoded_len()).unwrap_or(u32::MAX)
    }

    /// The encoding.
    ///
    /// # Errors
    ///
    /// None: a vector grows as it must. Raft expects a `Result`.
    fn write_to_bytes(&self) -> Result<Vec<u8>, ProtobufError> {
        Ok(self.encode_to_vec())
    }

    /// Reads `bytes` into `self`: fields found there replace or, where they
    /// repeat, extend what it holds.
    ///
    /// # Errors
    ///
    /// When `bytes` are not this message's encoding. What `self` holds then is
    /// unspecified.
    fn merge_from_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        Ok(self.merge(bytes)?)
    }
}

impl<T: prost::Message + Default> Message for T {}

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ProtobufError(#[from] prost::DecodeError);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Nest {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(message, optional, boxed, tag = "2")]
        inner: Option<Box<Self>>,
    }

    #[test]
    fn a_message_comes_back_and_its_size_is_its_length() {
        let message = Nest {
            number: 300,
            inner: Some(Box::default()),
        };
        let bytes = message.write_to_bytes().expect("encodes");
        assert_eq!(bytes, [0x08, 0xac, 0x02, 0x12, 0x00]);
        assert_eq!(message.compute_size(), 5);
        let mut read = Nest::default();
        read.merge_from_bytes(&bytes).expect("decodes");
        assert_eq!(read, message);
    }

    #[test]
    fn bytes_that_end_too_early_are_refused() {
        let error = Nest::default().merge_from_bytes(&[0x08]);
        assert!(error.is_err_and(|error| error.to_string().contains("varint")));
    }

    // RUSTSEC-2024-0437: the parser this crate replaces overflows the stack here.
    #[test]
    fn messages_and_unknown_groups_nested_too_deep_are_refused() {
        let groups = vec![0x1b; 1 << 20];
        assert!(Nest::default().merge_from_bytes(&groups).is_err());

        let mut messages = Vec::new();
        for _ in 0..1_000 {
            let mut outer = vec![0x12];
            prost::encoding::encode_varint(messages.len() as u64, &mut outer);
            outer.append(&mut messages);
            messages = outer;
        }
        assert!(Nest::default().merge_from_bytes(&messages).is_err());
    }
}

//! The wire contract of Trimtab: messages, gRPC services and what both sides must reckon alike.
//!
//! The contract of each stream is written in the `.proto` files beside this
//! crate, and repeated here as documentation of the generated items.

pub mod digest;
pub mod duration;
pub mod latency;

/// What callers, instances and operators speak with the registry.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
    tonic::include_proto!("trimtab.v1");
}

/// What replicas speak with each other. No one else should.
pub mod internal {
    /// The first version of it.
    pub mod v1 {
        #![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
        tonic::include_proto!("trimtab.internal.v1");
    }
}

/// A small service for the demo, the examples and the tests.
pub mod demo {
    /// The first version of it.
    pub mod v1 {
        #![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
        tonic::include_proto!("trimtab.demo.v1");
    }
}

/// The checksum of an encoded view or snapshot as it travels: XXH3-64, seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// The checksum of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Checksum(xxhash_rust::xxh3::Xxh3);

impl Checksum {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What [`checksum`] says of all pieces together.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Checksum").field(&self.finish()).finish()
    }
}

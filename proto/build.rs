//! Compiles the protocol files with protox, so that no protoc is needed.

use std::error::Error;

const FILES: &[&str] = &[
    "trimtab/v1/discovery_service.proto",
    "trimtab/v1/registration_service.proto",
    "trimtab/v1/routing_service.proto",
    "trimtab/v1/cluster_service.proto",
    "trimtab/internal/v1/peer_service.proto",
    "trimtab/internal/v1/snapshot_file.proto",
    "trimtab/demo/v1/catalog_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=trimtab");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        // Maps in key order: equal messages have equal bytes.
        .btree_map(".")
        // Views and log entries are shared, not copied.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

//! Compiles the parts of the peers' protocols that the load generator speaks, with protox.

use std::error::Error;

const FILES: &[&str] = &["etcd.proto", "nacos.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

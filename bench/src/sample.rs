//! What is registered: the same instances with every backend.

use std::net::{Ipv4Addr, SocketAddrV4};

/// How many instances share a service, unless the workload says otherwise.
pub(crate) const PER_SERVICE: usize = 100;
/// The release they all run.
pub(crate) const GROUP: &str = "v41";
/// The zones they stand in, in turn.
pub(crate) const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];
/// What is said of a release, the same for all of its instances. With it a list of 100 has about 25 KB.
pub(crate) const METADATA: [(&str, &str); 5] = [
    ("build", "6f1c2d9e8b7a4f3e5d6c7b8a9f0e1d2c3b4a5968"),
    ("protocol", "grpc"),
    ("team", "shopping-catalog"),
    ("image", "registry.internal/shop/catalog:2026.11.23"),
    ("started-by", "deploy/rolling"),
];
const PORT: u16 = 8_080;

/// One instance. Its address is in 127.0.0.0/8, and nothing listens there: some registries connect to what is registered.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) address: SocketAddrV4,
    pub(crate) zone: &'static str,
}

impl Sample {
    /// The `number`th instance of those whose services begin with `prefix`.
    pub(crate) fn new(prefix: &str, number: usize) -> Self {
        Self::of(&service_name(prefix, number / PER_SERVICE), number)
    }

    /// The `number`th instance, of this service.
    pub(crate) fn of(service: &str, number: usize) -> Self {
        // 127.1.0.0 and up: 127.0.0.x is where the servers are.
        let host = u32::try_from(number % 0xf0_0000).unwrap_or(0) + 0x7f01_0000;
        Self {
            service: service.to_owned(),
            id: format!("{service}-{number:07}"),
            address: SocketAddrV4::new(Ipv4Addr::from(host), PORT),
            zone: ZONES.get(number % ZONES.len()).copied().unwrap_or_default(),
        }
    }
}

/// The `number`th service of those that begin with `prefix`.
pub(crate) fn service_name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:05}")
}

//! What several tests of this room need: commands worth applying.

use trimtab_registry::command::{Command, Register};
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};

/// A registration that is never refused.
pub(super) fn register(service: &str, instance: &str) -> Command {
    Command::Register(Register {
        service: ServiceName::parse(service).expect("a name"),
        instance: InstanceSpec {
            id: InstanceId::parse(instance).expect("an id"),
            group: GroupName::parse("v1").expect("a name"),
            address: Address::parse("127.0.0.1:4000").expect("an address"),
            zone: Zone::parse("z1").expect("a zone"),
            capacity: Capacity::default(),
            metadata: Metadata::default(),
            status: DeclaredStatus::Ready,
        },
        ttl: Ttl::default(),
        at_ms: 1_700_000_000_000,
    })
}

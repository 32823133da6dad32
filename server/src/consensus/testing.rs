//! What several tests of this room need: commands worth applying, members.

use std::collections::BTreeMap;

use trimtab_registry::command::{Command, Register};
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};

use super::membership::{Member, Membership};

/// A registration that is never refused.
pub(crate) fn register(service: &str, instance: &str) -> Command {
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

/// Founders 1 to `size`, each on a data directory of its own.
pub(super) fn founders(size: u64) -> BTreeMap<u64, Member> {
    let member = |id: u64| Member {
        address: format!("replica-{id}:1"),
        disk_id: 10 + id,
    };
    (1..=size).map(|id| (id, member(id))).collect()
}

/// Their membership.
pub(super) fn founded(size: u64) -> Membership {
    Membership::founded_by(&founders(size))
}

//! Removals that are held back.

use trimtab_proto::v1;
use trimtab_registry::name::Zone;

use super::duration;
use crate::leases::brake::Brake;

/// A brake as operators are told of it.
pub(crate) fn brake(brake: &Brake) -> v1::Brake {
    v1::Brake {
        service: brake.service.to_string(),
        zone: brake.zone().map(Zone::to_string).unwrap_or_default(),
        via_replica: brake.via_replica().unwrap_or_default(),
        held: u32::try_from(brake.held).unwrap_or(u32::MAX),
        unwell: brake.unwell,
        leases: brake.leases,
        age: Some(duration(brake.age)),
        ends_in: Some(duration(brake.ends_in)),
        reason: brake.reason(),
    }
}

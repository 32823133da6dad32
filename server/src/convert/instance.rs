//! Instances and leases.

use std::collections::BTreeMap;

use trimtab_proto::v1::{self, InstanceStatus};
use trimtab_registry::command::{Register, SetStatus};
use trimtab_registry::instance::{
    Capacity, DeclaredStatus, Instance, InstanceSpec, LeaseKey, Metadata, Status, Ttl,
};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::rejection::Invalid;
use trimtab_registry::revision::Revision;

/// An instance as callers see it.
pub(crate) fn instance(instance: &Instance) -> v1::Instance {
    let metadata: BTreeMap<String, String> = instance
        .spec
        .metadata
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    v1::Instance {
        id: instance.id().to_string(),
        group: instance.group().to_string(),
        address: instance.spec.address.to_string(),
        zone: instance.spec.zone.to_string(),
        capacity: instance.capacity(),
        metadata,
        status: status(instance.status()).into(),
    }
}

pub(super) fn status(status: Status) -> InstanceStatus {
    match status {
        Status::Starting => InstanceStatus::Starting,
        Status::Ready => InstanceStatus::Ready,
        Status::Suspect => InstanceStatus::Suspect,
        Status::Draining => InstanceStatus::Draining,
    }
}

/// A lease as it travels.
pub(crate) fn lease_ref(key: &LeaseKey) -> v1::LeaseRef {
    v1::LeaseRef {
        service: key.service.to_string(),
        instance_id: key.instance.to_string(),
        lease: key.lease.0,
    }
}

/// # Errors
/// A name that is not valid.
pub(crate) fn lease_key(lease: &v1::LeaseRef) -> Result<LeaseKey, Invalid> {
    Ok(LeaseKey {
        service: ServiceName::parse(&lease.service)
            .map_err(|invalid| invalid.at("lease.service"))?,
        instance: InstanceId::parse(&lease.instance_id)
            .map_err(|invalid| invalid.at("lease.instance_id"))?,
        lease: Revision(lease.lease),
    })
}

/// # Errors
/// The first field that is missing or not valid.
pub(crate) fn register(request: v1::RegisterRequest, at_ms: u64) -> Result<Register, Invalid> {
    let service = ServiceName::parse(&request.service)?;
    let Some(asked) = request.instance else {
        return Err(Invalid::new("instance", "", "must be set"));
    };
    let status = match asked.status() {
        InstanceStatus::Unspecified | InstanceStatus::Ready => DeclaredStatus::Ready,
        InstanceStatus::Starting => DeclaredStatus::Starting,
        other => {
            return Err(Invalid::new(
                "instance.status",
                other.as_str_name(),
                "must be STARTING or READY when registering",
            ));
        }
    };
    let spec = InstanceSpec {
        id: InstanceId::parse(&asked.id).map_err(|invalid| invalid.at("instance.id"))?,
        group: GroupName::parse(&asked.group).map_err(|invalid| invalid.at("instance.group"))?,
        address: Address::parse(&asked.address)
            .map_err(|invalid| invalid.at("instance.address"))?,
        zone: Zone::parse(&asked.zone).map_err(|invalid| invalid.at("instance.zone"))?,
        capacity: match asked.capacity {
            0 => Capacity::default(),
            capacity => {
                Capacity::new(capacity).map_err(|invalid| invalid.at("instance.capacity"))?
            }
        },
        metadata: Metadata::new(asked.metadata)
            .map_err(|invalid| invalid.at("instance.metadata"))?,
        status,
    };
    let ttl = match request.ttl {
        None => Ttl::default(),
        Some(ttl) => Ttl::from_millis(millis(&ttl))?,
    };
    Ok(Register {
        service,
        instance: spec,
        ttl,
        at_ms,
    })
}

/// A negative or immense duration becomes one that no rule allows.
fn millis(duration: &prost_types::Duration) -> u64 {
    trimtab_proto::duration::parse(duration).map_or(0, |duration| {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    })
}

/// # Errors
/// No lease, a name or a status that is not valid.
pub(crate) fn set_status(request: &v1::SetStatusRequest) -> Result<SetStatus, Invalid> {
    let Some(lease) = &request.lease else {
        return Err(Invalid::new("lease", "", "must be set"));
    };
    let status = match request.status() {
        InstanceStatus::Starting => DeclaredStatus::Starting,
        InstanceStatus::Ready => DeclaredStatus::Ready,
        InstanceStatus::Draining => DeclaredStatus::Draining,
        other => {
            return Err(Invalid::new(
                "status",
                other.as_str_name(),
                "must be STARTING, READY or DRAINING",
            ));
        }
    };
    Ok(SetStatus {
        lease: lease_key(lease)?,
        status,
    })
}

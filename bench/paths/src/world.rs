//! A registry with services in it, and commands to it.

use std::collections::BTreeMap;

use trimtab_proto::v1::ViewUpdate;
use trimtab_registry::command::{Change, Command, Register, ServiceShift, Shift, Target};
use trimtab_registry::event::Event;
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::revision::Position;
use trimtab_registry::route::Weights;
use trimtab_registry::state::Registry;
use trimtab_registry::text::{Actor, Reason, RequestId};
use trimtab_server::convert::encode_view;

use crate::Failure;

/// The release that all calls go to at first, and the one beside it.
const GROUPS: [&str; 2] = ["v41", "v42"];
/// In turn, as callers are in one of several.
const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];
/// What an instance says of itself beside that: as in `bench/src/sample.rs`.
const METADATA: [(&str, &str); 5] = [
    ("build", "6f1c2d9e8b7a4f3e5d6c7b8a9f0e1d2c3b4a5968"),
    ("protocol", "grpc"),
    ("team", "shopping-catalog"),
    ("image", "registry.internal/shop/catalog:2026.11.23"),
    ("started-by", "deploy/rolling"),
];
/// 127.1.0.0 and up: only loopback is ever registered.
const FIRST_HOST: u32 = 0x7f01_0000;
const PORT: u16 = 8_080;

/// A registry and its log's position.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) registry: Registry,
}

impl World {
    /// So many services of so many instances, every tenth of them of the newer release.
    pub(crate) fn with(services: usize, instances: usize) -> Result<Self, Failure> {
        let mut world = Self::default();
        for number in 0..services * instances {
            let service = service(number / instances)?;
            world.apply(&register(&service, number % instances)?)?;
        }
        Ok(world)
    }

    /// Applies a command, which must be taken.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<Vec<Event>, Failure> {
        let at = Position {
            index: self.registry.applied().index + 1,
            term: 1,
        };
        let applied = self.registry.apply(at, command);
        match applied.outcome {
            Ok(_) => Ok(applied.events),
            Err(rejection) => Err(Failure(format!("{command:?} was refused: {rejection}"))),
        }
    }

    /// The view of a service, as a replica sends it.
    pub(crate) fn update(&self, name: &ServiceName) -> Result<ViewUpdate, Failure> {
        let view = self.registry.view(name);
        let view = view.ok_or_else(|| Failure(format!("{name} has no view")))?;
        let encoded = encode_view(&view);
        Ok(ViewUpdate {
            service: name.to_string(),
            revision: view.revision.0,
            checksum: encoded.checksum,
            view: encoded.bytes,
        })
    }
}

/// For `map_err` on what is not valid.
pub(crate) fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure(error.to_string())
}

/// The service with this number.
pub(crate) fn service(number: usize) -> Result<ServiceName, Failure> {
    ServiceName::parse(&format!("service-{number:05}")).map_err(invalid)
}

/// The id of the instance with this number.
pub(crate) fn instance(number: usize) -> Result<InstanceId, Failure> {
    InstanceId::parse(&format!("instance-{number:07}")).map_err(invalid)
}

/// An instance registers.
pub(crate) fn register(service: &ServiceName, number: usize) -> Result<Command, Failure> {
    let group = GROUPS[usize::from(number % 10 == 9)];
    let pairs = METADATA.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let host = FIRST_HOST + u32::try_from(number).unwrap_or(0);
    let address = format!("{}:{PORT}", std::net::Ipv4Addr::from(host));
    let spec = InstanceSpec {
        id: instance(number)?,
        group: GroupName::parse(group).map_err(invalid)?,
        address: Address::parse(&address).map_err(invalid)?,
        zone: Zone::parse(ZONES[number % ZONES.len()]).map_err(invalid)?,
        capacity: Capacity::default(),
        metadata: Metadata::new(BTreeMap::from(pairs)).map_err(invalid)?,
        status: DeclaredStatus::Ready,
    };
    Ok(Command::Register(Register {
        service: service.clone(),
        instance: spec,
        ttl: Ttl::default(),
        at_ms: 0,
    }))
}

/// The newer release gets a share that differs from the one before.
pub(crate) fn shift(service: &ServiceName, number: u64) -> Result<Command, Failure> {
    let share = 1_000 + u32::try_from(number % 1_000).unwrap_or(0);
    let weight = |group: &str, weight| Ok((GroupName::parse(group).map_err(invalid)?, weight));
    let weights = [
        weight(GROUPS[0], 10_000 - share)?,
        weight(GROUPS[1], share)?,
    ];
    Ok(Command::Shift(Shift {
        shifts: vec![ServiceShift {
            service: service.clone(),
            target: Target::Weights(Weights::new(weights).map_err(invalid)?),
            expected: None,
            min_ready: Some(1),
            policy: None,
        }],
        change: Change {
            actor: Actor::default(),
            reason: Reason::default(),
            at_ms: 0,
            request_id: RequestId::default(),
            force: false,
        },
    }))
}

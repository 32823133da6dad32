//! What a replica does with each entry of the log.

use std::collections::VecDeque;
use std::hint::black_box;

use trimtab_registry::command::{Command, Deregister, SetStatus};
use trimtab_registry::instance::{DeclaredStatus, LeaseKey};
use trimtab_registry::name::ServiceName;

use crate::Failure;
use crate::counted::Counter;
use crate::world::{World, instance, register, service, shift};

/// Often enough that a rare large step, as of a tree's node that splits, is in each count with its part.
const TIMES: u64 = 200;
/// Services and instances of each: an instance more in one of many services, and in one large one.
const WORLDS: [(usize, usize); 3] = [(10, 100), (1_000, 10), (1, 1_000)];

pub(crate) fn run(counter: &mut Counter) -> Result<(), Failure> {
    for (services, instances) in WORLDS {
        let among = format!("{services} x {instances} instances");
        let mut world = World::with(services, instances)?;
        let name = service(services / 2)?;
        commands(counter, &among, &mut world, &name, instances)?;
    }
    Ok(())
}

fn commands(
    counter: &mut Counter,
    among: &str,
    world: &mut World,
    name: &ServiceName,
    instances: usize,
) -> Result<(), Failure> {
    let shifts: Result<Vec<Command>, Failure> = (0..=TIMES).map(|at| shift(name, at)).collect();
    let path = format!("apply a shift, {among}");
    each(counter, world, &path, shifts?)?;
    let number = |at: u64| instances + usize::try_from(at).unwrap_or(0);
    let asked: Result<Vec<Command>, Failure> =
        (0..=TIMES).map(|at| register(name, number(at))).collect();
    let path = format!("apply a registration, {among}");
    each(counter, world, &path, asked?)?;

    let keys = leases(world, name, instances)?;
    let status = |lease: &LeaseKey, status| {
        let lease = lease.clone();
        Command::SetStatus(SetStatus { lease, status })
    };
    let starting = keys.iter().map(|key| status(key, DeclaredStatus::Starting));
    each(
        counter,
        world,
        &format!("apply a status, {among}"),
        starting.collect(),
    )?;
    let leaving = keys.iter().map(|lease| {
        let lease = lease.clone();
        Command::Deregister(Deregister { lease })
    });
    each(
        counter,
        world,
        &format!("apply a leave, {among}"),
        leaving.collect(),
    )
}

/// The leases of those who registered last.
fn leases(world: &World, name: &ServiceName, first: usize) -> Result<Vec<LeaseKey>, Failure> {
    let service = world.registry.service(name);
    let service = service.ok_or_else(|| Failure(format!("{name} is not there")))?;
    (0..=TIMES)
        .map(|at| {
            let id = instance(first + usize::try_from(at).unwrap_or(0))?;
            let holder = service.instance(&id);
            let holder = holder.ok_or_else(|| Failure(format!("{id} is not there")))?;
            Ok(holder.lease_key(name))
        })
        .collect()
}

/// Applies one command after another.
fn each(
    counter: &mut Counter,
    world: &mut World,
    name: &str,
    commands: Vec<Command>,
) -> Result<(), Failure> {
    let mut commands = VecDeque::from(commands);
    let times = commands.len() as u64 - 1;
    counter.path(name, times, |_| match commands.pop_front() {
        Some(command) => world.apply(&command).map(|events| drop(black_box(events))),
        None => Err(Failure("there are too few commands".to_owned())),
    })
}

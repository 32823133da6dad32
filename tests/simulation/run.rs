//! A run from its first moment to its last, and what must be true in the end.

use trimtab_registry::instance::Status;

use crate::checker::{Verdict, check};
use crate::counts::Counts;
use crate::fleet::Life;
use crate::history::{Model, Operation};
use crate::planted::Planted;
use crate::world::{DRIFT_MAX, Event, World};

/// Until then nothing goes wrong, so that there is something to lose.
const QUIET_MS: u64 = 2_500;
/// The longest TTL of an instance.
const TTL_MAX_MS: u64 = 9_000;
/// After the last fault, beyond a TTL and the brake: an election, the way of
/// a judgement, and its repetition.
const SETTLE_MS: u64 = 9_000;

/// Lives through one seed.
///
/// # Errors
///
/// What was promised and not kept.
pub(crate) fn run(seed: u64, planted: Option<Planted>) -> Result<Counts, String> {
    let mut world = World::new(seed, planted);
    world.run_until(QUIET_MS)?;
    if !world.has_all_services() {
        return Err("nothing could be registered though nothing went wrong".to_owned());
    }
    let start = world.begin();
    world.healed = false;
    world.at(world.now, Event::Fault);
    let trouble = world.chance.between(8_000, 30_000);
    world.run_until(QUIET_MS + trouble)?;
    world.heal();
    world.run_until(world.now + 4_000)?;
    for script in &mut world.scripts {
        script.is_over = true;
    }
    let gone_within = TTL_MAX_MS * (1_000 + DRIFT_MAX) / 1_000 + world.brake_hold() + SETTLE_MS;
    world.run_until(world.now + gone_within)?;
    check_end(&world)?;
    let undecided = check_history(&world, &start)?;
    let mut counts = world.counts.clone();
    counts.trace = world.traced();
    counts.undecided = undecided;
    counts.applied = world.ledger.registry().applied().index;
    counts.expired = world.ledger.expired;
    let operations = || world.scripts.iter().flat_map(|script| &script.operations);
    counts.operations = operations().count() as u64;
    counts.unanswered = operations().filter(|it| it.answer.is_none()).count() as u64;
    Ok(counts)
}

fn check_end(world: &World) -> Result<(), String> {
    let last = world.ledger.registry().applied().index;
    world.check_members()?;
    for seat in world.seats.iter().filter(|seat| !seat.is_out) {
        let applied = seat.host.as_ref().map(|host| host.replica().applied());
        if world.is_removed(seat.id) {
            continue;
        }
        if applied != Some(last) {
            return Err(format!(
                "replica {} is at {applied:?}, not at {last}",
                seat.id
            ));
        }
    }
    for instance in &world.fleet {
        let service = world.ledger.registry().service(&instance.service);
        let found = service.and_then(|service| service.instance(&instance.id));
        let is_well = found.is_some_and(|it| {
            let holds = instance.lease.as_ref().map(|key| key.lease) == Some(it.lease);
            holds && it.status() == Status::Ready
        });
        match instance.life {
            Life::Alive if !is_well => {
                return Err(format!("{instance:?} lives and is registered as {found:?}"));
            }
            Life::Gone if found.is_some() => {
                return Err(format!(
                    "{instance:?} is gone and still registered: {found:?}"
                ));
            }
            _ => {}
        }
    }
    check_callers(world)
}

/// All callers use the newest views, by their own digests, and every call
/// went somewhere.
fn check_callers(world: &World) -> Result<(), String> {
    for caller in &world.callers {
        let number = caller.number;
        for service in world.ledger.registry().services() {
            let newest = world.ledger.newest(service.name());
            let (revision, digest) = caller.core.known(service.name().as_ref());
            let used = caller.core.used(service.name().as_ref());
            let converged =
                newest == digest.map(|digest| (revision, digest)) || world.tampers_with_views();
            if !converged || used != revision {
                return Err(format!(
                    "caller {number} knows {revision} of {}, uses {used}, and did not converge \
                     to {newest:?}",
                    service.name()
                ));
            }
        }
        let (waiting, under_way) = caller.open_calls();
        let stuck = caller.stuck_calls();
        if stuck > 0 {
            return Err(format!("{stuck} calls of caller {number} still wait"));
        }
        if caller.made != caller.ended + (waiting + under_way) as u64 {
            return Err(format!(
                "caller {number} made {} calls, {} ended",
                caller.made, caller.ended
            ));
        }
        if caller.last_failure + SETTLE_MS > world.now {
            return Err(format!(
                "a call of caller {number} still failed at {} ms",
                caller.last_failure
            ));
        }
    }
    Ok(())
}

/// The number of histories that the checker gave up on.
fn check_history(world: &World, start: &Model) -> Result<u64, String> {
    let scripts = world.scripts.iter();
    let mut operations: Vec<Operation> = scripts
        .flat_map(|script| script.operations.clone())
        .collect();
    operations.sort_by_key(|operation| operation.called);
    match check(start, &operations) {
        Verdict::Linearizable => Ok(0),
        Verdict::Undecided => Ok(1),
        Verdict::Impossible => Err(format!(
            "no order explains what {} operations were told",
            operations.len()
        )),
    }
}

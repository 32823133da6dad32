//! Snapshots: whole, still, and refused when they contradict themselves.

use trimtab_registry::command::Adjustment;
use trimtab_registry::snapshot::Snapshot;
use trimtab_registry::state::Registry;

use crate::world::*;

/// A world with something of everything.
pub(crate) fn full_world() -> World {
    let mut world = World::with(&[("v1", 2), ("v2", 2)]);
    world.shift(canary("v2", 1_000)).unwrap();
    world.shift(switch("v2")).unwrap();
    world.rollback().unwrap();
    let lease = world.lease("s", "v2-0");
    world.ask(&suspect(vec![lease])).unwrap();
    world
        .ask(&adjust("s", "v1-0", Adjustment::Drain(true)))
        .unwrap();
    let half = Adjustment::Capacity(Some(capacity(50)));
    world.ask(&adjust("s", "v1-1", half)).unwrap();
    world.grow("ending", "v1", 1);
    world.ask(&teardown("ending", "v1", forced())).unwrap();
    world
}

fn bytes(snapshot: &Snapshot) -> Vec<u8> {
    postcard::to_allocvec(snapshot).unwrap()
}

#[test]
fn it_holds_everything() {
    let world = full_world();
    let snapshot: Snapshot = postcard::from_bytes(&bytes(&world.registry.snapshot())).unwrap();
    assert_eq!(snapshot.applied(), world.registry.applied());
    assert_eq!(Registry::restore(snapshot).unwrap(), world.registry);
}

#[test]
fn an_empty_registry_too() {
    let snapshot = Registry::new().snapshot();
    let snapshot: Snapshot = postcard::from_bytes(&bytes(&snapshot)).unwrap();
    assert_eq!(Registry::restore(snapshot).unwrap(), Registry::new());
}

/// A hundred thousand instances must not hold as many copies of "v1".
#[test]
fn instances_share_the_name_of_their_group() {
    let world = full_world();
    let snapshot = postcard::from_bytes(&bytes(&world.registry.snapshot())).unwrap();
    for registry in [&world.registry, &Registry::restore(snapshot).unwrap()] {
        let service = registry.service(&service("s")).unwrap();
        for instance in service.instances() {
            let group = service.group(instance.group()).unwrap();
            assert!(std::ptr::eq(instance.group().as_str(), group.name.as_str()));
        }
    }
}

#[test]
fn it_stays_as_it_was() {
    let mut world = full_world();
    let snapshot = world.registry.snapshot();
    let before = bytes(&snapshot);
    world.shift(canary("v2", 2_000)).unwrap();
    world.register("new", "v1", "a");
    assert_eq!(bytes(&snapshot), before);
    assert_ne!(bytes(&world.registry.snapshot()), before);
}

/// Damage that storage's checksums let pass must not become a registry that
/// cannot be: every change of one byte is refused, or is another valid one.
#[test]
fn contradictions_are_refused() {
    let good = bytes(&full_world().registry.snapshot());
    let mut refused = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let restored = postcard::from_bytes::<Snapshot>(&bad)
            .ok()
            .and_then(|snapshot| Registry::restore(snapshot).ok());
        match restored {
            None => refused += 1,
            Some(registry) => {
                let again = postcard::from_bytes(&bytes(&registry.snapshot())).unwrap();
                assert_eq!(Registry::restore(again).unwrap(), registry);
            }
        }
    }
    assert!(refused > 100, "{refused} of {}", good.len());
    assert!(postcard::from_bytes::<Snapshot>(&good[..good.len() - 1]).is_err());
}

#[test]
fn another_format_is_named() {
    let mut other = bytes(&full_world().registry.snapshot());
    other[0] = 99;
    let snapshot: Snapshot = postcard::from_bytes(&other).unwrap();
    let error = Registry::restore(snapshot).unwrap_err();
    assert!(error.to_string().contains("it has format 99"), "{error}");
}

#[test]
fn nothing_is_later_than_the_snapshot() {
    let world = full_world();
    let mut early = bytes(&world.registry.snapshot());
    // After the format comes the index, here of one byte.
    assert_eq!(u64::from(early[1]), world.registry.applied().index);
    early[1] -= 1;
    let snapshot: Snapshot = postcard::from_bytes(&early).unwrap();
    let error = Registry::restore(snapshot).unwrap_err();
    assert!(
        error.to_string().contains("something of revision"),
        "{error}"
    );
}

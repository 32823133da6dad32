//! What a replica does for each view that somebody reads, and what a caller does with it.

use std::hint::black_box;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use trimtab_client::simulation::Caller;
use trimtab_proto::v1::{ViewUpdate, WatchResponse, Welcome, watch_response};
use trimtab_server::convert::encode_view;

use crate::Failure;
use crate::counted::Counter;
use crate::world::{World, invalid, service, shift};

/// Instances of the service.
const INSTANCES: [usize; 3] = [10, 100, 1_000];
const TIMES: u64 = 20;
const SEED: u64 = 41;

pub(crate) fn run(counter: &mut Counter) -> Result<(), Failure> {
    for instances in INSTANCES {
        encode(counter, instances)?;
        take_in(counter, instances)?;
    }
    Ok(())
}

/// From the registry's state to bytes.
fn encode(counter: &mut Counter, instances: usize) -> Result<(), Failure> {
    let world = World::with(1, instances)?;
    let name = service(0)?;
    let view = || {
        let view = world.registry.view(&name);
        view.ok_or_else(|| Failure(format!("{name} has no view")))
    };
    counter.path(&format!("take a view of {instances}"), TIMES, |_| {
        view().map(|view| drop(black_box(view)))
    })?;
    let view = view()?;
    counter.path(&format!("encode a view of {instances}"), TIMES, |_| {
        drop(black_box(encode_view(black_box(&view))));
        Ok(())
    })
}

/// From bytes to the picker that calls use: other weights, the same instances.
fn take_in(counter: &mut Counter, instances: usize) -> Result<(), Failure> {
    let mut world = World::with(1, instances)?;
    let name = service(0)?;
    let mut updates = vec![world.update(&name)?];
    for number in 0..=TIMES {
        world.apply(&shift(&name, number)?)?;
        updates.push(world.update(&name)?);
    }
    let mut updates = updates.into_iter();
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut caller = Caller::new("caller", "", &[name.as_str()], 1).map_err(invalid)?;
    caller.open();
    let welcome = watch_response::Kind::Welcome(Welcome::default());
    hear(&mut caller, welcome, &mut rng)?;
    let mut next = |number: u64| {
        let update: Option<ViewUpdate> = updates.next();
        let update = update.ok_or_else(|| Failure("there are too few views".to_owned()))?;
        hear(&mut caller, watch_response::Kind::View(update), &mut rng)?;
        let now = Duration::from_secs(number);
        drop(black_box(caller.follow(name.as_str(), now, &mut rng)));
        while let Some(request) = caller.next_request() {
            drop(black_box(request));
        }
        Ok(())
    };
    // The first view is another affair: there are instances to get to know.
    next(0)?;
    counter.path(&format!("take in a view of {instances}"), TIMES, |at| {
        next(at + 1)
    })
}

fn hear(caller: &mut Caller, kind: watch_response::Kind, rng: &mut StdRng) -> Result<(), Failure> {
    let answer = WatchResponse {
        kind: Some(kind),
        possibly_stale: false,
    };
    let heard = caller.hear(Duration::ZERO, answer, rng);
    heard
        .map(drop)
        .map_err(|_| Failure("the caller left its replica".to_owned()))
}

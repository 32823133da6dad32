//! What a replica does for each view that somebody reads, and what a caller does with it.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use trimtab_client::simulation::Caller;
use trimtab_proto::v1::watch_response::Kind;
use trimtab_proto::v1::{ViewUpdate, WatchResponse, Welcome};
use trimtab_registry::name::ServiceName;
use trimtab_server::convert::{WIRE, encode_view};
use trimtab_server::views::bell::Bell;
use trimtab_server::views::{Subscription, Views};

use crate::Failure;
use crate::counted::Counter;
use crate::world::{World, invalid, service, shift};

/// Instances of the service.
const INSTANCES: [usize; 3] = [10, 100, 1_000];
const TIMES: u64 = 20;
const SEED: u64 = 41;
/// What gRPC says before each message: whether it is compressed, and how long it is.
const FRAME_HEAD_BYTES: usize = 5;

pub(crate) fn run(counter: &mut Counter) -> Result<(), Failure> {
    for instances in INSTANCES {
        encode(counter, instances)?;
        tell(counter, instances)?;
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

/// What followers are told of a change: the step from the view before it, encoded once for all of them.
fn tell(counter: &mut Counter, instances: usize) -> Result<(), Failure> {
    let mut followed = Followed::new(instances)?;
    let (name, views) = (followed.name.clone(), Arc::clone(&followed.views));
    let mut worlds = VecDeque::new();
    for number in 0..=TIMES {
        followed.world.apply(&shift(&name, number)?)?;
        worlds.push_back(followed.world.registry.clone());
    }
    counter.path(&format!("tell of a shift of {instances}"), TIMES, |_| {
        let registry = worlds.pop_front();
        let registry = registry.ok_or_else(|| Failure("there are too few shifts".to_owned()))?;
        let known = views.latest(&name).revision();
        views.publish(&registry, [&name]);
        drop(black_box(told(&views, &name, known)?));
        Ok(())
    })
}

/// From bytes to the picker that calls use, told whole views and told what changed: other weights, the same instances.
fn take_in(counter: &mut Counter, instances: usize) -> Result<(), Failure> {
    let mut followed = Followed::new(instances)?;
    let name = followed.name.clone();
    let mut whole = Taking::begin(&name, followed.world.update(&name)?)?;
    let mut by_step = Taking::begin(&name, followed.world.update(&name)?)?;
    let (mut updates, mut steps) = (VecDeque::new(), VecDeque::new());
    for number in 0..=TIMES {
        let known = followed.views.latest(&name).revision();
        followed.world.apply(&shift(&name, number)?)?;
        followed.views.publish(&followed.world.registry, [&name]);
        updates.push_back(Kind::View(followed.world.update(&name)?));
        let step = told(&followed.views, &name, known)?;
        let step = step.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        let step = WatchResponse::decode(step).map_err(invalid)?;
        steps.extend(step.kind);
    }
    let path = format!("take in a view of {instances}");
    counter.path(&path, TIMES, |_| whole.next(&mut updates))?;
    let path = format!("take in a shift of {instances}");
    counter.path(&path, TIMES, |_| by_step.next(&mut steps))
}

/// What goes to those who have the view of this revision.
fn told(views: &Views, name: &ServiceName, known: u64) -> Result<Bytes, Failure> {
    let latest = views.latest(name);
    let step = latest.present().and_then(|it| it.delta_since(known));
    step.ok_or_else(|| Failure(format!("nothing is told of {name}")))
}

/// A service that somebody follows.
struct Followed {
    world: World,
    name: ServiceName,
    views: Arc<Views>,
    _subscription: Subscription,
}

impl Followed {
    fn new(instances: usize) -> Result<Self, Failure> {
        let world = World::with(1, instances)?;
        let name = service(0)?;
        let views = Views::new(WIRE);
        let subscription = views.subscribe(&name, &Arc::new(Bell::default()));
        views.publish(&world.registry, [&name]);
        Ok(Self {
            world,
            name,
            views,
            _subscription: subscription,
        })
    }
}

/// A caller that follows one service.
struct Taking {
    caller: Caller,
    name: ServiceName,
    rng: StdRng,
    taken: u64,
}

impl Taking {
    /// With the first view, which is another affair: there are instances to get to know.
    fn begin(name: &ServiceName, first: ViewUpdate) -> Result<Self, Failure> {
        let caller = Caller::new("caller", "", &[name.as_str()], 1).map_err(invalid)?;
        let mut taking = Self {
            caller,
            name: name.clone(),
            rng: StdRng::seed_from_u64(SEED),
            taken: 0,
        };
        taking.caller.open();
        taking.hear(Kind::Welcome(Welcome::default()))?;
        taking.next(&mut VecDeque::from([Kind::View(first)]))?;
        Ok(taking)
    }

    fn next(&mut self, news: &mut VecDeque<Kind>) -> Result<(), Failure> {
        let next = news.pop_front();
        self.hear(next.ok_or_else(|| Failure("there is too little news".to_owned()))?)?;
        self.taken += 1;
        let now = Duration::from_secs(self.taken);
        let wishes = self.caller.follow(self.name.as_str(), now, &mut self.rng);
        drop(black_box(wishes));
        while let Some(request) = self.caller.next_request() {
            drop(black_box(request));
        }
        Ok(())
    }

    fn hear(&mut self, kind: Kind) -> Result<(), Failure> {
        let answer = WatchResponse {
            kind: Some(kind),
            possibly_stale: false,
        };
        let heard = self.caller.hear(Duration::ZERO, answer, &mut self.rng);
        heard
            .map(drop)
            .map_err(|_| Failure("the caller left its replica".to_owned()))
    }
}

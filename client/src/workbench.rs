//! The choice of an instance taken apart from everything else, for the benchmarks in `bench/`.
//!
//! Not part of what this crate promises to anyone, hence hidden; what stands in
//! [`crate::simulation`] on features holds here too.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::chance;
use crate::connection::Link;
use crate::coverage::LinkState;
use crate::endpoint::{Connection, Endpoint, Ongoing, Outcome};
use crate::lineup::Lineup;
use crate::load::Loads;
use crate::picker::Picker;
use crate::policy::Policy;
use crate::sticky::{Affinity, Bucket, StickyKey};
use crate::ticket::pick;
use crate::view::{Group, GroupState, Instance, InstanceStatus, View};
use crate::watcher::Standpoint;

/// As calls find it: a picker behind one pointer, over instances that are all
/// connected, and have answered.
#[derive(Debug)]
pub struct Bench {
    picker: ArcSwap<Picker<Arc<Endpoint>>>,
    view: Arc<View>,
}

/// Follows one view again and again.
#[derive(Debug)]
pub struct Follower {
    lineup: Lineup<Link>,
    loads: Loads,
    views: [Arc<View>; 2],
    now: Instant,
}

/// What a call is tied to.
#[derive(Debug)]
pub struct Tie(Affinity);

impl Bench {
    /// Groups with these weights, in basis points, and so many instances of
    /// the capacities given, in turn.
    pub fn new(groups: &[(u32, usize)], capacities: &[u32], policy: Policy) -> Self {
        let view = Arc::new(view_of(groups, capacities, policy));
        let mut follower = Follower::new(&view);
        let picker = follower.picker();
        for link in follower.lineup.connections() {
            let moment = picker.moment(follower.now);
            let some_time = std::time::Duration::from_micros(500);
            link.vitals().answered(moment, some_time);
        }
        Self {
            picker: ArcSwap::from_pointee(picker),
            view,
        }
    }

    /// A thousand keys.
    pub fn ties() -> Vec<Tie> {
        let tie = |number: u32| {
            Tie(Affinity {
                bucket: None,
                key: Some(StickyKey::new(format!("user-{number}"))),
            })
        };
        (0..1_000).map(tie).collect()
    }

    /// One pick: the picker is loaded, a group has its turn, an instance is
    /// chosen. Says where in memory it is described.
    pub fn pick(&self, tie: &Tie) -> *const u8 {
        let picker = self.picker.load();
        let chosen = choose(&picker, tie);
        chosen.map_or(std::ptr::null(), |(endpoint, _)| {
            Arc::as_ptr(endpoint).cast()
        })
    }

    /// One pick, and what a call writes down when it begins and when it ends,
    /// each with a look at the clock.
    pub fn call(&self, tie: &Tie) {
        let picker = self.picker.load();
        if let Some((endpoint, bucket)) = choose(&picker, tie) {
            let terms = picker.terms(Instant::now(), bucket);
            let ongoing = Ongoing::start(Arc::clone(endpoint), terms);
            drop(picker);
            ongoing.end(Outcome::Answered);
        }
    }

    /// Follows the same view, from nothing.
    pub fn follower(&self) -> Follower {
        Follower::new(&self.view)
    }
}

impl Follower {
    fn new(view: &Arc<View>) -> Self {
        let now = Instant::now();
        let mut next = View::clone(view);
        next.revision += 1;
        let standpoint = Standpoint {
            caller: "c".into(),
            zone: "".into(),
            origin: now,
            instance_metrics: false,
        };
        let mut follower = Self {
            lineup: Lineup::new("bench".into(), standpoint),
            loads: Loads::of(&"bench".into()),
            views: [Arc::clone(view), Arc::new(next)],
            now,
        };
        follower.follow();
        follower
    }

    /// Takes in a view whose instances are those before it, and builds the
    /// picker.
    pub fn follow(&mut self) {
        self.views.swap(0, 1);
        let view = Arc::clone(&self.views[0]);
        self.lineup.follow(view, &self.loads, self.now, |address| {
            let link = Link::unopened(address);
            link.vitals().went(LinkState::Up);
            Arc::new(link)
        });
        self.picker();
    }

    fn picker(&mut self) -> Picker<Arc<Endpoint>> {
        chance::with(|rng| self.lineup.picker(self.now, rng))
    }
}

impl Tie {
    /// To nothing.
    pub fn none() -> Self {
        Self(Affinity::default())
    }
}

fn choose<'a>(
    picker: &'a Picker<Arc<Endpoint>>,
    tie: &Tie,
) -> Option<(&'a Arc<Endpoint>, Option<Bucket>)> {
    chance::with(|rng| pick(picker, &mut None, &[], &tie.0, rng))
}

fn view_of(groups: &[(u32, usize)], capacities: &[u32], policy: Policy) -> View {
    let mut port = 0;
    let mut instance = |group: usize, number: usize| {
        port += 1;
        Instance {
            id: format!("v{group}-{number:05}").into(),
            address: format!("127.0.0.1:{port}").into(),
            zone: "".into(),
            capacity: capacities
                .get(number % capacities.len().max(1))
                .copied()
                .unwrap_or(100),
            metadata: Arc::default(),
            status: InstanceStatus::Ready,
        }
    };
    let groups = groups
        .iter()
        .enumerate()
        .map(|(group, (weight, instances))| Group {
            name: format!("v{group}").into(),
            state: GroupState::Active,
            weight: *weight,
            instances: (0..*instances)
                .map(|number| instance(group, number))
                .collect(),
        });
    View {
        revision: 1,
        groups: groups.collect(),
        policy,
        salt: 7,
    }
}

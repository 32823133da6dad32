//! Views that take away most of what a caller reaches: what it may hold on to, worked out a second time.

use std::collections::BTreeMap;

use trimtab_client::simulation::LinkState;
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::{Instance, Status};
use trimtab_registry::name::{GroupName, ServiceName};
use trimtab_registry::view::ServiceView;

use crate::callers::Caller;
use crate::world::{SERVICES, World};

/// As `trimtab_client` says: a minute.
const HELD_FOR: u64 = 60_000;

/// An instance that a view took away with too many others, by id.
pub(crate) type Missed = BTreeMap<String, Holding>;

#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) group: GroupName,
    pub(crate) address: String,
    pub(crate) zone: String,
    pub(crate) capacity: u32,
    until: u64,
}

/// A view's weights and states, or nothing if the service is gone.
pub(crate) fn weight(view: Option<&ServiceView>, group: &GroupName) -> u32 {
    let weights = view.into_iter().flat_map(|view| view.route.weights.iter());
    let mut found = weights.filter(|(name, _)| *name == group);
    found.next().map_or(0, |(_, weight)| weight)
}

fn is_asked_for(view: Option<&ServiceView>, group: &GroupName) -> bool {
    let groups = || view.into_iter().flat_map(|view| view.groups.iter());
    let nobody = groups().all(|(name, _)| weight(view, name) == 0);
    let state = groups().find(|(name, _)| name == group).map(|(_, it)| it);
    state != Some(&GroupState::Retiring) && (nobody || weight(view, group) > 0)
}

fn instances(view: Option<&ServiceView>) -> impl Iterator<Item = &Instance> {
    let instances = view.into_iter().flat_map(|view| view.instances.iter());
    instances.map(|it| &**it)
}

fn has(view: Option<&ServiceView>, id: &str) -> bool {
    instances(view).any(|it| it.id().to_string() == id)
}

/// Those that may still be held on to, by this view and these connections.
pub(crate) fn still_held(
    held: &mut Missed,
    view: Option<&ServiceView>,
    caller: &Caller,
    service: usize,
    now: u64,
) {
    held.retain(|id, it| {
        let is_up = caller.state_of(service, &it.address) == Some(LinkState::Up);
        is_up && now < it.until && !has(view, id) && is_asked_for(view, &it.group)
    });
}

impl World {
    /// What is missing, beyond belief, in the view that a caller is about to
    /// follow.
    pub(crate) fn missed(&self, number: usize, service: usize) -> Missed {
        let caller = &self.callers[number];
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let before = self
            .ledger
            .view_at(&name, caller.core.used(SERVICES[service]));
        let (known, _) = caller.core.known(SERVICES[service]);
        let next = self.ledger.view_at(&name, known);
        let nobody = next.is_none_or(|next| next.route.weights.iter().all(|it| it.1 == 0));
        let was_ready: Vec<&Instance> = instances(before)
            .filter(|it| it.status() == Status::Ready && is_asked_for(next, it.group()))
            .filter(|it| !nobody || weight(before, it.group()) > 0)
            .collect();
        let is_up = |it: &&&Instance| {
            let state = caller.state_of(service, it.spec.address.as_ref());
            state == Some(LinkState::Up)
        };
        let reached: Vec<&&Instance> = was_ready.iter().filter(is_up).collect();
        let missing = reached.iter().filter(|it| !has(next, it.id().as_ref()));
        let missing: Missed = missing
            .map(|it| {
                let holding = Holding {
                    group: it.group().clone(),
                    address: it.spec.address.to_string(),
                    zone: it.spec.zone.to_string(),
                    capacity: it.capacity(),
                    until: self.now + HELD_FOR,
                };
                (it.id().to_string(), holding)
            })
            .collect();
        let ready = instances(next)
            .filter(|it| it.status() == Status::Ready && is_asked_for(next, it.group()))
            .count();
        let beyond_belief =
            missing.len() >= 3 && 2 * missing.len() > reached.len() && 2 * ready < was_ready.len();
        if beyond_belief {
            missing
        } else {
            Missed::new()
        }
    }
}

//! Who may be picked by one view and one set of connections, worked out a second time.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_client::simulation::{LinkState, Standing};
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::Status;
use trimtab_registry::name::GroupName;
use trimtab_registry::policy::RoutePolicy;
use trimtab_registry::view::ServiceView;

use crate::callers::Caller;
use crate::shrinks::Missed;

/// Who takes calls.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) revision: u64,
    pub(crate) policy: RoutePolicy,
    pub(crate) salt: u64,
    /// If the route's weights are what counts, and not a last resort.
    pub(crate) weighted: bool,
    /// Groups that carry the calls.
    pub(crate) groups: BTreeMap<String, Carrying>,
    /// All groups with weight, whether they carry calls or not.
    pub(crate) weights: Arc<[(String, u32)]>,
}

/// A group that carries calls.
#[derive(Debug)]
pub(crate) struct Carrying {
    pub(crate) weight: u32,
    pub(crate) has_connection: bool,
    /// Whom the caller has a connection for, or tries to.
    pub(crate) candidates: Arc<[Member]>,
    /// Those of them that may be picked.
    pub(crate) instances: Arc<[Member]>,
    /// What each of these takes, relative to the others: one on probation a
    /// tenth.
    pub(crate) shares: Arc<[(String, u32)]>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) zone: String,
    pub(crate) capacity: u32,
    pub(crate) is_ready: bool,
    pub(crate) state: LinkState,
    pub(crate) standing: Standing,
}

impl Member {
    /// READY and connected.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_ready && self.state == LinkState::Up
    }

    fn share(&self) -> u32 {
        match self.standing {
            Standing::Probation => self.capacity,
            Standing::Good | Standing::Ejected => self.capacity * 10,
        }
    }
}

impl Carrying {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.instances.iter().any(|it| it.id == id)
    }
}

/// By the view, what is held on to, what the shares are at the moment, and
/// the connections.
pub(crate) fn expect(
    revision: u64,
    view: Option<&ServiceView>,
    held: &Missed,
    caller: &Caller,
    service: usize,
) -> Expected {
    let weights = &caller.picks[service].weights;
    let weight = |name: &GroupName| weights.get(name.as_ref()).copied().unwrap_or(0);
    let policy = view.map_or_else(RoutePolicy::default, |view| view.route.policy);
    let mut groups: BTreeMap<&GroupName, GroupState> = BTreeMap::new();
    // What was taken away with its group carried calls before.
    groups.extend(held.values().map(|it| (&it.group, GroupState::Standby)));
    let of_view = view.into_iter().flat_map(|view| view.groups.iter());
    groups.extend(of_view.map(|(name, state)| (name, *state)));
    let weighted = groups.keys().map(|name| (name.to_string(), weight(name)));
    let mut expected = Expected {
        revision,
        policy,
        salt: view.map_or(0, |view| view.route.salt.0),
        weighted: false,
        weights: weighted.filter(|(_, weight)| *weight > 0).collect(),
        groups: BTreeMap::new(),
    };
    let level_of = |name: &GroupName, state: GroupState| match state {
        _ if weight(name) > 0 => 0,
        GroupState::Active | GroupState::Standby => 1,
        GroupState::Dark => 2,
        GroupState::Retiring => 3,
    };
    for level in [0, 1, 2, 3] {
        if level == 2 && !policy.fall_back_to_dark {
            continue;
        }
        for (name, state) in &groups {
            if level_of(name, *state) != level {
                continue;
            }
            let members = members(view, name, held, caller, service);
            let carrying = carrying(weight(name), members);
            expected
                .groups
                .extend(carrying.map(|it| (name.to_string(), it)));
        }
        if !expected.groups.is_empty() {
            expected.weighted = level == 0;
            break;
        }
    }
    expected
}

/// Those of a group that may take calls, and that the caller keeps a
/// connection to.
fn members(
    view: Option<&ServiceView>,
    group: &GroupName,
    held: &Missed,
    caller: &Caller,
    service: usize,
) -> Vec<Member> {
    let standing = |id: &str| caller.picks[service].ejections.standing(id);
    let of_view = view.into_iter().flat_map(|view| view.instances.iter());
    let mut members: Vec<Member> = of_view
        .filter(|it| it.group() == group)
        .filter(|it| matches!(it.status(), Status::Ready | Status::Suspect))
        .filter_map(|it| {
            let state = caller.state_of(service, it.spec.address.as_ref())?;
            Some(Member {
                id: it.id().to_string(),
                zone: it.spec.zone.to_string(),
                capacity: it.capacity(),
                is_ready: it.status() == Status::Ready,
                state,
                standing: standing(it.id().as_ref()),
            })
        })
        .collect();
    let held = held.iter().filter(|(_, it)| it.group == *group);
    members.extend(held.filter_map(|(id, it)| {
        Some(Member {
            id: id.clone(),
            zone: it.zone.clone(),
            capacity: it.capacity,
            is_ready: false,
            state: caller.state_of(service, &it.address)?,
            standing: standing(id),
        })
    }));
    members
}

/// `None` when nobody of the group is connected, nor tried for the first time.
fn carrying(weight: u32, candidates: Vec<Member>) -> Option<Carrying> {
    if candidates.iter().all(|it| it.state == LinkState::Down) {
        return None;
    }
    let connected = || candidates.iter().filter(|it| it.state == LinkState::Up);
    let is_preferred = |it: &&Member| it.is_sound() && it.standing != Standing::Ejected;
    let whole: u32 = connected().map(Member::share).sum();
    let preferred: u32 = connected().filter(is_preferred).map(Member::share).sum();
    let panics = connected().any(|it| it.is_ready) && 2 * preferred < whole;
    let all = panics || !connected().any(|it| it.is_ready);
    let instances: Arc<[Member]> = connected()
        .filter(|it| all || is_preferred(it))
        .cloned()
        .collect();
    let shares = instances.iter().map(|it| (it.id.clone(), it.share()));
    Some(Carrying {
        weight,
        has_connection: connected().next().is_some(),
        shares: shares.collect(),
        instances,
        candidates: candidates.into(),
    })
}

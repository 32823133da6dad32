//! What every pick of a caller is held against: the view it follows, the connections it has, and the picks before it.

use std::collections::BTreeMap;

use prost::Message as _;
use trimtab_client::simulation::{LinkState, Picked};
use trimtab_proto::v1::watch_response::Kind as Said;
use trimtab_proto::v1::{View, WatchResponse};
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::Status;
use trimtab_registry::name::{GroupName, ServiceName};
use trimtab_registry::view::ServiceView;

use crate::callers::Caller;
use crate::shrinks::{Missed, still_held, weight};
use crate::world::{SERVICES, World};

/// What is written down of one caller's picks of one service.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    /// No call may follow an older view: it was confirmed, or a switch was
    /// said to be complete.
    pub(crate) floor: u64,
    /// What views took away beyond belief.
    pub(crate) held: Missed,
    /// Who may be picked, until the view or a connection changes.
    expected: Option<Expected>,
    run: Option<Run>,
}

/// A pick's place in the order of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Drawn,
    /// By a pick that found nobody.
    DrawnBefore,
    /// A repeat takes none: the shares are those of all first attempts.
    None,
}

/// Who takes calls by one view and one set of connections.
#[derive(Debug)]
struct Expected {
    revision: u64,
    /// Groups that carry the calls, with their weight, if the route's weights
    /// are what counts.
    weighted: bool,
    groups: BTreeMap<String, Carrying>,
}

#[derive(Debug)]
struct Carrying {
    weight: u32,
    has_connection: bool,
    /// Ids of those that may be picked.
    instances: Vec<String>,
}

/// Whoever may take calls of a group, if connected.
struct Member {
    id: String,
    is_ready: bool,
    state: LinkState,
    capacity: u64,
}

/// Picks in a row by the same shares.
#[derive(Debug)]
struct Run {
    shares: Vec<(String, u32)>,
    calls: u64,
    of: BTreeMap<String, u64>,
    /// How many calls a group may be off, of a run that did not begin with
    /// its order.
    tolerance: f64,
}

impl Picks {
    /// The view or a connection changed. A run of calls goes on only while
    /// the shares stay.
    fn expects(&mut self, expected: Expected) {
        let goes_on = self
            .run
            .as_ref()
            .is_some_and(|run| expected.has_shares(run));
        if !goes_on {
            self.run = None;
        }
        self.expected = Some(expected);
    }

    /// Whether there is anyone to call, by the view and the route's policy.
    pub(crate) fn has_anyone(&self) -> bool {
        let groups = self.expected.as_ref().map(|expected| &expected.groups);
        groups.is_some_and(|groups| groups.values().any(|group| group.has_connection))
    }

    /// Calls were drawn that are not counted.
    fn interrupted(&mut self) {
        self.run = None;
    }

    /// The calls of each group are within one call of its share.
    fn count(&mut self, group: &str) -> Result<(), String> {
        let Some(expected) = self.expected.as_ref().filter(|it| it.weighted) else {
            self.run = None;
            return Ok(());
        };
        if !self
            .run
            .as_ref()
            .is_some_and(|run| expected.has_shares(run))
        {
            let groups = expected.groups.iter();
            let shares: Vec<_> = groups.map(|(name, it)| (name.clone(), it.weight)).collect();
            self.run = Some(Run {
                // Any run of calls between two groups is within one call; of
                // more groups only one that begins where the order does.
                tolerance: if shares.len() <= 2 { 1.0 } else { 2.0 },
                shares,
                calls: 0,
                of: BTreeMap::new(),
            });
        }
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        run.calls += 1;
        *run.of.entry(group.to_owned()).or_default() += 1;
        let whole: u32 = run.shares.iter().map(|(_, weight)| weight).sum();
        for (name, weight) in &run.shares {
            let due = run.calls as f64 * f64::from(*weight) / f64::from(whole);
            let had = run.of.get(name).copied().unwrap_or(0) as f64;
            if (had - due).abs() > run.tolerance + 1e-9 {
                return Err(format!(
                    "{name} had {had} of {} calls, its share is {due}",
                    run.calls
                ));
            }
        }
        Ok(())
    }
}

impl Expected {
    fn has_shares(&self, run: &Run) -> bool {
        let shares = self.groups.iter().map(|(name, it)| (name, it.weight));
        let of_run = run.shares.iter().map(|(name, weight)| (name, *weight));
        self.weighted && shares.eq(of_run)
    }
}

impl World {
    /// The view that a caller's calls follow, or one of its connections,
    /// changed.
    pub(crate) fn expect_picks(&mut self, number: usize, service: usize) {
        let caller = &mut self.callers[number];
        let used = caller.core.used(SERVICES[service]);
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let view = self.ledger.view_at(&name, used);
        let mut held = std::mem::take(&mut caller.picks[service].held);
        still_held(&mut held, view, caller, service, self.now);
        let expected = expect(used, view, &held, caller, service);
        caller.picks[service].held = held;
        caller.picks[service].expects(expected);
    }

    /// Holds a pick, or that there was none, against what must be.
    pub(crate) fn check_pick(
        &mut self,
        number: usize,
        service: usize,
        picked: Option<&Picked>,
        place: Place,
    ) -> Result<(), String> {
        let wrong = |what: String| Err(format!("caller {number} of {}: {what}", SERVICES[service]));
        let caller = &mut self.callers[number];
        let used = caller.core.used(SERVICES[service]);
        let picks = &mut caller.picks[service];
        if used < picks.floor {
            return wrong(format!("calls follow {used}, {} was promised", picks.floor));
        }
        let Some(expected) = &picks.expected else {
            return Ok(());
        };
        let Some(picked) = picked else {
            let all_connected = expected.groups.values().all(|group| group.has_connection);
            picks.run = None;
            if !picks
                .expected
                .as_ref()
                .is_none_or(|it| it.groups.is_empty())
                && all_connected
            {
                return wrong(format!("no call got through though {:?}", picks.expected));
            }
            return Ok(());
        };
        if picked.revision() != expected.revision {
            return wrong(format!("picked by {}, not {used}", picked.revision()));
        }
        let group = expected.groups.get(picked.group());
        let is_right = group.is_some_and(|group| {
            let id = picked.instance();
            group.instances.iter().any(|it| it == id)
        });
        if !is_right {
            return wrong(format!(
                "picked {} of {}, not one of {expected:?}",
                picked.instance(),
                picked.group()
            ));
        }
        match place {
            Place::Drawn => picks.count(picked.group()).or_else(wrong),
            Place::DrawnBefore => {
                picks.interrupted();
                Ok(())
            }
            Place::None => Ok(()),
        }
    }

    /// What a replica says must have been true, and be no older than what it
    /// must know.
    pub(crate) fn check_said(
        &mut self,
        number: usize,
        stream: u64,
        said: &WatchResponse,
    ) -> Result<(), String> {
        let parsed = |name: &str| ServiceName::parse(name).map_err(|error| error.to_string());
        match &said.kind {
            Some(Said::View(update)) => {
                self.counts.views += 1;
                let service = parsed(&update.service)?;
                self.ledger.shown(&service, update.revision, &update.view)?;
                let at = &self.streams[stream as usize];
                let seat = &self.seats[at.replica as usize - 1];
                let floor = seat.newest_at_start.get(&service).copied().unwrap_or(0);
                if seat.life == at.replica_life && update.revision < floor {
                    return Err(format!(
                        "caller {number} was shown {} of {service} by replica {}, which began \
                         when {floor} was known",
                        update.revision, at.replica
                    ));
                }
            }
            Some(Said::Absent(absent)) => {
                let service = parsed(&absent.service)?;
                self.ledger.was_absent(&service, absent.revision)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The planted bug: the view's revision is taken, and the route before it
    /// kept.
    pub(crate) fn keep_old_route(&mut self, number: usize, said: &mut WatchResponse) {
        let Some(Said::View(update)) = &mut said.kind else {
            return;
        };
        let service = ServiceName::parse(&update.service).expect("a name");
        let used = self.callers[number].core.used(&update.service);
        let before = self.ledger.view_at(&service, used);
        let Ok(mut view) = View::decode(update.view.clone()) else {
            return;
        };
        if let Some(before) = before {
            let bytes = trimtab_server::convert::encode_view(before).bytes;
            view.route = View::decode(bytes).ok().and_then(|before| before.route);
            update.view = view.encode_to_vec().into();
            update.checksum = trimtab_proto::checksum(&update.view);
        }
    }
}

/// Whom the view, what is held on to, and the connections allow to be picked.
fn expect(
    revision: u64,
    view: Option<&ServiceView>,
    held: &Missed,
    caller: &Caller,
    service: usize,
) -> Expected {
    let mut expected = Expected {
        revision,
        weighted: false,
        groups: BTreeMap::new(),
    };
    let mut groups: BTreeMap<&GroupName, GroupState> = BTreeMap::new();
    // What was taken away with its group carried calls before.
    groups.extend(held.values().map(|it| (&it.group, GroupState::Standby)));
    let of_view = view.into_iter().flat_map(|view| view.groups.iter());
    groups.extend(of_view.map(|(name, state)| (name, *state)));
    let falls_to_dark = view.is_some_and(|view| view.route.policy.fall_back_to_dark);
    let level_of = |name: &GroupName, state: GroupState| match state {
        _ if weight(view, name) > 0 => 0,
        GroupState::Active | GroupState::Standby => 1,
        GroupState::Dark => 2,
        GroupState::Retiring => 3,
    };
    for level in [0, 1, 2, 3] {
        if level == 2 && !falls_to_dark {
            continue;
        }
        for (name, state) in &groups {
            if level_of(name, *state) != level {
                continue;
            }
            let carrying = carrying(view, name, held, caller, service);
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

/// `None` when nobody of the group is connected, nor tried for the first time.
fn carrying(
    view: Option<&ServiceView>,
    group: &GroupName,
    held: &Missed,
    caller: &Caller,
    service: usize,
) -> Option<Carrying> {
    let of_view = view.into_iter().flat_map(|view| view.instances.iter());
    let mut members: Vec<Member> = of_view
        .filter(|it| it.group() == group)
        .filter(|it| matches!(it.status(), Status::Ready | Status::Suspect))
        .filter_map(|it| {
            Some(Member {
                id: it.id().to_string(),
                is_ready: it.status() == Status::Ready,
                state: caller.state_of(service, it.spec.address.as_ref())?,
                capacity: u64::from(u32::from(it.spec.capacity)),
            })
        })
        .collect();
    let held = held.iter().filter(|(_, it)| it.group == *group);
    members.extend(held.map(|(id, it)| Member {
        id: id.clone(),
        is_ready: false,
        state: LinkState::Up,
        capacity: it.capacity,
    }));
    let is_connected = |member: &&Member| member.state == LinkState::Up;
    let connected: Vec<&Member> = members.iter().filter(is_connected).collect();
    if connected.is_empty() && members.iter().all(|it| it.state == LinkState::Down) {
        return None;
    }
    let capacity = |only_ready: bool| -> u64 {
        let suits = connected.iter().filter(|it| it.is_ready || !only_ready);
        suits.map(|it| it.capacity).sum()
    };
    let any_ready = connected.iter().any(|it| it.is_ready);
    let ready_are_enough = any_ready && 2 * capacity(true) >= capacity(false);
    let instances = connected
        .iter()
        .filter(|it| it.is_ready || !ready_are_enough)
        .map(|it| it.id.clone())
        .collect();
    Some(Carrying {
        weight: weight(view, group),
        has_connection: !connected.is_empty(),
        instances,
    })
}

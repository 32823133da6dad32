//! What every pick of a caller is held against: the view it follows, the connections it has, and the picks before it.

use std::collections::BTreeMap;

use prost::Message as _;
use trimtab_client::simulation::Picked;
use trimtab_proto::v1::watch_response::Kind as Said;
use trimtab_proto::v1::{View, WatchResponse};
use trimtab_registry::name::ServiceName;

use crate::calls::{Call, Tie};
use crate::ejections::Ejections;
use crate::expected::{Carrying, Expected, Member, expect};
use crate::keys::Keys;
use crate::planted::Planted;
use crate::ramps::{Ramp, Weights};
use crate::shrinks::{Missed, still_held};
use crate::turns::Turns;
use crate::world::{SERVICES, World};
use crate::zones::Zones;

/// What is written down of one caller's picks of one service.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    /// No call may follow an older view: it was confirmed, or a switch was
    /// said to be complete.
    pub(crate) floor: u64,
    /// What views took away beyond belief.
    pub(crate) held: Missed,
    /// What the caller gives each group, which [`World::check_shares`] judges.
    pub(crate) weights: Weights,
    pub(crate) ramp: Ramp,
    pub(crate) ejections: Ejections,
    keys: Keys,
    turns: Turns,
    zones: Zones,
    /// Who may be picked, until the view or a connection changes.
    pub(crate) expected: Option<Expected>,
    run: Option<Run>,
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
        self.turns.expects(&expected);
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
        self.turns.interrupted();
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
                    "{name} had {had} of {} calls, its share is {due} ({:?})",
                    run.calls, run.shares
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

impl Expected {
    /// A call that failed goes to an instance that it was not sent to, of its
    /// own group at first, or to any if there is no such one.
    fn check_repeat(&self, call: &Call, (group, instance): (&str, &str)) -> Result<(), String> {
        let is_new = |it: &Member| !call.tried.contains(&it.id);
        let has_new = |it: &Carrying| it.instances.iter().any(is_new);
        let is_again = call.tried.iter().any(|it| it == instance);
        if is_again && self.groups.values().any(has_new) {
            return Err(format!("{instance} is tried again before {self:?}"));
        }
        let home = self.groups.get(&call.failed_in).filter(|it| has_new(it));
        let leaves = call.failed_in != group && call.tie == Tie::Nothing;
        if call.attempts == 1 && leaves && home.is_some() {
            return Err(format!(
                "a call that failed in {} went to {group} before {home:?}",
                call.failed_in
            ));
        }
        Ok(())
    }
}

impl World {
    /// The view that a caller's calls follow, or one of its connections,
    /// changed, or it left an instance out.
    pub(crate) fn expect_picks(&mut self, number: usize, service: usize) -> Result<(), String> {
        let caller = &mut self.callers[number];
        let used = caller.core.used(SERVICES[service]);
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let view = self.ledger.view_at(&name, used);
        let weights = caller.core.weights(SERVICES[service]).iter();
        let weights = weights.map(|(name, weight)| (name.to_string(), *weight));
        caller.picks[service].weights = weights.collect();
        let mut held = std::mem::take(&mut caller.picks[service].held);
        still_held(&mut held, view, caller, service, self.now);
        let expected = expect(used, view, &held, caller, service);
        caller.picks[service].held = held;
        caller.picks[service].expects(expected);
        self.check_shares(number, service)
    }

    /// Holds a pick, or that there was none, against what must be.
    pub(crate) fn check_pick(
        &mut self,
        number: usize,
        call: &Call,
        picked: Option<&Picked>,
        is_first: bool,
    ) -> Result<(), String> {
        let service = call.service;
        let wrong = |what: String| Err(format!("caller {number} of {}: {what}", SERVICES[service]));
        if self.callers[number].picks[service].ramp.is_on() {
            self.check_shares(number, service)?;
        }
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
            if !expected.groups.is_empty() && all_connected {
                return wrong(format!("no call got through though {expected:?}"));
            }
            return Ok(());
        };
        if picked.revision() != expected.revision {
            return wrong(format!("picked by {}, not {used}", picked.revision()));
        }
        let (group, instance) = (picked.group(), picked.instance());
        let carrying = expected.groups.get(group).filter(|it| it.has(instance));
        if carrying.is_none() {
            return wrong(format!(
                "picked {instance} of {group}, not one of {expected:?}"
            ));
        }
        if call.tried.is_empty() && !is_first {
            picks.interrupted();
            return Ok(());
        }
        if !is_first {
            // It takes no turn among groups, but one in its own.
            picks.turns.interrupted();
            return expected
                .check_repeat(call, (group, instance))
                .or_else(wrong);
        }
        self.check_choice(number, call, (group, instance))
            .or_else(wrong)
    }

    /// The first attempt of a call: whether it went where it belongs, and not
    /// only where it may.
    fn check_choice(
        &mut self,
        number: usize,
        call: &Call,
        (group, instance): (&str, &str),
    ) -> Result<(), String> {
        let caller = &mut self.callers[number];
        let zone = caller.zone;
        let picks = &mut caller.picks[call.service];
        let Some(expected) = &picks.expected else {
            return Ok(());
        };
        let picked = (group, instance);
        let by_bucket = picks.keys.check_group(expected, call.tie, group)?;
        let by_key = picks.keys.check_instance(expected, call.tie, picked)?;
        let by_zone = picks.zones.check(expected, zone, call, picked)?;
        picks.turns.check(expected, picked)?;
        self.counts.keyed += u64::from(by_bucket || by_key);
        self.counts.zoned += u64::from(by_zone);
        match call.tie {
            Tie::Nothing => picks.count(group),
            // It took no turn of its group.
            Tie::Key(_) | Tie::Bucket(_) => Ok(()),
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
                self.check_not_old(number, stream, &service, update.revision)?;
            }
            Some(Said::Delta(delta)) => {
                self.counts.deltas += 1;
                let service = parsed(&delta.service)?;
                self.ledger.led_to(&service, delta.revision, delta.digest)?;
                self.check_not_old(number, stream, &service, delta.revision)?;
            }
            Some(Said::Absent(absent)) => {
                let service = parsed(&absent.service)?;
                self.ledger.was_absent(&service, absent.revision)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_not_old(
        &self,
        number: usize,
        stream: u64,
        service: &ServiceName,
        revision: u64,
    ) -> Result<(), String> {
        let at = &self.streams[stream as usize];
        let seat = &self.seats[at.replica as usize - 1];
        let floor = seat.newest_at_start.get(service).copied().unwrap_or(0);
        if seat.life == at.replica_life && revision < floor {
            return Err(format!(
                "caller {number} was shown {revision} of {service} by replica {}, which began \
                 when {floor} was known",
                at.replica
            ));
        }
        Ok(())
    }

    /// Whether callers misread views by a planted bug, so that checksums tell
    /// as well: which is not how it is to be found.
    pub(crate) fn tampers_with_views(&self) -> bool {
        let planted = self.setup.planted;
        matches!(
            planted,
            Some(Planted::EjectsBeyondCap | Planted::ZoneKeepsAll)
        )
    }

    /// Planted bugs: what a caller takes of a view that is not in it.
    pub(crate) fn tamper(&mut self, number: usize, said: &mut WatchResponse) {
        let planted = self.setup.planted;
        if planted == Some(Planted::KeepsOldRoute) {
            return self.keep_old_route(number, said);
        }
        if !self.tampers_with_views() {
            return;
        }
        let Some(Said::View(update)) = &mut said.kind else {
            return;
        };
        let Ok(mut view) = View::decode(update.view.clone()) else {
            return;
        };
        let zone = self.callers[number].zone;
        let policy = view.route.as_mut().and_then(|it| it.policy.as_mut());
        let prefers_zone = policy.as_ref().is_some_and(|it| it.prefer_zone);
        let outliers = policy.and_then(|policy| policy.outliers.as_mut());
        if planted == Some(Planted::ZoneKeepsAll) && prefers_zone {
            let others = view.instances.iter_mut().filter(|it| it.zone != zone);
            others.for_each(|it| it.capacity = 1);
        } else if let Some(outliers) = outliers.filter(|_| planted != Some(Planted::ZoneKeepsAll)) {
            outliers.max_ejected_percent = 100;
        }
        update.view = view.encode_to_vec().into();
        update.checksum = trimtab_proto::checksum(&update.view);
    }

    /// The view's revision is taken, and the route before it kept.
    fn keep_old_route(&mut self, number: usize, said: &mut WatchResponse) {
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

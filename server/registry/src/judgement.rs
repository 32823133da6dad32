//! The leader's word on leases takes effect, each only while it is as it was judged.

use std::collections::BTreeMap;

use crate::command::{JudgeLeases, LEASES_PER_JUDGEMENT_MAX};
use crate::event::Event;
use crate::instance::LeaseKey;
use crate::invalid::Invalid;
use crate::name::{InstanceId, ServiceName};
use crate::outcome::{Judged, Outcome};
use crate::rejection::Rejection;
use crate::revision::Position;
use crate::state::{Done, Registry};

impl Registry {
    pub(crate) fn judge(&mut self, at: Position, asked: &JudgeLeases) -> Result<Done, Rejection> {
        let count = asked.len();
        if count > LEASES_PER_JUDGEMENT_MAX {
            let value = format_args!("{count} leases");
            let rule = format!("must name at most {LEASES_PER_JUDGEMENT_MAX} leases");
            return Err(Invalid::new("judgement", value, rule).into());
        }
        let mut judged = Judged::default();
        let mut events = Vec::new();
        if asked.term == at.term {
            judged.suspected = self.suspect(at, &asked.suspect, &mut events);
            judged.revived = self.revive(at, &asked.revive, &mut events);
            judged.expired = self.expire(at, asked, &mut events);
        }
        judged.stale = count as u32 - judged.suspected - judged.revived - judged.expired;
        let outcome = Outcome::Judged(judged);
        Ok(Done {
            outcome,
            events: announce_once(events),
        })
    }

    fn suspect(&mut self, at: Position, keys: &[LeaseKey], events: &mut Vec<Event>) -> u32 {
        let since = at.revision();
        let mut suspected = 0;
        for key in keys {
            let trusted = |key| Some(self.holder(key)?.suspect_since.is_none());
            if trusted(key) == Some(true) && self.set_suspect(at, key, events, true) {
                let key = key.clone();
                events.push(Event::LeaseSuspected { key, since });
                suspected += 1;
            }
        }
        suspected
    }

    fn revive(&mut self, at: Position, keys: &[LeaseKey], events: &mut Vec<Event>) -> u32 {
        let mut revived = 0;
        for key in keys {
            let suspect = |key| Some(self.holder(key)?.suspect_since.is_some());
            if suspect(key) == Some(true) && self.set_suspect(at, key, events, false) {
                events.push(Event::LeaseRevived { key: key.clone() });
                revived += 1;
            }
        }
        revived
    }

    fn expire(&mut self, at: Position, asked: &JudgeLeases, events: &mut Vec<Event>) -> u32 {
        let mut over: BTreeMap<&ServiceName, Vec<&InstanceId>> = BTreeMap::new();
        for expiry in &asked.expire {
            let since = self.holder(&expiry.key).and_then(|it| it.suspect_since);
            if since == Some(expiry.suspect_since) {
                let instances = over.entry(&expiry.key.service).or_default();
                instances.push(&expiry.key.instance);
            }
        }
        let mut expired = 0;
        for (service, mut instances) in over {
            instances.sort_unstable();
            instances.dedup();
            expired += instances.len() as u32;
            events.extend(self.remove(at, service, &instances));
        }
        expired
    }

    fn set_suspect(
        &mut self,
        at: Position,
        key: &LeaseKey,
        events: &mut Vec<Event>,
        suspect: bool,
    ) -> bool {
        let Some(service) = self.service_mut(&key.service) else {
            return false;
        };
        events.extend(service.edit(&key.instance, |instance| {
            instance.suspect_since = suspect.then(|| at.revision());
        }));
        service.revision = at.revision();
        events.extend(service.changed());
        true
    }
}

/// A service touched many times by one judgement has one new view.
fn announce_once(events: Vec<Event>) -> Vec<Event> {
    let mut changed = std::collections::BTreeSet::new();
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        match event {
            Event::ServiceChanged(service) => {
                changed.insert(service);
            }
            other => kept.push(other),
        }
    }
    kept.extend(changed.into_iter().map(Event::ServiceChanged));
    kept
}

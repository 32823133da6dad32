//! Changes of routes of one or several services: all or none, and once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::{Change, Rollback, SERVICES_PER_CHANGE_MAX, Shift};
use crate::event::Event;
use crate::history::{ChangeKind, RouteChange};
use crate::invalid::Invalid;
use crate::name::ServiceName;
use crate::outcome::{Effect, Outcome, Routed};
use crate::rejection::{Missing, Rejection};
use crate::revision::{Position, Revision};
use crate::route::Route;
use crate::service::Service;
use crate::shift::Planned;
use crate::state::{Done, Registry};
use crate::{rollback, shift};

impl Registry {
    pub(crate) fn shift(&mut self, at: Position, asked: &Shift) -> Result<Done, Rejection> {
        let names = unique(asked.shifts.iter().map(|shift| &shift.service), "shifts")?;
        let change = &asked.change;
        if let Some(earlier) = self.replay(&names, change, false)? {
            return Ok(Done::quietly(Outcome::Shifted(earlier)));
        }
        let mut plans = Vec::with_capacity(names.len());
        for asked in &asked.shifts {
            let (service, current) = self.current(&asked.service, asked.expected)?;
            plans.push(shift::plan(
                at.revision(),
                service,
                current,
                asked,
                change.force,
            )?);
        }
        Ok(self.commit(at, &names, plans, change).map(Outcome::Shifted))
    }

    pub(crate) fn rollback(&mut self, at: Position, asked: &Rollback) -> Result<Done, Rejection> {
        let names = unique(
            asked.targets.iter().map(|target| &target.service),
            "targets",
        )?;
        let change = &asked.change;
        if let Some(earlier) = self.replay(&names, change, true)? {
            return Ok(Done::quietly(Outcome::RolledBack(earlier)));
        }
        let mut plans = Vec::with_capacity(names.len());
        for asked in &asked.targets {
            let (service, current) = self.current(&asked.service, asked.expected)?;
            plans.push(rollback::plan(service, current, asked)?);
        }
        Ok(self
            .commit(at, &names, plans, change)
            .map(Outcome::RolledBack))
    }

    /// A service with its route, if that is still the one expected.
    pub(crate) fn current(
        &self,
        name: &ServiceName,
        expected: Option<Revision>,
    ) -> Result<(&Service, &Route), Rejection> {
        let missing = || Missing::Service(name.clone());
        let service = self.service(name).ok_or_else(missing)?;
        let route = service.route().ok_or_else(missing)?;
        expect(service, expected)?;
        Ok((service, route))
    }

    /// The answer to an earlier request with the same id.
    fn replay(
        &self,
        names: &[&ServiceName],
        change: &Change,
        rollback: bool,
    ) -> Result<Option<Routed>, Rejection> {
        if change.request_id.is_empty() {
            return Ok(None);
        }
        let earlier: Vec<&Arc<RouteChange>> = names
            .iter()
            .filter_map(|name| self.service(name))
            .filter_map(|service| {
                (service.history()).find(|earlier| earlier.request_id == change.request_id)
            })
            .collect();
        let Some(first) = earlier.first() else {
            return Ok(None);
        };
        let same_request = |earlier: &&&Arc<RouteChange>| {
            earlier.revision == first.revision && (earlier.kind == ChangeKind::Rollback) == rollback
        };
        if let Some(other) = earlier.iter().find(|earlier| !same_request(earlier)) {
            return Err(Rejection::RequestIdReused {
                service: other.service.clone(),
                request_id: change.request_id.to_string(),
                revision: other.revision,
            });
        }
        Ok(Some(Routed {
            revision: first.revision,
            changes: earlier.into_iter().cloned().collect(),
            warnings: Vec::new(),
            effect: Effect::Replayed,
        }))
    }

    /// Lets all plans take effect at one revision.
    fn commit(
        &mut self,
        at: Position,
        names: &[&ServiceName],
        plans: Vec<Planned>,
        change: &Change,
    ) -> Done<Routed> {
        let mut changes = Vec::new();
        let mut warnings = Vec::new();
        let mut events = Vec::new();
        for (name, plan) in names.iter().zip(plans) {
            warnings.extend(plan.warnings);
            if let (Some(new), Some(service)) = (plan.new, self.service_mut(name)) {
                changes.push(service.set_route(at.revision(), new, change));
                events.push(Event::ServiceChanged((*name).clone()));
            }
        }
        let routed = Routed {
            revision: self.newest_route(names.iter().copied()),
            effect: if changes.is_empty() {
                Effect::Unchanged
            } else {
                Effect::Changed
            },
            changes,
            warnings,
        };
        Done {
            outcome: routed,
            events,
        }
    }

    /// The revision of the newest route among some services.
    pub(crate) fn newest_route<'a>(
        &self,
        names: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Revision {
        let routes = names.into_iter().filter_map(|name| self.service(name));
        routes
            .map(Service::route_revision)
            .max()
            .unwrap_or_default()
    }
}

/// Compares a service's route with what the asker expected it to be.
pub(crate) fn expect(service: &Service, expected: Option<Revision>) -> Result<(), Rejection> {
    let current = service.route_revision();
    match expected {
        Some(expected) if expected != current => Err(Rejection::RevisionMismatch {
            service: service.name().clone(),
            expected,
            current,
        }),
        _ => Ok(()),
    }
}

/// Checks that a change names some services, not too many, and each once.
fn unique<'a>(
    names: impl ExactSizeIterator<Item = &'a ServiceName>,
    field: &str,
) -> Result<Vec<&'a ServiceName>, Invalid> {
    let count = names.len();
    if count == 0 || count > SERVICES_PER_CHANGE_MAX {
        let value = format_args!("{count} services");
        return Err(Invalid::new(field, value, "must name 1 to 64 services"));
    }
    let mut seen = BTreeSet::new();
    let mut unique = Vec::with_capacity(count);
    for name in names {
        if !seen.insert(name) {
            return Err(Invalid::new(field, name, "must name each service once"));
        }
        unique.push(name);
    }
    Ok(unique)
}

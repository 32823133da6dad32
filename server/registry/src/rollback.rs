//! Which earlier route a rollback restores: pure planning.

use std::sync::Arc;

use crate::command::RollbackTarget;
use crate::history::{ChangeKind, RouteChange};
use crate::rejection::{Gone, Rejection};
use crate::revision::Revision;
use crate::route::Route;
use crate::service::{NewRoute, Service};
use crate::shift::{Guard, Planned};

/// Plans a rollback of a service.
///
/// Every route has an origin: the change that first made it. A rollback goes
/// from the origin of the route of today to what was before that change, so
/// that one after another goes further and further back, and never forward.
pub(crate) fn plan(
    service: &Service,
    current: &Route,
    asked: &RollbackTarget,
) -> Result<Planned, Rejection> {
    let (route, origin) = match asked.to {
        None => before_current(service)?,
        Some(revision) => at_revision(service, revision)?,
    };
    check_groups(service, &route, origin)?;
    if *route == *current {
        return Ok(Planned {
            new: None,
            warnings: Vec::new(),
        });
    }
    let warnings = shortages(service, current, &route);
    let new = NewRoute {
        route,
        kind: ChangeKind::Rollback,
        restored: Some(origin),
    };
    Ok(Planned {
        new: Some(new),
        warnings,
    })
}

fn before_current(service: &Service) -> Result<(Arc<Route>, Revision), Rejection> {
    let origin = service.origin();
    let made = service
        .history()
        .find(|change| Some(change.revision) == origin);
    made.and_then(|change| Some((change.before.clone()?, change.before_origin?)))
        .ok_or_else(|| Rejection::NoEarlierRoute {
            service: service.name().clone(),
        })
}

fn at_revision(service: &Service, revision: Revision) -> Result<(Arc<Route>, Revision), Rejection> {
    let revision_of = |change: Option<&Arc<RouteChange>>| change.map(|change| change.revision);
    service
        .history()
        .find(|change| change.revision == revision)
        .map(|change| (Arc::clone(&change.after), change.origin()))
        .ok_or_else(|| Rejection::NotInHistory {
            service: service.name().clone(),
            revision,
            oldest: revision_of(service.history.front()),
            newest: revision_of(service.history.back()),
        })
}

/// The groups of an earlier route must be the ones that it meant.
fn check_groups(service: &Service, route: &Route, origin: Revision) -> Result<(), Rejection> {
    for (name, _) in route.weights.iter() {
        let how = match service.group(name) {
            None => Gone::Forgotten,
            Some(group) if group.created > origin => Gone::Replaced(group.created),
            Some(group) if group.retiring => Gone::Retiring,
            Some(_) => continue,
        };
        return Err(Rejection::GroupGone {
            service: service.name().clone(),
            revision: origin,
            group: name.clone(),
            how,
        });
    }
    Ok(())
}

/// A rollback is never refused for readiness; the operator is told.
fn shortages(service: &Service, current: &Route, route: &Route) -> Vec<String> {
    let tallies = service.tally();
    let guard = Guard::new(service, current, &tallies);
    (route.weights.iter())
        .filter_map(|(group, weight)| guard.shortage(group, weight, None, false))
        .map(|shortage| shortage.to_string())
        .collect()
}

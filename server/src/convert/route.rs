//! Routes, shifts and the history of both.

use trimtab_proto::v1::{self, service_shift};
use trimtab_registry::command::{
    AdjustInstance, Adjustment, Change, Rollback, RollbackTarget, ServiceShift, Share, Shift,
    Target, Teardown,
};
use trimtab_registry::group::GroupState;
use trimtab_registry::history::{ChangeKind, RouteChange};
use trimtab_registry::instance::Capacity;
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::rejection::Invalid;
use trimtab_registry::revision::Revision;
use trimtab_registry::route::{BasisPoints, Route, Weights};
use trimtab_registry::text::{Actor, Reason, RequestId};

use super::policy;

/// A route as it travels.
pub(crate) fn route(route: &Route) -> v1::Route {
    v1::Route {
        weights: route
            .weights
            .iter()
            .map(|(group, basis_points)| v1::GroupWeight {
                group: group.to_string(),
                basis_points,
            })
            .collect(),
        policy: Some(policy::policy(&route.policy)),
        salt: route.salt.0,
    }
}

/// What a group is for.
pub(crate) fn kind_of_group(state: GroupState) -> v1::GroupState {
    match state {
        GroupState::Dark => v1::GroupState::Dark,
        GroupState::Active => v1::GroupState::Active,
        GroupState::Standby => v1::GroupState::Standby,
        GroupState::Retiring => v1::GroupState::Retiring,
    }
}

/// A line of the history.
pub(crate) fn change(change: &RouteChange) -> v1::RouteChange {
    let kind = match change.kind {
        ChangeKind::Found => v1::ChangeKind::Found,
        ChangeKind::Canary => v1::ChangeKind::Canary,
        ChangeKind::Shift => v1::ChangeKind::Shift,
        ChangeKind::Switch => v1::ChangeKind::Switch,
        ChangeKind::Rollback => v1::ChangeKind::Rollback,
        ChangeKind::Policy => v1::ChangeKind::Policy,
    };
    v1::RouteChange {
        service: change.service.to_string(),
        revision: change.revision.0,
        at: Some(timestamp(change.at_ms)),
        actor: change.actor.to_string(),
        reason: change.reason.to_string(),
        kind: kind.into(),
        before: change.before.as_deref().map(route),
        after: Some(route(&change.after)),
        restored_revision: change.restored.map_or(0, |revision| revision.0),
        request_id: change.request_id.to_string(),
    }
}

fn timestamp(at_ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX),
        nanos: (at_ms % 1_000) as i32 * 1_000_000,
    }
}

/// A revision that may be absent.
fn revision(revision: Option<u64>) -> Option<Revision> {
    revision.map(Revision)
}

/// What every change carries.
///
/// # Errors
/// A text that is too long.
fn change_options(options: Option<v1::ChangeOptions>, at_ms: u64) -> Result<Change, Invalid> {
    let options = options.unwrap_or_default();
    Ok(Change {
        actor: Actor::parse(&options.actor).map_err(|invalid| invalid.at("options.actor"))?,
        reason: Reason::parse(&options.reason).map_err(|invalid| invalid.at("options.reason"))?,
        at_ms,
        request_id: RequestId::parse(&options.request_id)
            .map_err(|invalid| invalid.at("options.request_id"))?,
        force: options.force,
    })
}

/// # Errors
/// The first field that is not valid.
pub(crate) fn shift(request: v1::ShiftRequest, at_ms: u64) -> Result<Shift, Invalid> {
    let shifts = request.shifts.into_iter().map(service_shift);
    Ok(Shift {
        shifts: shifts.collect::<Result<_, _>>()?,
        change: change_options(request.options, at_ms)?,
    })
}

fn service_shift(asked: v1::ServiceShift) -> Result<ServiceShift, Invalid> {
    let service = ServiceName::parse(&asked.service)?;
    let target = match asked.target {
        Some(service_shift::Target::Weights(asked)) => Target::Weights(weights(&asked)?),
        Some(service_shift::Target::SwitchTo(group)) => {
            Target::SwitchTo(GroupName::parse(&group).map_err(|invalid| invalid.at("switch_to"))?)
        }
        Some(service_shift::Target::Canary(canary)) => Target::Canary {
            group: GroupName::parse(&canary.group).map_err(|invalid| invalid.at("canary.group"))?,
            share: match canary.basis_points {
                None => Share::Even,
                Some(share) => Share::BasisPoints(
                    BasisPoints::new(share).map_err(|invalid| invalid.at("canary.basis_points"))?,
                ),
            },
        },
        None if asked.policy.is_some() => Target::Keep,
        None => {
            return Err(Invalid::new(
                "target",
                "",
                "must be one of weights, switch_to and canary where there is no policy",
            ));
        }
    };
    Ok(ServiceShift {
        service,
        target,
        expected: revision(asked.expected_route_revision),
        min_ready: asked.min_ready,
        policy: asked.policy.map(policy::asked).transpose()?,
    })
}

/// A weight of 0 says what leaving the group out says.
fn weights(asked: &v1::Weights) -> Result<Weights, Invalid> {
    let mut weights = Vec::with_capacity(asked.weights.len());
    for weight in &asked.weights {
        let group =
            GroupName::parse(&weight.group).map_err(|invalid| invalid.at("weights.group"))?;
        if weight.basis_points > 0 {
            weights.push((group, weight.basis_points));
        }
    }
    Weights::new(weights)
}

/// # Errors
/// The first field that is not valid.
pub(crate) fn rollback(request: v1::RollbackRequest, at_ms: u64) -> Result<Rollback, Invalid> {
    let targets = request.targets.into_iter().map(|target| {
        Ok(RollbackTarget {
            service: ServiceName::parse(&target.service)?,
            to: revision(target.to_revision),
            expected: revision(target.expected_route_revision),
        })
    });
    Ok(Rollback {
        targets: targets.collect::<Result<_, Invalid>>()?,
        change: change_options(request.options, at_ms)?,
    })
}

/// # Errors
/// The first field that is not valid.
pub(crate) fn teardown(request: v1::TeardownRequest, at_ms: u64) -> Result<Teardown, Invalid> {
    Ok(Teardown {
        service: ServiceName::parse(&request.service)?,
        group: GroupName::parse(&request.group)?,
        expected: revision(request.expected_route_revision),
        change: change_options(request.options, at_ms)?,
    })
}

/// # Errors
/// The first field that is not valid.
pub(crate) fn adjust(
    request: v1::AdjustInstanceRequest,
    at_ms: u64,
) -> Result<AdjustInstance, Invalid> {
    use v1::adjust_instance_request::Adjustment as Asked;
    let adjustment = match request.adjustment {
        Some(Asked::Drain(drain)) => Adjustment::Drain(drain),
        Some(Asked::Capacity(0)) => Adjustment::Capacity(None),
        Some(Asked::Capacity(capacity)) => Adjustment::Capacity(Some(Capacity::new(capacity)?)),
        None => {
            return Err(Invalid::new(
                "adjustment",
                "",
                "must be one of drain and capacity",
            ));
        }
    };
    Ok(AdjustInstance {
        service: ServiceName::parse(&request.service)?,
        instance: InstanceId::parse(&request.instance_id)?,
        adjustment,
        expected: revision(request.expected_route_revision),
        change: change_options(request.options, at_ms)?,
    })
}

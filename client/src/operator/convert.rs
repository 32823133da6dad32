//! Wire messages to and from the operator's plain data.

use std::time::{Duration, SystemTime};

use trimtab_proto::v1 as wire;

use crate::convert::{policy_from_wire, policy_to_wire};
use crate::error::Error;
use crate::operator::brake::Brake;
use crate::operator::change::{
    Adjustment, AdjustmentOutcome, CanaryShare, ChangeKind, ChangeOptions, InstanceAdjustment,
    RollbackTarget, RouteChange, ServiceShift, ShiftOutcome, ShiftTarget, Teardown,
};
use crate::operator::cluster_status::{ClusterStatus, ReplicaRole, ReplicaStatus};
use crate::operator::progress::{Laggard, ReceiptProgress};
use crate::operator::route::{CurrentRoute, Route};
use crate::operator::service_status::{
    GroupState, GroupStatus, Instance, InstanceDetail, InstanceStatus, ServiceStatus,
    ServiceSummary, ServiceView, ViewGroup,
};

/// The first second of the year 10000, after which RFC 3339 has no words.
const LAST_SECOND: i64 = 253_402_300_800;

// === what is asked ===

pub(super) fn options_to_wire(options: &ChangeOptions, request_id: String) -> wire::ChangeOptions {
    wire::ChangeOptions {
        actor: options.actor.clone(),
        reason: options.reason.clone(),
        dry_run: options.dry_run,
        force: options.force,
        request_id,
    }
}

pub(super) fn shift_to_wire(shift: &ServiceShift) -> wire::ServiceShift {
    use wire::service_shift::Target;
    let target = match &shift.target {
        ShiftTarget::Keep => None,
        ShiftTarget::Weights(weights) => Some(Target::Weights(wire::Weights {
            weights: weights
                .iter()
                .filter(|(_, basis_points)| **basis_points > 0)
                .map(|(group, basis_points)| wire::GroupWeight {
                    group: group.clone(),
                    basis_points: *basis_points,
                })
                .collect(),
        })),
        ShiftTarget::SwitchTo(group) => Some(Target::SwitchTo(group.clone())),
        ShiftTarget::Canary { group, share } => Some(Target::Canary(wire::Canary {
            group: group.clone(),
            basis_points: match share {
                CanaryShare::Even => None,
                CanaryShare::BasisPoints(basis_points) => Some(*basis_points),
            },
        })),
    };
    wire::ServiceShift {
        service: shift.service.clone(),
        target,
        expected_route_revision: shift.expected_route_revision,
        min_ready: shift.min_ready,
        policy: shift.policy.as_ref().map(policy_to_wire),
    }
}

pub(super) fn rollback_to_wire(target: &RollbackTarget) -> wire::RollbackTarget {
    wire::RollbackTarget {
        service: target.service.clone(),
        to_revision: target.to_revision,
        expected_route_revision: target.expected_route_revision,
    }
}

pub(super) fn teardown_to_wire(
    teardown: &Teardown,
    options: wire::ChangeOptions,
) -> Result<wire::TeardownRequest, Error> {
    let quiet = teardown.quiet.map(prost_types::Duration::try_from);
    Ok(wire::TeardownRequest {
        service: teardown.service.clone(),
        group: teardown.group.clone(),
        expected_route_revision: teardown.expected_route_revision,
        quiet: quiet.transpose().map_err(|_| {
            Error::Invalid("quiet is longer than a duration on the wire can say".into())
        })?,
        options: Some(options),
    })
}

pub(super) fn adjustment_to_wire(
    adjustment: &InstanceAdjustment,
    options: wire::ChangeOptions,
) -> wire::AdjustInstanceRequest {
    use wire::adjust_instance_request::Adjustment as Wire;
    wire::AdjustInstanceRequest {
        service: adjustment.service.clone(),
        instance_id: adjustment.instance_id.clone(),
        adjustment: Some(match adjustment.adjustment {
            Adjustment::Drain => Wire::Drain(true),
            Adjustment::Undrain => Wire::Drain(false),
            Adjustment::Capacity(capacity) => Wire::Capacity(capacity),
        }),
        options: Some(options),
        expected_route_revision: adjustment.expected_route_revision,
    }
}

// === what is answered: changes ===

pub(super) fn route(wire: wire::Route) -> Route {
    Route {
        weights: wire
            .weights
            .into_iter()
            .map(|weight| (weight.group, weight.basis_points))
            .collect(),
        policy: policy_from_wire(&wire.policy.unwrap_or_default()),
        salt: wire.salt,
    }
}

pub(super) fn current_route(service: &str, wire: wire::GetRouteResponse) -> CurrentRoute {
    CurrentRoute {
        service: service.to_owned(),
        route_revision: wire.route_revision,
        route: route(wire.route.unwrap_or_default()),
    }
}

/// Shifts and rollbacks are answered alike.
pub(super) fn shift_outcome(
    revision: u64,
    changes: Vec<wire::RouteChange>,
    warnings: Vec<String>,
    dry_run: bool,
) -> ShiftOutcome {
    ShiftOutcome {
        revision,
        dry_run,
        changes: route_changes(changes),
        warnings,
    }
}

pub(super) fn route_changes(wire: Vec<wire::RouteChange>) -> Vec<RouteChange> {
    wire.into_iter().map(route_change).collect()
}

fn route_change(wire: wire::RouteChange) -> RouteChange {
    RouteChange {
        kind: change_kind(wire.kind()),
        service: wire.service,
        revision: wire.revision,
        at: wire.at.and_then(timestamp),
        actor: wire.actor,
        reason: wire.reason,
        before: wire.before.map(route),
        after: route(wire.after.unwrap_or_default()),
        restored_revision: (wire.restored_revision != 0).then_some(wire.restored_revision),
        request_id: wire.request_id,
    }
}

fn change_kind(wire: wire::ChangeKind) -> ChangeKind {
    match wire {
        wire::ChangeKind::Found => ChangeKind::Found,
        wire::ChangeKind::Canary => ChangeKind::Canary,
        wire::ChangeKind::Shift => ChangeKind::Shift,
        wire::ChangeKind::Switch => ChangeKind::Switch,
        wire::ChangeKind::Rollback => ChangeKind::Rollback,
        wire::ChangeKind::Policy => ChangeKind::Policy,
        wire::ChangeKind::Unspecified => ChangeKind::Unknown,
    }
}

pub(super) fn adjustment_outcome(
    wire: wire::AdjustInstanceResponse,
    dry_run: bool,
) -> AdjustmentOutcome {
    AdjustmentOutcome {
        revision: wire.revision,
        dry_run,
        instance: instance(wire.instance.unwrap_or_default()),
        warnings: wire.warnings,
    }
}

pub(super) fn receipt_progress(wire: wire::ReceiptsResponse) -> ReceiptProgress {
    ReceiptProgress {
        watchers: wire.watchers,
        confirmed: wire.confirmed,
        laggards: wire.laggards.into_iter().map(laggard).collect(),
        unreachable_replicas: wire.unreachable_replicas,
        complete: wire.complete,
        warnings: wire.warnings,
    }
}

fn laggard(wire: wire::Laggard) -> Laggard {
    Laggard {
        watcher_id: wire.watcher_id,
        name: wire.name,
        replica_id: wire.replica_id,
        service: wire.service,
        revision: wire.revision,
    }
}

// === what is answered: services ===

pub(super) fn service_summary(wire: wire::ServiceSummary) -> ServiceSummary {
    ServiceSummary {
        service: wire.service,
        revision: wire.revision,
        groups: wire.groups,
        instances: wire.instances,
        ready: wire.ready,
    }
}

pub(super) fn service_view(wire: wire::View, possibly_stale: bool) -> ServiceView {
    ServiceView {
        service: wire.service,
        revision: wire.revision,
        route_revision: wire.route_revision,
        route: route(wire.route.unwrap_or_default()),
        groups: wire.groups.into_iter().map(view_group).collect(),
        instances: wire.instances.into_iter().map(instance).collect(),
        possibly_stale,
    }
}

fn view_group(wire: wire::Group) -> ViewGroup {
    ViewGroup {
        state: group_state(wire.state()),
        name: wire.name,
    }
}

fn group_state(wire: wire::GroupState) -> GroupState {
    match wire {
        wire::GroupState::Dark => GroupState::Dark,
        wire::GroupState::Active => GroupState::Active,
        wire::GroupState::Standby => GroupState::Standby,
        wire::GroupState::Retiring => GroupState::Retiring,
        wire::GroupState::Unspecified => GroupState::Unknown,
    }
}

fn instance(wire: wire::Instance) -> Instance {
    Instance {
        status: instance_status(wire.status()),
        id: wire.id,
        group: wire.group,
        address: wire.address,
        zone: wire.zone,
        capacity: wire.capacity,
        metadata: wire.metadata,
    }
}

fn instance_status(wire: wire::InstanceStatus) -> InstanceStatus {
    match wire {
        wire::InstanceStatus::Starting => InstanceStatus::Starting,
        wire::InstanceStatus::Ready => InstanceStatus::Ready,
        wire::InstanceStatus::Suspect => InstanceStatus::Suspect,
        wire::InstanceStatus::Draining => InstanceStatus::Draining,
        wire::InstanceStatus::Unspecified => InstanceStatus::Unknown,
    }
}

pub(super) fn service_status(wire: wire::DescribeResponse) -> ServiceStatus {
    ServiceStatus {
        service: wire.service,
        revision: wire.revision,
        route_revision: wire.route_revision,
        route: route(wire.route.unwrap_or_default()),
        groups: wire.groups.into_iter().map(group_status).collect(),
        instances: wire.instances.into_iter().map(instance_detail).collect(),
        watchers: wire.watchers,
        watchers_confirmed: wire.watchers_confirmed,
        unreachable_replicas: wire.unreachable_replicas,
        window: wire.window.and_then(duration).unwrap_or_default(),
        alarms: wire.alarms,
        brakes: wire.brakes.into_iter().map(brake).collect(),
        possibly_stale: wire.possibly_stale,
    }
}

fn group_status(wire: wire::GroupStatus) -> GroupStatus {
    GroupStatus {
        state: group_state(wire.state()),
        name: wire.name,
        instances: wire.instances,
        ready: wire.ready,
        suspect: wire.suspect,
        starting: wire.starting,
        draining: wire.draining,
        ready_capacity: wire.ready_capacity,
        intended_basis_points: wire.intended_basis_points,
        observed_basis_points: wire.observed_basis_points,
        calls: wire.calls,
        errors: wire.errors,
        latency_mean: wire.latency_mean.and_then(duration),
        latency_p50: wire.latency_p50.and_then(duration),
        latency_p99: wire.latency_p99.and_then(duration),
        last_call_age: wire.last_call_age.and_then(duration),
    }
}

fn instance_detail(wire: wire::InstanceDetail) -> InstanceDetail {
    InstanceDetail {
        instance: instance(wire.instance.unwrap_or_default()),
        lease: wire.lease,
        ttl: wire.ttl.and_then(duration).unwrap_or_default(),
        held_draining: wire.held_draining,
        capacity_override: (wire.capacity_override != 0).then_some(wire.capacity_override),
    }
}

// === what is answered: the cluster ===

pub(super) fn cluster_status(wire: wire::StatusResponse) -> ClusterStatus {
    let committed = wire.replicas.iter().map(|replica| replica.commit_index);
    let newest = committed.max().unwrap_or_default();
    let replicas = wire.replicas.into_iter();
    ClusterStatus {
        leader_id: (wire.leader_id != 0).then_some(wire.leader_id),
        has_quorum: wire.has_quorum,
        answered_by: wire.answered_by,
        replicas: replicas
            .map(|replica| replica_status(replica, newest))
            .collect(),
        alarms: wire.alarms,
    }
}

fn replica_status(wire: wire::ReplicaStatus, newest: u64) -> ReplicaStatus {
    // Of one that did not answer nothing is known.
    let lag = newest.saturating_sub(wire.applied_index) * u64::from(wire.reachable);
    ReplicaStatus {
        role: match wire.role() {
            wire::ReplicaRole::Follower => ReplicaRole::Follower,
            wire::ReplicaRole::Candidate => ReplicaRole::Candidate,
            wire::ReplicaRole::Leader => ReplicaRole::Leader,
            wire::ReplicaRole::Unspecified => ReplicaRole::Unknown,
        },
        id: wire.id,
        address: wire.address,
        reachable: wire.reachable,
        term: wire.term,
        commit_index: wire.commit_index,
        applied_index: wire.applied_index,
        lag,
        snapshot_index: wire.snapshot_index,
        snapshot_time: wire.snapshot_time.and_then(timestamp),
        snapshot_bytes: wire.snapshot_bytes,
        data_bytes: wire.data_bytes,
        disk_free_bytes: wire.disk_free_bytes,
        halted: wire.halted,
        caught_up: wire.caught_up,
        services: wire.services,
        instances: wire.instances,
        watchers: wire.watchers,
        renewal_streams: wire.renewal_streams,
        uptime: wire.uptime.and_then(duration).unwrap_or_default(),
        version: wire.version,
        is_learner: wire.is_learner,
        error: wire.error,
        leases: wire.leases,
        suspect: wire.suspect,
        brakes: wire.brakes.into_iter().map(brake).collect(),
    }
}

fn brake(wire: wire::Brake) -> Brake {
    Brake {
        service: wire.service,
        zone: (!wire.zone.is_empty()).then_some(wire.zone),
        via_replica: (wire.via_replica != 0).then_some(wire.via_replica),
        held: wire.held,
        unwell: wire.unwell,
        leases: wire.leases,
        age: wire.age.and_then(duration).unwrap_or_default(),
        ends_in: wire.ends_in.and_then(duration).unwrap_or_default(),
        reason: wire.reason,
    }
}

// === times ===

/// A negative duration says nothing.
fn duration(wire: prost_types::Duration) -> Option<Duration> {
    trimtab_proto::duration::parse(&wire)
}

fn timestamp(wire: prost_types::Timestamp) -> Option<SystemTime> {
    (wire.seconds < LAST_SECOND)
        .then(|| SystemTime::try_from(wire).ok())
        .flatten()
        .filter(|at| *at >= SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_make_no_sense_are_left_out() {
        let at = |seconds| timestamp(prost_types::Timestamp { seconds, nanos: 0 });
        assert_eq!(at(0), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(at(-1), None);
        assert_eq!(at(LAST_SECOND), None);
        assert_eq!(at(i64::MAX), None);
        assert!(at(LAST_SECOND - 1).is_some());
        let negative = prost_types::Duration {
            seconds: -1,
            nanos: 0,
        };
        assert_eq!(duration(negative), None);
    }

    #[test]
    fn a_group_with_no_weight_is_not_listed() {
        let target = ShiftTarget::Weights([("v1".into(), 10_000), ("v2".into(), 0)].into());
        let wire = shift_to_wire(&ServiceShift::new("catalog", target));
        let Some(wire::service_shift::Target::Weights(weights)) = wire.target else {
            panic!("{wire:?}");
        };
        let listed: Vec<_> = weights.weights.into_iter().map(|w| w.group).collect();
        assert_eq!(listed, ["v1"]);
    }

    #[test]
    fn what_an_old_client_does_not_know_is_unknown() {
        let change = route_change(wire::RouteChange {
            kind: 99,
            ..Default::default()
        });
        assert_eq!(change.kind, ChangeKind::Unknown);
        assert_eq!(change.restored_revision, None);
    }
}

//! One service as an operator sees it: what is meant, what callers see, what is wrong.

use std::time::Duration;

use trimtab_proto::v1::{DescribeResponse, GroupStatus, InstanceDetail};
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::{Instance, Status as InstanceStatus};
use trimtab_registry::name::GroupName;
use trimtab_registry::route::WHOLE;
use trimtab_registry::view::ServiceView;

use crate::convert;
use crate::observation::Observation;
use crate::watchers::Load;

/// Puts view and observation together. `window` is the span that calls were
/// counted over, `alarms` what is wrong with the registry itself.
pub(super) fn describe(
    view: &ServiceView,
    observation: &Observation,
    window: Duration,
    mut alarms: Vec<String>,
) -> DescribeResponse {
    let loads = observation.loads.get(&view.service);
    let load_of = |group: &GroupName| {
        let load = loads.and_then(|loads| loads.get(group));
        load.copied().unwrap_or_default()
    };
    let calls_in_all: u64 = view
        .groups
        .iter()
        .map(|(group, _)| load_of(group).calls)
        .sum();
    let groups: Vec<GroupStatus> = view
        .groups
        .iter()
        .map(|(group, state)| group_status(view, group, *state, load_of(group), calls_in_all))
        .collect();
    alarms.extend(groups.iter().filter_map(alarm));
    let receipts = observation.receipts(std::slice::from_ref(&view.service), view.route_revision.0);
    alarms.extend(receipts.warnings());
    DescribeResponse {
        service: view.service.to_string(),
        revision: view.revision.0,
        route_revision: view.route_revision.0,
        route: Some(convert::route(&view.route)),
        groups,
        instances: view
            .instances
            .iter()
            .map(|instance| detail(instance))
            .collect(),
        watchers: receipts.watchers as u32,
        watchers_confirmed: receipts.confirmed() as u32,
        unreachable_replicas: receipts.unreachable,
        window: Some(convert::duration(window)),
        alarms,
        possibly_stale: false,
        brakes: Vec::new(),
    }
}

fn group_status(
    view: &ServiceView,
    group: &GroupName,
    state: GroupState,
    load: Load,
    calls_in_all: u64,
) -> GroupStatus {
    let members = || {
        view.instances
            .iter()
            .filter(|instance| instance.group() == group)
    };
    let count = |status: InstanceStatus| {
        members()
            .filter(|instance| instance.status() == status)
            .count() as u32
    };
    let ready_capacity = members()
        .filter(|instance| instance.status() == InstanceStatus::Ready)
        .map(|instance| u64::from(instance.capacity()))
        .sum();
    // In u128: a product of two counters of a confused caller may be immense.
    let share = u128::from(load.calls) * u128::from(WHOLE);
    let observed = share.checked_div(u128::from(calls_in_all));
    let mean = u32::try_from(load.calls).unwrap_or(u32::MAX);
    GroupStatus {
        name: group.to_string(),
        state: convert::kind_of_group(state).into(),
        instances: members().count() as u32,
        ready: count(InstanceStatus::Ready),
        suspect: count(InstanceStatus::Suspect),
        starting: count(InstanceStatus::Starting),
        draining: count(InstanceStatus::Draining),
        ready_capacity,
        intended_basis_points: view.route.weights.get(group),
        observed_basis_points: observed.and_then(|share| u32::try_from(share).ok()),
        calls: load.calls,
        errors: load.errors,
        latency_mean: load.latency_total.checked_div(mean).map(convert::duration),
        last_call_age: load.last_call_age.map(convert::duration),
        latency_p50: load.latencies.quantile(0.5).map(convert::duration),
        latency_p99: load.latencies.quantile(0.99).map(convert::duration),
    }
}

fn alarm(group: &GroupStatus) -> Option<String> {
    let name = &group.name;
    if group.intended_basis_points > 0 && group.ready == 0 {
        return Some(format!(
            "group {name} has weight but no ready instance: callers send its share to other groups"
        ));
    }
    if group.suspect > 0 {
        return Some(format!(
            "group {name}: {} of {} instances are suspect: they stopped renewing",
            group.suspect, group.instances
        ));
    }
    None
}

fn detail(instance: &Instance) -> InstanceDetail {
    InstanceDetail {
        instance: Some(convert::instance(instance)),
        lease: instance.lease.0,
        ttl: Some(convert::duration(Duration::from_millis(
            instance.ttl.as_millis(),
        ))),
        held_draining: instance.held,
        capacity_override: instance
            .capacity_override
            .map_or(0, |capacity| capacity.get()),
    }
}

//! `trimtab status`: who carries what, as intended and as observed.

use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use trimtab_client::error::Error;
use trimtab_client::operator::service_status::{
    GroupState, GroupStatus, ServiceStatus, ServiceSummary,
};

use crate::change::route_line;
use crate::failure::{Exit, Failure};
use crate::percent::Percent;
use crate::session::Session;
use crate::settings;
use crate::table::{BAD, Cell, FAINT, GOOD, NOTHING, NOTICE, PLAIN, Table, count};
use crate::wait::span;

/// Services asked about at a time: enough to hide the way there and back,
/// little beside what a replica bears.
const QUESTIONS_IN_FLIGHT: usize = 16;

/// From this on, failing calls are shown as bad and not as a thing to note.
const ERROR_RATE_BAD: f64 = 0.01;

pub(crate) const EXAMPLES: &str = "\
Shares, errors and latencies are what callers reported over the last seconds; `intended` is what the
route says. Half of the calls ended within P50, all but one in a hundred within P99, give or take a
third. Callers are confirmed when they use the route shown.

Examples:
  trimtab status                              one line for each service
  trimtab status catalog                      its groups
  trimtab status catalog --output json | jq '.groups[] | {name, errors, latency_p99_ms}'";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The service; without it, all of them
    service: Option<String>,
}

pub(crate) async fn run(args: &StatusArgs, session: &Session) -> Result<(), Failure> {
    match &args.service {
        Some(service) => {
            let status = session.operator.describe(service).await?;
            session.output.result(&status, service_text)?;
            session.note_if_stale(status.possibly_stale);
        }
        None => {
            let list = session.operator.list_services().await?;
            let statuses = describe_all(session, &list.services).await?;
            session.output.result(&statuses, |all| overview(all))?;
            session.note_if_stale(list.possibly_stale);
        }
    }
    Ok(())
}

/// Asks about each service, some at a time. One that is gone meanwhile is left
/// out.
async fn describe_all(
    session: &Session,
    services: &[ServiceSummary],
) -> Result<Vec<ServiceStatus>, Failure> {
    let mut statuses = Vec::with_capacity(services.len());
    for some in services.chunks(QUESTIONS_IN_FLIGHT) {
        let mut questions = JoinSet::new();
        for summary in some {
            let operator = session.operator.clone();
            let service = summary.service.clone();
            questions.spawn(async move { operator.describe(&service).await });
        }
        while let Some(answered) = questions.join_next().await {
            match answered {
                Ok(Ok(status)) => statuses.push(status),
                Ok(Err(Error::NotFound(_))) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::new(Exit::Failed, error.to_string())),
            }
        }
    }
    statuses.sort_by(|a, b| a.service.cmp(&b.service));
    Ok(statuses)
}

fn overview(statuses: &[ServiceStatus]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "ROUTE",
        ">READY",
        ">CALLS",
        ">ERRORS",
        "CALLERS",
        ">REVISION",
        "ALARMS",
    ]);
    for status in statuses {
        let sum = |of: fn(&GroupStatus) -> u64| status.groups.iter().map(of).sum::<u64>();
        let (calls, errors) = (sum(|group| group.calls), sum(|group| group.errors));
        let instances = sum(|group| group.instances.into());
        let ready = sum(|group| group.ready.into());
        table.row([
            status.service.clone().into(),
            route_line(&status.route).into(),
            format!("{}/{}", count(ready), count(instances)).into(),
            count(calls).into(),
            error_cell(calls, errors),
            callers_cell(status),
            status.revision.to_string().into(),
            Cell::styled(status.alarms.join("; "), BAD),
        ]);
    }
    table.render()
}

fn service_text(status: &ServiceStatus) -> String {
    let mut text = format!(
        "{}: {}, revision {}, route of {}\n",
        status.service,
        route_line(&status.route),
        status.revision,
        status.route_revision
    );
    let callers = match status.watchers {
        0 => "no caller watches".to_owned(),
        watchers => format!(
            "{} of {} callers use this route",
            count(status.watchers_confirmed.into()),
            count(watchers.into())
        ),
    };
    if let Some(unusual) = settings::unusual(&status.route.policy) {
        text.push_str(&format!("policy: {unusual}\n"));
    }
    text.push_str(&format!(
        "{callers}; observed over {}\n",
        span(status.window)
    ));
    text.push_str(&group_table(&status.groups));
    for replica in &status.unreachable_replicas {
        text.push_str(&format!(
            "{NOTICE}note:{NOTICE:#} replica {replica} does not answer, its callers are not counted\n"
        ));
    }
    for alarm in &status.alarms {
        text.push_str(&format!("{BAD}alarm:{BAD:#} {alarm}\n"));
    }
    text
}

fn group_table(groups: &[GroupStatus]) -> String {
    let mut table = Table::new(&[
        "GROUP",
        "STATE",
        ">READY",
        ">SUSPECT",
        ">OTHER",
        ">INTENDED",
        ">OBSERVED",
        ">CALLS",
        ">ERRORS",
        ">P50",
        ">P99",
        "LAST CALL",
    ]);
    for group in groups {
        table.row([
            group.name.clone().into(),
            state_cell(group.state),
            count(group.ready.into()).into(),
            suspect_cell(group.suspect),
            count(u64::from(group.starting) + u64::from(group.draining)).into(),
            Percent::from_basis_points(group.intended_basis_points)
                .to_string()
                .into(),
            group
                .observed_basis_points
                .map_or(NOTHING.to_owned(), |share| {
                    Percent::from_basis_points(share).to_string()
                })
                .into(),
            count(group.calls).into(),
            error_cell(group.calls, group.errors),
            latency_cell(group.latency_p50),
            latency_cell(group.latency_p99),
            group
                .last_call_age
                .map_or("never".to_owned(), |age| format!("{} ago", span(age)))
                .into(),
        ]);
    }
    table.render()
}

fn state_cell(state: GroupState) -> Cell {
    let style = match state {
        GroupState::Active => GOOD,
        GroupState::Retiring => NOTICE,
        GroupState::Dark => FAINT,
        GroupState::Standby | GroupState::Unknown => PLAIN,
    };
    Cell::styled(state.to_string(), style)
}

fn suspect_cell(suspect: u32) -> Cell {
    let style = if suspect > 0 { BAD } else { PLAIN };
    Cell::styled(count(suspect.into()), style)
}

fn callers_cell(status: &ServiceStatus) -> Cell {
    let style = if status.watchers_confirmed < status.watchers {
        NOTICE
    } else {
        PLAIN
    };
    let text = format!(
        "{}/{}",
        count(status.watchers_confirmed.into()),
        count(status.watchers.into())
    );
    Cell::styled(text, style)
}

fn error_cell(calls: u64, errors: u64) -> Cell {
    if calls == 0 {
        return NOTHING.into();
    }
    let rate = errors as f64 / calls as f64;
    let style = match rate {
        rate if rate >= ERROR_RATE_BAD => BAD,
        rate if rate > 0.0 => NOTICE,
        _ => PLAIN,
    };
    Cell::styled(format!("{:.2}%", rate * 100.0), style)
}

fn latency_cell(latency: Option<Duration>) -> Cell {
    let shown = latency.map(|it| format!("{:.2} ms", it.as_secs_f64() * 1_000.0));
    shown.unwrap_or_else(|| NOTHING.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    use trimtab_client::operator::change::Route;

    fn group(name: &str, state: GroupState, share: u32, calls: u64, errors: u64) -> GroupStatus {
        GroupStatus {
            name: name.into(),
            state,
            instances: 4,
            ready: 4,
            suspect: 0,
            starting: 0,
            draining: 0,
            ready_capacity: 400,
            intended_basis_points: share,
            observed_basis_points: (calls > 0).then_some(share),
            calls,
            errors,
            latency_mean: (calls > 0).then_some(Duration::from_micros(1_234)),
            latency_p50: (calls > 0).then_some(Duration::from_micros(950)),
            latency_p99: (calls > 0).then_some(Duration::from_micros(7_800)),
            last_call_age: (calls > 0).then_some(Duration::from_millis(2)),
        }
    }

    fn catalog() -> ServiceStatus {
        ServiceStatus {
            service: "catalog".into(),
            revision: 8_815,
            route_revision: 8_812,
            route: Route {
                weights: [("v41".to_owned(), 9_900), ("v42".to_owned(), 100)].into(),
                ..Route::default()
            },
            groups: vec![
                group("v41", GroupState::Active, 9_900, 9_900, 0),
                group("v42", GroupState::Active, 100, 100, 50),
                group("v43", GroupState::Dark, 0, 0, 0),
            ],
            instances: vec![],
            watchers: 1_204,
            watchers_confirmed: 1_203,
            unreachable_replicas: vec![3],
            window: Duration::from_secs(10),
            alarms: vec!["v42 fails".into()],
            brakes: vec![],
            possibly_stale: false,
        }
    }

    #[test]
    fn a_service_shows_each_group_and_what_is_wrong() {
        let plain = anstream::adapter::strip_str(&service_text(&catalog())).to_string();
        assert_eq!(
            plain,
            "\
catalog: v41 99%, v42 1%, revision 8815, route of 8812
1,203 of 1,204 callers use this route; observed over 10.0 s
GROUP  STATE   READY  SUSPECT  OTHER  INTENDED  OBSERVED  CALLS  ERRORS      P50      P99  LAST CALL
v41    active      4        0      0       99%       99%  9,900   0.00%  0.95 ms  7.80 ms  2.0 ms ago
v42    active      4        0      0        1%        1%    100  50.00%  0.95 ms  7.80 ms  2.0 ms ago
v43    dark        4        0      0        0%         -      0       -        -        -  never
note: replica 3 does not answer, its callers are not counted
alarm: v42 fails
"
        );
    }

    #[test]
    fn a_policy_is_told_where_it_is_not_the_default() {
        let mut status = catalog();
        status.route.policy.warm_up = Duration::from_secs(30);
        status.route.policy.prefer_zone = true;
        let plain = anstream::adapter::strip_str(&service_text(&status)).to_string();
        assert_eq!(
            plain.lines().nth(1),
            Some("policy: prefer-zone on, warm-up 30s")
        );
    }

    #[test]
    fn all_services_have_a_line_each() {
        let plain = anstream::adapter::strip_str(&overview(&[catalog()])).to_string();
        assert_eq!(
            plain,
            "\
SERVICE  ROUTE            READY   CALLS  ERRORS  CALLERS      REVISION  ALARMS
catalog  v41 99%, v42 1%  12/12  10,000   0.50%  1,203/1,204      8815  v42 fails
"
        );
    }
}

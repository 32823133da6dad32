//! `trimtab teardown`: retire a release that carries nothing any more.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use trimtab_client::error::Error;
use trimtab_client::operator::change::{Teardown, TeardownOutcome};
use trimtab_client::operator::service_status::InstanceDetail;

use crate::arguments::{ChangeArgs, duration};
use crate::change;
use crate::failure::{Exit, Failure};
use crate::session::Session;
use crate::table::Table;
use crate::wait::span;

/// How often to look whether the instances are gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) const EXAMPLES: &str = "\
Refused while the group has weight, while a caller has not confirmed the route, or when calls to it
were seen within --quiet. Then its instances are told to retire: they drain, deregister and exit by
themselves. A rollback to the group is not possible afterwards. With --wait it returns when they
are gone. --force overrules all but weight; of a service's only group it takes the service down.

Examples:
  trimtab teardown catalog v41
  trimtab teardown catalog v41 --quiet 5m
  trimtab teardown catalog v41 --wait --timeout 2m --reason 'v42 has baked'";

#[derive(Debug, Args)]
pub(crate) struct TeardownArgs {
    /// The service
    service: String,

    /// The group to retire
    group: String,

    /// How long no caller may have called the group
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    quiet: Duration,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Serialize)]
struct TeardownReport<'a> {
    #[serde(flatten)]
    outcome: &'a TeardownOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    retirement: Option<Retirement>,
}

/// How far the instances of the group had come when the wait ended.
#[derive(Debug, Serialize)]
struct Retirement {
    complete: bool,
    elapsed_ms: f64,
    remaining: Vec<InstanceDetail>,
}

pub(crate) async fn run(args: &TeardownArgs, session: &Session) -> Result<(), Failure> {
    let request = Teardown {
        service: args.service.clone(),
        group: args.group.clone(),
        quiet: Some(args.quiet),
        expected_route_revision: args.change.expected_revision(&args.service)?,
    };
    let options = args.change.options();
    let sent = Instant::now();
    let outcome = session
        .operator
        .teardown(&request, &options)
        .await
        .map_err(|error| change::failure(error, &options))?;
    let output = session.output;
    if !output.is_json() {
        output.text(&sentence(args, &outcome))?;
        output.warnings(&outcome.warnings);
    }
    let retirement = if args.change.waits(output.is_attended()) {
        Some(for_retirement(args, session, sent).await?)
    } else {
        None
    };
    let report = TeardownReport {
        outcome: &outcome,
        retirement,
    };
    if output.is_json() {
        output.result(&report, |_| String::new())?;
    }
    match &report.retirement {
        Some(retirement) => retirement.conclude(args, session),
        None => Ok(()),
    }
}

/// Looks until the registry has forgotten the group, at most for the time the
/// session has.
async fn for_retirement(
    args: &TeardownArgs,
    session: &Session,
    sent: Instant,
) -> Result<Retirement, Failure> {
    let mut remaining = Vec::new();
    let mut complete = false;
    loop {
        match session.operator.describe(&args.service).await {
            Ok(status) => {
                complete = status.group(&args.group).is_none();
                remaining = status.instances;
                remaining.retain(|detail| detail.instance.group == args.group);
            }
            // The service went with its only group.
            Err(Error::NotFound(_)) => {
                complete = true;
                remaining.clear();
            }
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
        if complete || session.wait_left().is_zero() {
            break;
        }
        session.output.progress(&format!(
            "{} of {} still there after {}",
            instances(remaining.len()),
            args.group,
            span(sent.elapsed())
        ));
        sleep(LOOK_INTERVAL.min(session.wait_left())).await;
    }
    session.output.clear_progress();
    Ok(Retirement {
        complete,
        elapsed_ms: sent.elapsed().as_micros() as f64 / 1_000.0,
        remaining,
    })
}

impl Retirement {
    fn conclude(&self, args: &TeardownArgs, session: &Session) -> Result<(), Failure> {
        let elapsed = span(Duration::from_micros((self.elapsed_ms * 1_000.0) as u64));
        if self.complete {
            if !session.output.is_json() {
                session
                    .output
                    .note(&format!("{} is gone after {elapsed}", args.group));
            }
            return Ok(());
        }
        if !session.output.is_json() && !self.remaining.is_empty() {
            session.output.note(&remaining_table(&self.remaining));
        }
        Err(Failure::new(
            Exit::WaitedInVain,
            format!(
                "{} of {} still there after {elapsed}",
                instances(self.remaining.len()),
                args.group
            ),
        )
        .hint("they were told to retire and go on draining; wait longer with --timeout"))
    }
}

fn sentence(args: &TeardownArgs, outcome: &TeardownOutcome) -> String {
    let told = if outcome.dry_run {
        "would be told"
    } else {
        "told"
    };
    format!(
        "{} of {} {}: {} {told} to retire, revision {}\n",
        args.group,
        args.service,
        if outcome.dry_run {
            "can be torn down"
        } else {
            "is being torn down"
        },
        instances(outcome.instances as usize),
        outcome.revision
    )
}

fn instances(number: usize) -> String {
    match number {
        1 => "1 instance".to_owned(),
        number => format!("{number} instances"),
    }
}

fn remaining_table(remaining: &[InstanceDetail]) -> String {
    let mut table = Table::new(&["STILL THERE", "ADDRESS", "STATUS"]);
    for detail in remaining {
        table.row([
            detail.instance.id.clone().into(),
            detail.instance.address.clone().into(),
            detail.instance.status.to_string().into(),
        ]);
    }
    table.render().trim_end().to_owned()
}

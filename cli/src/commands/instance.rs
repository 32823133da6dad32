//! `trimtab instance`: set on one instance what it does not say of itself.

use clap::{Args, Subcommand};
use tokio::time::Instant;
use trimtab_client::operator::change::{Adjustment, AdjustmentOutcome, InstanceAdjustment};

use crate::arguments::ChangeArgs;
use crate::change::{self, Report};
use crate::commands::resolve::status_cell;
use crate::failure::Failure;
use crate::session::Session;
use crate::table::Table;
use crate::wait;

pub(crate) const EXAMPLES: &str = "\
For tiers that cannot run two releases side by side and upgrade machine by machine behind the same
name. What is set holds until undone, also when the instance registers again, and ends when it
deregisters or its lease ends.

Examples:
  trimtab instance drain catalog web-12           no new calls to it
  trimtab instance undrain catalog web-12
  trimtab instance capacity catalog web-12 50     half the calls of one of capacity 100
  trimtab instance capacity catalog web-12 0      what it registered with again";

#[derive(Debug, Args)]
pub(crate) struct InstanceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// No new calls to an instance, whatever it says of itself
    Drain(Subject),
    /// Calls again as the instance says of itself
    Undrain(Subject),
    /// Another capacity than it registered with
    Capacity(CapacityArgs),
}

#[derive(Debug, Args)]
struct Subject {
    /// The service
    service: String,

    /// The instance's id, as `trimtab resolve SERVICE` lists it
    id: String,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct CapacityArgs {
    /// The service
    service: String,

    /// The instance's id, as `trimtab resolve SERVICE` lists it
    id: String,

    /// Relative weight within its group, 1 to 10,000; 0 for what it registered with
    capacity: u32,

    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: &InstanceArgs, session: &Session) -> Result<(), Failure> {
    match &args.verb {
        Verb::Drain(subject) => subject.adjust(session, Adjustment::Drain).await,
        Verb::Undrain(subject) => subject.adjust(session, Adjustment::Undrain).await,
        Verb::Capacity(args) => {
            let adjustment = Adjustment::Capacity(args.capacity);
            adjust(session, &args.service, &args.id, adjustment, &args.change).await
        }
    }
}

impl Subject {
    async fn adjust(&self, session: &Session, adjustment: Adjustment) -> Result<(), Failure> {
        adjust(session, &self.service, &self.id, adjustment, &self.change).await
    }
}

async fn adjust(
    session: &Session,
    service: &str,
    id: &str,
    adjustment: Adjustment,
    args: &ChangeArgs,
) -> Result<(), Failure> {
    let request = InstanceAdjustment {
        service: service.to_owned(),
        instance_id: id.to_owned(),
        adjustment,
        expected_route_revision: args.expected_revision(service)?,
    };
    let options = args.options();
    let sent = Instant::now();
    let outcome = session
        .operator
        .adjust_instance(&request, &options)
        .await
        .map_err(|error| change::failure(error, &options))?;
    let output = session.output;
    if !output.is_json() {
        output.text(&table(&outcome))?;
        output.warnings(&outcome.warnings);
        if outcome.dry_run {
            output.note("dry run: nothing was changed");
        }
    }
    let receipts = if args.waits(output.is_attended()) {
        let services = [service.to_owned()];
        Some(wait::for_receipts(session, &services, outcome.revision, sent).await?)
    } else {
        None
    };
    let report = Report {
        outcome: &outcome,
        receipts,
    };
    if output.is_json() {
        output.result(&report, |_| String::new())?;
    }
    match &report.receipts {
        Some(receipts) => receipts.conclude(session),
        None => Ok(()),
    }
}

fn table(outcome: &AdjustmentOutcome) -> String {
    let instance = &outcome.instance;
    let mut table = Table::new(&["INSTANCE", "GROUP", "ADDRESS", ">CAPACITY", "STATUS"]);
    table.row([
        instance.id.clone().into(),
        instance.group.clone().into(),
        instance.address.clone().into(),
        instance.capacity.to_string().into(),
        status_cell(instance.status),
    ]);
    table.render()
}

//! `trimtab resolve`: what a caller is told about a service now.

use clap::Args;
use trimtab_client::operator::service_status::{InstanceStatus, ServiceView};

use crate::change::route_line;
use crate::failure::Failure;
use crate::session::Session;
use crate::settings;
use crate::table::{BAD, Cell, FAINT, GOOD, NOTICE, PLAIN, Table};

pub(crate) const EXAMPLES: &str = "\
Examples:
  trimtab resolve catalog
  trimtab resolve catalog --linearizable      ask the leader first: see every change made before
  trimtab resolve catalog --output json | jq -r '.instances[] | select(.status==\"ready\").address'";

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The service
    service: String,

    /// Ask the leader first, so that every change acknowledged before is seen; fails without a
    /// quorum
    #[arg(long)]
    linearizable: bool,
}

pub(crate) async fn run(args: &ResolveArgs, session: &Session) -> Result<(), Failure> {
    let view = session
        .operator
        .resolve(&args.service, args.linearizable)
        .await?;
    session.output.result(&view, table)?;
    session.note_if_stale(view.possibly_stale);
    Ok(())
}

fn table(view: &ServiceView) -> String {
    let mut table = Table::new(&[
        "INSTANCE",
        "GROUP",
        "ADDRESS",
        "ZONE",
        ">CAPACITY",
        "STATUS",
    ]);
    for instance in &view.instances {
        table.row([
            instance.id.clone().into(),
            instance.group.clone().into(),
            instance.address.clone().into(),
            instance.zone.clone().into(),
            instance.capacity.to_string().into(),
            status_cell(instance.status),
        ]);
    }
    let policy = settings::unusual(&view.route.policy);
    format!(
        "{}: {}, revision {}, route of {}\n{}{}",
        view.service,
        route_line(&view.route),
        view.revision,
        view.route_revision,
        policy.map_or(String::new(), |unusual| format!("policy: {unusual}\n")),
        table.render()
    )
}

/// A status in the colour of how much it wants attention.
pub(crate) fn status_cell(status: InstanceStatus) -> Cell {
    let style = match status {
        InstanceStatus::Ready => GOOD,
        InstanceStatus::Suspect => BAD,
        InstanceStatus::Draining => NOTICE,
        InstanceStatus::Starting => FAINT,
        InstanceStatus::Unknown => PLAIN,
    };
    Cell::styled(status.to_string(), style)
}

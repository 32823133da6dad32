//! `trimtab history`: who changed a route, when, why, and how.

use clap::Args;
use trimtab_client::operator::change::{ChangeKind, RouteChange};

use crate::failure::Failure;
use crate::session::Session;
use crate::settings::sides;
use crate::table::{NOTHING, Table};

pub(crate) const EXAMPLES: &str = "\
Newest first; the last 100 changes are kept.

Examples:
  trimtab history catalog
  trimtab history catalog --limit 1 --output json";

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The service
    service: String,

    /// At most so many changes [default: all that are kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(crate) async fn run(args: &HistoryArgs, session: &Session) -> Result<(), Failure> {
    let changes = session.operator.history(&args.service, args.limit).await?;
    session.output.result(&changes, |changes| table(changes))
}

fn table(changes: &[RouteChange]) -> String {
    let mut table = Table::new(&[">REVISION", "WHEN", "KIND", "BEFORE", "AFTER", "WHO", "WHY"]);
    for change in changes {
        let when = change.at.map_or(NOTHING.to_owned(), |at| {
            humantime::format_rfc3339_seconds(at).to_string()
        });
        let (before, after) = sides(change);
        table.row([
            change.revision.to_string().into(),
            when.into(),
            kind(change).into(),
            before.into(),
            after.into(),
            change.actor.clone().into(),
            change.reason.clone().into(),
        ]);
    }
    table.render()
}

fn kind(change: &RouteChange) -> String {
    match (change.kind, change.restored_revision) {
        (ChangeKind::Rollback, Some(revision)) => format!("rollback to {revision}"),
        (ChangeKind::Found, _) => "found".into(),
        (ChangeKind::Canary, _) => "canary".into(),
        (ChangeKind::Shift, _) => "shift".into(),
        (ChangeKind::Switch, _) => "switch".into(),
        (ChangeKind::Rollback, None) => "rollback".into(),
        (ChangeKind::Policy, _) => "policy".into(),
        (ChangeKind::Unknown, _) => NOTHING.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::{Duration, UNIX_EPOCH};

    use trimtab_client::operator::change::Route;

    #[test]
    fn each_change_is_one_line() {
        let v41 = Route {
            weights: [("v41".to_owned(), 10_000)].into(),
            ..Route::default()
        };
        let change = RouteChange {
            service: "catalog".into(),
            revision: 12,
            at: Some(UNIX_EPOCH + Duration::from_secs(60)),
            actor: "ann".into(),
            reason: "errors in v42".into(),
            kind: ChangeKind::Rollback,
            before: None,
            after: v41,
            restored_revision: Some(3),
            request_id: String::new(),
        };
        let plain = anstream::adapter::strip_str(&table(&[change])).to_string();
        assert_eq!(
            plain,
            "REVISION  WHEN                  KIND           BEFORE  AFTER     WHO  WHY\n\
             \x20     12  1970-01-01T00:01:00Z  rollback to 3  -       v41 100%  ann  errors in v42\n"
        );
    }
}

//! `trimtab rollback`: restore an earlier route, exactly.

use clap::Args;
use tokio::time::Instant;
use trimtab_client::operator::change::RollbackTarget;

use crate::arguments::ChangeArgs;
use crate::change;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) const EXAMPLES: &str = "\
Without --to it restores the route before the last change; asked again, the one before that. It is
not refused for want of ready instances: it warns instead. Several services go back at one
revision, all or none.

Examples:
  trimtab rollback catalog
  trimtab rollback catalog --to 8790          the route that took effect at 8790
  trimtab rollback catalog cart --reason 'errors in v42'
  trimtab rollback catalog --dry-run          show where it would go";

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,

    /// Restore the route that took effect at this revision; see `trimtab history`
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,

    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: &RollbackArgs, session: &Session) -> Result<(), Failure> {
    let services: Vec<&str> = args.services.iter().map(String::as_str).collect();
    let expected = args.change.expected_revisions(&services)?;
    let targets: Vec<RollbackTarget> = args
        .services
        .iter()
        .zip(expected)
        .map(|(service, expected_route_revision)| RollbackTarget {
            service: service.clone(),
            to_revision: args.to,
            expected_route_revision,
        })
        .collect();
    let options = args.change.options();
    let sent = Instant::now();
    let outcome = session
        .operator
        .rollback(&targets, &options)
        .await
        .map_err(|error| change::failure(error, &options))?;
    change::conclude(session, &args.change, &args.services, &outcome, sent).await
}

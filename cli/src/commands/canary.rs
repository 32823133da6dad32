//! `trimtab canary`: give one group a share of the calls to try it.

use clap::Args;
use tokio::time::Instant;
use trimtab_client::operator::change::{CanaryShare, ServiceShift, ShiftTarget};

use crate::arguments::ChangeArgs;
use crate::change;
use crate::failure::Failure;
use crate::percent::Percent;
use crate::session::Session;

pub(crate) const EXAMPLES: &str = "\
The other groups keep their proportions in what is left. An even share is what one would get by
capacity: one instance of v42 beside a hundred of v41 gets a hundred-and-first of the calls.

Examples:
  trimtab canary catalog v42                  as much as its instances should bear
  trimtab canary catalog v42 --share 5%
  trimtab canary catalog v42 --share 1% --reason 'release 42' --dry-run
  trimtab rollback catalog                    as it was before";

#[derive(Debug, Args)]
pub(crate) struct CanaryArgs {
    /// The service
    service: String,

    /// The group to try
    group: String,

    /// Its share: percent with up to two decimals, or `even`
    #[arg(long, default_value = "even", value_parser = share)]
    share: CanaryShare,

    /// How many ready instances the group must have [default: as much capacity as its share needs]
    #[arg(long, value_name = "N")]
    min_ready: Option<u32>,

    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: &CanaryArgs, session: &Session) -> Result<(), Failure> {
    let target = ShiftTarget::Canary {
        group: args.group.clone(),
        share: args.share,
    };
    let shift = ServiceShift {
        expected_route_revision: args.change.expected_revision(&args.service)?,
        min_ready: args.min_ready,
        ..ServiceShift::new(&args.service, target)
    };
    let options = args.change.options();
    let sent = Instant::now();
    let outcome = session
        .operator
        .shift(&[shift], &options)
        .await
        .map_err(|error| change::failure(error, &options))?;
    let services = [args.service.clone()];
    change::conclude(session, &args.change, &services, &outcome, sent).await
}

fn share(text: &str) -> Result<CanaryShare, String> {
    if text == "even" {
        return Ok(CanaryShare::Even);
    }
    let percent: Percent = text.parse().map_err(|error| format!("{error}, or even"))?;
    match percent.basis_points() {
        0 => Err("a canary gets at least 0.01%; to end one, use rollback or shift".into()),
        share => Ok(CanaryShare::BasisPoints(share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_even_or_a_percentage() {
        assert_eq!(share("even"), Ok(CanaryShare::Even));
        assert_eq!(share("5%"), Ok(CanaryShare::BasisPoints(500)));
        assert!(share("half").unwrap_err().ends_with("or even"));
        assert!(share("0%").unwrap_err().contains("rollback"));
    }
}

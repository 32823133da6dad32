//! `trimtab shift`: set the weights of a service's groups.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use tokio::time::Instant;
use trimtab_client::operator::change::{ServiceShift, ShiftTarget};

use crate::arguments::ChangeArgs;
use crate::change;
use crate::failure::{Exit, Failure};
use crate::percent::{Percent, WHOLE};
use crate::session::Session;

pub(crate) const EXAMPLES: &str = "\
Groups that are not named get nothing. The change is atomic: every caller sees all of it or none.

Examples:
  trimtab shift catalog v41=90 v42=10
  trimtab shift catalog v41=99.9% v42=0.1% --expect-revision 8810
  trimtab shift catalog v41=50 v42=50 --min-ready 20 --reason 'half way' --timeout 1m";

#[derive(Debug, Args)]
pub(crate) struct ShiftArgs {
    /// The service
    service: String,

    /// Each group's share in percent, up to two decimals; together 100
    #[arg(required = true, value_name = "GROUP=SHARE")]
    weights: Vec<GroupShare>,

    /// How many ready instances each group that gains must have [default: as much capacity as its
    /// new share of the traffic needs]
    #[arg(long, value_name = "N")]
    min_ready: Option<u32>,

    #[command(flatten)]
    change: ChangeArgs,
}

/// One `group=share` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupShare {
    group: String,
    share: Percent,
}

pub(crate) async fn run(args: &ShiftArgs, session: &Session) -> Result<(), Failure> {
    let shift = ServiceShift {
        expected_route_revision: args.change.expected_revision(&args.service)?,
        min_ready: args.min_ready,
        ..ServiceShift::new(&args.service, ShiftTarget::Weights(weights(&args.weights)?))
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

/// Each group once, and 100 % in all.
fn weights(shares: &[GroupShare]) -> Result<BTreeMap<String, u32>, Failure> {
    let invalid = |message: String| Failure::new(Exit::InvalidArgument, message);
    let mut weights = BTreeMap::new();
    for GroupShare { group, share } in shares {
        let earlier = weights.insert(group.clone(), share.basis_points());
        if earlier.is_some() {
            return Err(invalid(format!("group {group} is given two shares")));
        }
    }
    let sum: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    if sum != u64::from(WHOLE) {
        let sum = Percent::from_basis_points(u32::try_from(sum).unwrap_or(u32::MAX));
        return Err(invalid(format!(
            "the shares sum to {sum}; they must sum to 100%"
        )));
    }
    Ok(weights)
}

impl FromStr for GroupShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, share) = text
            .split_once('=')
            .filter(|(group, _)| !group.is_empty())
            .ok_or_else(|| format!("{text:?} is not GROUP=SHARE, for example v42=10"))?;
        Ok(Self {
            group: group.to_owned(),
            share: share.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<BTreeMap<String, u32>, Failure> {
        let shares: Result<Vec<_>, _> = texts.iter().map(|text| text.parse()).collect();
        weights(&shares.unwrap())
    }

    #[test]
    fn shares_that_sum_to_the_whole_are_weights() {
        let weights = read(&["v41=99.99", "v42=0.01%"]).unwrap();
        assert_eq!(weights["v41"], 9_999);
        assert_eq!(weights["v42"], 1);
    }

    #[test]
    fn shares_that_do_not_sum_are_refused_with_the_sum() {
        let failure = read(&["v41=90", "v42=5"]).unwrap_err();
        assert_eq!(failure.exit(), Exit::InvalidArgument);
        assert_eq!(
            failure.to_text(),
            "error: the shares sum to 95%; they must sum to 100%"
        );
    }

    #[test]
    fn a_group_has_one_share() {
        let failure = read(&["v41=50", "v41=50"]).unwrap_err();
        assert_eq!(failure.to_text(), "error: group v41 is given two shares");
    }

    #[test]
    fn what_is_not_a_share_is_quoted() {
        for text in ["v42", "=10", ""] {
            assert!(text.parse::<GroupShare>().unwrap_err().contains(text));
        }
    }
}

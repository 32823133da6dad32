//! `trimtab switch`: all calls to one group, of one service or of several at
//! once.

use clap::Args;
use tokio::time::Instant;
use trimtab_client::operator::change::{ServiceShift, ShiftTarget};

use crate::arguments::ChangeArgs;
use crate::change;
use crate::failure::{Exit, Failure};
use crate::session::Session;

pub(crate) const EXAMPLES: &str = "\
The groups that carried the calls before stay up, without weight: `trimtab rollback` goes back to
them at once. Several services switch at one revision, all or none.

Examples:
  trimtab switch catalog v42
  trimtab switch catalog v42 --wait --timeout 10s --reason 'release 42'
  trimtab switch catalog v42 --min-ready 80
  trimtab switch catalog=v42 cart=v17";

#[derive(Debug, Args)]
pub(crate) struct SwitchArgs {
    /// SERVICE GROUP, or SERVICE=GROUP for each of several services
    #[arg(required = true, value_name = "SERVICE GROUP | SERVICE=GROUP ...")]
    targets: Vec<String>,

    /// How many ready instances the group must have [default: as much capacity as carries the
    /// calls now]
    #[arg(long, value_name = "N")]
    min_ready: Option<u32>,

    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(args: &SwitchArgs, session: &Session) -> Result<(), Failure> {
    let targets = targets(&args.targets)?;
    let services: Vec<&str> = targets.iter().map(|(service, _)| *service).collect();
    let expected = args.change.expected_revisions(&services)?;
    let shifts: Vec<ServiceShift> = targets
        .iter()
        .zip(expected)
        .map(|((service, group), expected_route_revision)| ServiceShift {
            expected_route_revision,
            min_ready: args.min_ready,
            ..ServiceShift::new(*service, ShiftTarget::SwitchTo((*group).to_owned()))
        })
        .collect();
    let options = args.change.options();
    let sent = Instant::now();
    let outcome = session
        .operator
        .shift(&shifts, &options)
        .await
        .map_err(|error| change::failure(error, &options))?;
    let services: Vec<String> = shifts.into_iter().map(|shift| shift.service).collect();
    change::conclude(session, &args.change, &services, &outcome, sent).await
}

/// Reads both ways of saying which service goes to which group.
fn targets(words: &[String]) -> Result<Vec<(&str, &str)>, Failure> {
    if let [service, group] = words
        && !service.contains('=')
        && !group.contains('=')
    {
        return Ok(vec![(service, group)]);
    }
    words
        .iter()
        .map(|word| {
            word.split_once('=').ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!("{word:?} is not SERVICE=GROUP, for example catalog=v42"),
                )
                .hint("one service: trimtab switch SERVICE GROUP")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let pairs = targets(&words)?;
        Ok(pairs
            .into_iter()
            .map(|(service, group)| (service.to_owned(), group.to_owned()))
            .collect())
    }

    #[test]
    fn one_service_is_two_words_and_several_are_pairs() {
        let pair = |service: &str, group: &str| (service.to_owned(), group.to_owned());
        assert_eq!(read(&["catalog", "v42"]).unwrap(), [pair("catalog", "v42")]);
        assert_eq!(read(&["catalog=v42"]).unwrap(), [pair("catalog", "v42")]);
        assert_eq!(
            read(&["catalog=v42", "cart=v17"]).unwrap(),
            [pair("catalog", "v42"), pair("cart", "v17")]
        );
    }

    #[test]
    fn a_mixture_is_refused() {
        for words in [&["catalog"][..], &["catalog=v42", "cart"], &["a", "b", "c"]] {
            assert_eq!(read(words).unwrap_err().exit(), Exit::Usage, "{words:?}");
        }
    }
}

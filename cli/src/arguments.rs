//! The flags that many commands share.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use trimtab_client::cluster::DEFAULT_ENDPOINT;
use trimtab_client::operator::change::ChangeOptions;

use crate::actor::default_actor;
use crate::failure::{Exit, Failure};
use crate::output::{Color, Format};

/// How long a change waits for receipts, unless told.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Replicas of the registry, separated by commas
    #[arg(
        long,
        short,
        global = true,
        env = "TRIMTAB_ENDPOINTS",
        hide_env_values = true,
        default_value = DEFAULT_ENDPOINT,
        value_name = "HOST:PORT,...",
        help_heading = "Global options"
    )]
    pub(crate) endpoints: String,

    /// How results are printed: for people, or for scripts
    #[arg(
        long,
        short,
        global = true,
        env = "TRIMTAB_OUTPUT",
        hide_env_values = true,
        value_enum,
        default_value_t = Format::Table,
        help_heading = "Global options"
    )]
    pub(crate) output: Format,

    /// When to use colour; auto obeys NO_COLOR
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Color::Auto,
        help_heading = "Global options"
    )]
    pub(crate) color: Color,

    /// How long to try, for example 10s: a question until a replica answers (5s unless given), a
    /// change until everyone has confirmed it (30s unless given)
    #[arg(
        long,
        global = true,
        value_parser = positive_duration,
        value_name = "DURATION",
        help_heading = "Global options"
    )]
    pub(crate) timeout: Option<Duration>,
}

/// Flags that every change takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every change")]
pub(crate) struct ChangeArgs {
    /// Why, for the history
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,

    // Not a doc comment, which would take the bracket for a link.
    #[arg(
        long,
        env = "TRIMTAB_ACTOR",
        hide_env_values = true,
        help = "Who, for the history [default: user@host]"
    )]
    actor: Option<String>,

    /// Refuse unless the route is still the one of this revision; with several services,
    /// SERVICE=REVISION, once for each
    #[arg(long, value_name = "REVISION")]
    expect_revision: Vec<ExpectedRevision>,

    /// Check and show what would happen, but change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Return when every live caller has confirmed the change [default: when stderr is a terminal]
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,

    /// Return as soon as the change is made
    #[arg(long)]
    no_wait: bool,

    /// Overrule the guards that allow it
    #[arg(long)]
    force: bool,

    /// Names the change, so that repeating it (after a lost answer, or in a script) does it once
    /// [default: random]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// A revision, and whose it is where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExpectedRevision {
    service: Option<String>,
    revision: u64,
}

impl ChangeArgs {
    /// The options, with actor and request id filled in.
    pub(crate) fn options(&self) -> ChangeOptions {
        let random_id = || format!("{:032x}", rand::random::<u128>());
        ChangeOptions {
            actor: self.actor.clone().unwrap_or_else(default_actor),
            reason: self.reason.clone(),
            dry_run: self.dry_run,
            force: self.force,
            request_id: Some(self.request_id.clone().unwrap_or_else(random_id)),
        }
    }

    /// Whether to wait for receipts; `attended` says whether a person looks.
    pub(crate) fn waits(&self, attended: bool) -> bool {
        !self.dry_run && (self.wait || (attended && !self.no_wait))
    }

    /// The expected route revision of each of `services`, in their order.
    pub(crate) fn expected_revisions(
        &self,
        services: &[&str],
    ) -> Result<Vec<Option<u64>>, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        let mut expected = vec![None; services.len()];
        for given in &self.expect_revision {
            let position = match (&given.service, services) {
                (None, [_]) => 0,
                (None, _) => {
                    return Err(usage(format!(
                        "--expect-revision {}: several services are changed; write \
                         SERVICE={} to say which one is meant",
                        given.revision, given.revision
                    )));
                }
                (Some(service), _) => services
                    .iter()
                    .position(|changed| changed == service)
                    .ok_or_else(|| {
                        usage(format!(
                            "--expect-revision names {service}, which is not changed"
                        ))
                    })?,
            };
            if let Some(slot) = expected.get_mut(position) {
                *slot = Some(given.revision);
            }
        }
        Ok(expected)
    }

    /// As [`ChangeArgs::expected_revisions`], for a change of one service.
    pub(crate) fn expected_revision(&self, service: &str) -> Result<Option<u64>, Failure> {
        let expected = self.expected_revisions(&[service])?;
        Ok(expected.first().copied().flatten())
    }
}

impl FromStr for ExpectedRevision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, revision) = match text.split_once('=') {
            Some((service, revision)) => (Some(service.to_owned()), revision),
            None => (None, text),
        };
        let revision = revision
            .parse()
            .map_err(|_| format!("{revision:?} is not a revision: write a whole number"))?;
        Ok(Self { service, revision })
    }
}

/// Reads "500ms", "30s", "2m".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 30s or 2m"))
}

/// As [`duration`], but not nothing.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than nothing".into()),
        positive => Ok(positive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        change: ChangeArgs,
    }

    fn change(flags: &[&str]) -> ChangeArgs {
        Probe::parse_from(std::iter::once("probe").chain(flags.iter().copied())).change
    }

    #[test]
    fn waiting_is_for_people_unless_said_otherwise() {
        assert!(change(&[]).waits(true));
        assert!(!change(&[]).waits(false));
        assert!(change(&["--wait"]).waits(false));
        assert!(!change(&["--no-wait"]).waits(true));
        assert!(!change(&["--wait", "--no-wait"]).waits(false));
        assert!(!change(&["--wait", "--dry-run"]).waits(true));
    }

    #[test]
    fn an_expected_revision_belongs_to_one_service() {
        let one = change(&["--expect-revision", "8812"]);
        assert_eq!(one.expected_revision("catalog").unwrap(), Some(8812));
        let failure = one.expected_revisions(&["catalog", "cart"]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);

        let named = change(&["--expect-revision", "cart=7"]);
        let expected = named.expected_revisions(&["catalog", "cart"]).unwrap();
        assert_eq!(expected, [None, Some(7)]);
        assert!(named.expected_revision("catalog").is_err());
    }

    #[test]
    fn every_change_has_an_id_of_its_own() {
        let args = change(&[]);
        assert_ne!(args.options().request_id, args.options().request_id);
        let named = change(&["--request-id", "deploy-17"]);
        assert_eq!(named.options().request_id.as_deref(), Some("deploy-17"));
    }

    #[test]
    fn no_time_at_all_is_refused() {
        assert!(positive_duration("0s").is_err());
        assert_eq!(positive_duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(duration("soon").unwrap_err().contains("30s"));
    }
}

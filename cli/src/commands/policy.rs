//! `trimtab policy`: what callers do beyond the weights of a route, shown and changed.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;
use trimtab_client::error::Error;
use trimtab_client::operator::change::{CurrentRoute, ServiceShift, ShiftOutcome, ShiftTarget};
use trimtab_client::policy::{Balancing, OutlierPolicy, Policy};

use crate::arguments::{self, ChangeArgs};
use crate::change;
use crate::failure::Failure;
use crate::percent::Percent;
use crate::session::Session;
use crate::settings;
use crate::table::{Cell, FAINT, NOTICE, PLAIN, Table};

/// How often the policy is read anew when somebody else changed the route
/// between reading and writing: enough for as many who do it at once.
const ATTEMPTS_MAX: u32 = 10;

pub(crate) const EXAMPLES: &str = "\
Without a setting it shows what is. What is set holds for all groups of the service and reaches
every running caller at once; the weights stay as they are, and settings that are not named do, too.

Examples:
  trimtab policy catalog
  trimtab policy catalog --balancing round-robin
  trimtab policy catalog --warm-up 30s --prefer-zone on --subset 50
  trimtab policy catalog --eject-after 3 --max-ejected 20% --ejection 10s --wait
  trimtab policy catalog --eject-after off --reason 'the errors are ours' --dry-run
  trimtab policy catalog --defaults --subset 50     all as it is unless set, but for one
  trimtab policy catalog --output json | jq .policy";

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// The service
    service: String,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// Begin with what holds where nothing was ever set, instead of with what is
    #[arg(long)]
    defaults: bool,

    /// How a caller chooses within a group: the less loaded of two drawn at random, one after
    /// another, or by a key that the call carries
    #[arg(long, value_name = "HOW")]
    balancing: Option<HowToBalance>,

    /// Prefer instances of the caller's own zone, as far as they have ready capacity for it
    #[arg(long, value_name = "WHEN")]
    prefer_zone: Option<OnOff>,

    /// How many instances of each group a caller keeps connections to: 1 to 10,000, or all
    #[arg(long, value_name = "N")]
    subset: Option<Subset>,

    /// Over what time a group that never had weight comes up to its share: at most 1h, or off
    #[arg(long, value_name = "DURATION")]
    warm_up: Option<WarmUp>,

    /// After how many failures one after another a caller ejects an instance: 1 to 1,000, or off
    #[arg(long, value_name = "N")]
    eject_after: Option<EjectAfter>,

    /// How much of a group may be ejected at a time, but always one instance: 1% to 100%
    #[arg(long, value_name = "PERCENT")]
    max_ejected: Option<WholePercent>,

    /// How long an instance is ejected the first time: 1ms to 1h; the next times as much longer
    #[arg(long, value_name = "DURATION", value_parser = arguments::positive_duration)]
    ejection: Option<Duration>,

    /// May callers use groups that never carried traffic, when no other group can take a call?
    #[arg(long, value_name = "WHEN")]
    fall_back_to_dark: Option<OnOff>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HowToBalance {
    LeastLoaded,
    RoundRobin,
    ConsistentHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

/// A number of instances; None is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subset(Option<NonZeroU32>);

/// Zero is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WarmUp(Duration);

/// None is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EjectAfter(Option<NonZeroU32>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WholePercent(u32);

pub(crate) async fn run(args: &PolicyArgs, session: &Session) -> Result<(), Failure> {
    if !args.settings.are_given() {
        let route = session.operator.route(&args.service).await?;
        return session.output.result(&route, shown);
    }
    let sent = Instant::now();
    let outcome = change(args, session).await?;
    let services = [args.service.clone()];
    change::conclude(session, &args.change, &services, &outcome, sent).await
}

/// Reads the policy and writes it back with the settings, unless the route is
/// another by then.
async fn change(args: &PolicyArgs, session: &Session) -> Result<ShiftOutcome, Failure> {
    let expected = args.change.expected_revision(&args.service)?;
    let options = args.change.options();
    let mut attempts = 1;
    loop {
        let current = session.operator.route(&args.service).await?;
        let shift = ServiceShift {
            policy: Some(args.settings.applied_to(current.route.policy)),
            expected_route_revision: Some(expected.unwrap_or(current.route_revision)),
            ..ServiceShift::new(&args.service, ShiftTarget::Keep)
        };
        match session.operator.shift(&[shift], &options).await {
            // The policy that was read is not the one there was.
            Err(Error::Refused(_)) if expected.is_none() && attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            answer => return answer.map_err(|error| change::failure(error, &options)),
        }
    }
}

fn shown(current: &CurrentRoute) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "DEFAULT"]);
    let defaults = settings::of(&Policy::default());
    let all = settings::of(&current.route.policy)
        .into_iter()
        .zip(defaults);
    for ((setting, value), (_, default)) in all {
        let style = if value == default { PLAIN } else { NOTICE };
        table.row([
            setting.into(),
            Cell::styled(value, style),
            Cell::styled(default, FAINT),
        ]);
    }
    let (service, revision) = (&current.service, current.route_revision);
    format!("{service}: route of {revision}\n{}", table.render())
}

// === impl Settings ===

impl Settings {
    fn are_given(&self) -> bool {
        self.defaults
            || self.balancing.is_some()
            || self.prefer_zone.is_some()
            || self.subset.is_some()
            || self.warm_up.is_some()
            || self.eject_after.is_some()
            || self.max_ejected.is_some()
            || self.ejection.is_some()
            || self.fall_back_to_dark.is_some()
    }

    fn applied_to(&self, current: Policy) -> Policy {
        let now = if self.defaults {
            Policy::default()
        } else {
            current
        };
        let on = |asked: Option<OnOff>, now| asked.map_or(now, |asked| asked == OnOff::On);
        let outliers = now.outliers;
        let failures = |EjectAfter(failures)| failures.map(NonZeroU32::get);
        Policy {
            fall_back_to_dark: on(self.fall_back_to_dark, now.fall_back_to_dark),
            balancing: self.balancing.map_or(now.balancing, Balancing::from),
            prefer_zone: on(self.prefer_zone, now.prefer_zone),
            subset_size: self.subset.map_or(now.subset_size, |Subset(size)| size),
            warm_up: self.warm_up.map_or(now.warm_up, |WarmUp(span)| span),
            outliers: OutlierPolicy {
                enabled: (self.eject_after).map_or(outliers.enabled, |it| it.0.is_some()),
                consecutive_failures: (self.eject_after)
                    .and_then(failures)
                    .unwrap_or(outliers.consecutive_failures),
                max_ejected_percent: (self.max_ejected)
                    .map_or(outliers.max_ejected_percent, |percent| percent.0),
                base_ejection: self.ejection.unwrap_or(outliers.base_ejection),
            },
        }
    }
}

impl From<HowToBalance> for Balancing {
    fn from(how: HowToBalance) -> Balancing {
        match how {
            HowToBalance::LeastLoaded => Balancing::LeastLoaded,
            HowToBalance::RoundRobin => Balancing::RoundRobin,
            HowToBalance::ConsistentHash => Balancing::ConsistentHash,
        }
    }
}

impl FromStr for Subset {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_or(text, "all").map(Self)
    }
}

impl FromStr for EjectAfter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_or(text, "off").map(Self)
    }
}

/// A positive number, or None for the word.
fn number_or(text: &str, word: &str) -> Result<Option<NonZeroU32>, String> {
    if text == word {
        return Ok(None);
    }
    (text.parse().map(Some)).map_err(|_| format!("write a positive number, or {word}"))
}

impl FromStr for WarmUp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(Duration::ZERO)),
            text => arguments::duration(text).map(Self),
        }
    }
}

impl FromStr for WholePercent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let percent: Percent = text.parse().map_err(|error| format!("{error}"))?;
        match (percent.basis_points() / 100, percent.basis_points() % 100) {
            (whole @ 1.., 0) => Ok(Self(whole)),
            _ => Err(format!("{text:?} is not a whole percent from 1 to 100")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        settings: Settings,
    }

    fn read(flags: &[&str]) -> Result<Settings, String> {
        Probe::try_parse_from(std::iter::once("probe").chain(flags.iter().copied()))
            .map(|probe| probe.settings)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_named_stays() {
        let current = Policy {
            prefer_zone: true,
            subset_size: NonZeroU32::new(7),
            ..Policy::default()
        };
        let settings = read(&["--warm-up", "30s", "--eject-after", "off"]).unwrap();
        let changed = settings.applied_to(current);
        assert_eq!(changed.warm_up, Duration::from_secs(30));
        assert!(!changed.outliers.enabled);
        assert_eq!(
            changed.outliers.consecutive_failures, 5,
            "for when it is on again"
        );
        assert!(changed.prefer_zone);
        assert_eq!(changed.subset_size, NonZeroU32::new(7));

        let settings = read(&["--defaults", "--subset", "3"]).unwrap();
        let changed = settings.applied_to(current);
        assert!(!changed.prefer_zone);
        assert_eq!(changed.subset_size, NonZeroU32::new(3));
        assert!(!read(&[]).unwrap().are_given());
    }

    #[test]
    fn every_setting_reads_back_as_it_is_shown() {
        let policy = Policy {
            fall_back_to_dark: true,
            balancing: Balancing::ConsistentHash,
            prefer_zone: true,
            subset_size: NonZeroU32::new(50),
            warm_up: Duration::from_millis(90_500),
            outliers: OutlierPolicy {
                enabled: true,
                consecutive_failures: 3,
                max_ejected_percent: 25,
                base_ejection: Duration::from_secs(10),
            },
        };
        for (from, to) in [(Policy::default(), policy), (policy, Policy::default())] {
            let flags: Vec<String> = settings::of(&to)
                .into_iter()
                .flat_map(|(setting, value)| [format!("--{setting}"), value])
                .collect();
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            assert_eq!(read(&flags).unwrap().applied_to(from), to);
        }
    }

    #[test]
    fn what_cannot_be_a_setting_is_told_what_can() {
        for (flags, said) in [
            (["--subset", "0"], "write a positive number, or all"),
            (["--eject-after", "-1"], "write a positive number, or off"),
            (["--max-ejected", "0"], "not a whole percent from 1 to 100"),
            (
                ["--max-ejected", "2.5%"],
                "not a whole percent from 1 to 100",
            ),
            (["--warm-up", "soon"], "write for example 500ms, 30s or 2m"),
            (["--ejection", "0s"], "it must be more than nothing"),
            (["--balancing", "random"], "round-robin"),
        ] {
            let flag = format!("{}={}", flags[0], flags[1]);
            let error = read(&[&flag]).unwrap_err();
            assert!(error.contains(said), "{flag}: {error}");
        }
    }
}

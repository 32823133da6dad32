//! When removals are held back, and how long: the operator's settings of the brake.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::{ConfigError, invalid};
use crate::leases::LeaseSettings;

/// An hour: beyond it a dead instance would be kept for longer than anyone
/// takes to mend a network that was noticed.
const HOLD_MAX: Duration = Duration::from_secs(3_600);

/// The flags of the brake. All replicas should have the same: whichever leads
/// goes by its own.
#[derive(Args, Clone, Debug, Default)]
pub struct BrakeArgs {
    /// How long removals are held back, at most, when many instances stop renewing together; 0s: never [default: 60s]
    #[arg(long, env = "TRIMTAB_BRAKE_HOLD", value_name = "DURATION")]
    pub brake_hold: Option<String>,
    /// More than this part of a service, of a zone of it, or of what renewed through one replica, is many [default: 50]
    #[arg(long, env = "TRIMTAB_BRAKE_SHARE", value_name = "PERCENT")]
    pub brake_share: Option<u32>,
    /// Fewer instances than this are never many [default: 3]
    #[arg(long, env = "TRIMTAB_BRAKE_MIN", value_name = "INSTANCES")]
    pub brake_min: Option<u32>,
}

/// The table `[brake]` of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBrake {
    hold: Option<String>,
    share: Option<u32>,
    min: Option<u32>,
}

impl BrakeArgs {
    /// Merges flags and environment with the file, over the defaults.
    pub(super) fn merge(self, file: FileBrake) -> Result<LeaseSettings, ConfigError> {
        let mut settings = LeaseSettings::default();
        if let Some(hold) = self.brake_hold.or(file.hold) {
            settings.brake_hold = parse_hold(&hold)?;
        }
        if let Some(share) = self.brake_share.or(file.share) {
            if !(1..=99).contains(&share) {
                let rule = "1 to 99 percent; to hold nothing back, --brake-hold 0s";
                return Err(invalid("--brake-share", share.to_string(), rule));
            }
            settings.brake_share = share;
        }
        if let Some(min) = self.brake_min.or(file.min) {
            if min == 0 {
                return Err(invalid("--brake-min", "0", "at least 1 instance"));
            }
            settings.brake_min = min;
        }
        Ok(settings)
    }
}

fn parse_hold(text: &str) -> Result<Duration, ConfigError> {
    let hold = humantime::parse_duration(text).map_err(|error| {
        let rule = format!("{error}; a duration looks like 60s or 2m30s");
        invalid("--brake-hold", text, rule)
    })?;
    if hold > HOLD_MAX {
        return Err(invalid("--brake-hold", text, "at most 1h"));
    }
    Ok(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(hold: &str, share: u32, min: u32) -> BrakeArgs {
        BrakeArgs {
            brake_hold: Some(hold.to_owned()),
            brake_share: Some(share),
            brake_min: Some(min),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_defaults() {
        let file = || FileBrake {
            hold: Some("5s".to_owned()),
            share: Some(30),
            min: None,
        };
        let settings = BrakeArgs::default().merge(file()).expect("valid");
        let found = (
            settings.brake_hold,
            settings.brake_share,
            settings.brake_min,
        );
        assert_eq!(found, (Duration::from_secs(5), 30, 3));
        let settings = args("0s", 40, 7).merge(file()).expect("valid");
        let found = (
            settings.brake_hold,
            settings.brake_share,
            settings.brake_min,
        );
        assert_eq!(found, (Duration::ZERO, 40, 7));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_value() {
        for (args, words) in [
            (args("soon", 50, 3), "--brake-hold is \"soon\""),
            (args("61m", 50, 3), "at most 1h"),
            (args("1s", 100, 3), "--brake-hold 0s"),
            (args("1s", 0, 3), "1 to 99"),
            (args("1s", 50, 0), "at least 1"),
        ] {
            let refused = args.merge(FileBrake::default()).expect_err("refused");
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }
}

//! What can be said of an instance when it registers, as flags.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use trimtab_client::registration::RegistrationBuilder;

use crate::arguments::duration;

/// Flags of the commands that register an instance.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstanceFlags {
    /// Unique within the service; one that is kept over restarts keeps what operators set on it
    /// [default: random]
    #[arg(long)]
    pub(crate) id: Option<String>,

    /// The failure domain it is in
    #[arg(long)]
    pub(crate) zone: Option<String>,

    /// Its weight within its group, 1 to 10,000 [default: 100]
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,

    /// What callers can read about it; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// How long it stays registered without renewal, 1s to 10m [default: 15s]
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    ttl: Option<Duration>,
}

/// What the registry takes, so that it can be said before anything begins.
const NAME_BYTES_MAX: usize = 63;
const ID_BYTES_MAX: usize = 64;
const CAPACITY: RangeInclusive<u32> = 1..=10_000;
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

impl InstanceFlags {
    /// With a random id where none is given.
    pub(crate) fn identified(&self) -> Self {
        let mut identified = self.clone();
        let random = || format!("{:016x}", rand::random::<u64>());
        identified.id.get_or_insert_with(random);
        identified
    }

    /// Whether the registry can take an instance like this of `service` and
    /// `group`. It has the last word.
    ///
    /// # Errors
    /// The flag, its value and the rule.
    pub(crate) fn check(&self, service: &str, group: &str) -> Result<(), String> {
        check_name("--service", service, NAME_BYTES_MAX)?;
        check_name("--group", group, NAME_BYTES_MAX)?;
        if let Some(id) = &self.id {
            check_name("--id", id, ID_BYTES_MAX)?;
        }
        if let Some(zone) = self.zone.as_ref().filter(|zone| !zone.is_empty()) {
            check_name("--zone", zone, ID_BYTES_MAX)?;
        }
        if let Some(capacity) = self.capacity.filter(|it| !CAPACITY.contains(it)) {
            return Err(format!("--capacity {capacity} must be 1 to 10000"));
        }
        if let Some(ttl) = self.ttl.filter(|ttl| !TTL.contains(ttl)) {
            return Err(format!(
                "--ttl {} must be 1s to 10m",
                humantime::format_duration(ttl)
            ));
        }
        Ok(())
    }

    /// Says of `instance` what the flags say.
    pub(crate) fn apply(&self, mut instance: RegistrationBuilder) -> RegistrationBuilder {
        if let Some(id) = &self.id {
            instance = instance.id(id);
        }
        if let Some(zone) = &self.zone {
            instance = instance.zone(zone);
        }
        if let Some(capacity) = self.capacity {
            instance = instance.capacity(capacity);
        }
        if let Some(ttl) = self.ttl {
            instance = instance.ttl(ttl);
        }
        for (key, value) in &self.metadata {
            instance = instance.metadata(key, value);
        }
        instance
    }
}

fn check_name(flag: &str, value: &str, bytes_max: usize) -> Result<(), String> {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|it| is_alphanumeric(*it));
    let bytes = value.as_bytes();
    let is_valid = bytes.len() <= bytes_max
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|byte| is_alphanumeric(*byte) || b"._-".contains(byte));
    if is_valid {
        return Ok(());
    }
    Err(format!(
        "{flag} {value:?} must be 1 to {bytes_max} of [a-z0-9._-], \
         starting and ending with a letter or digit"
    ))
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE, for example build=1234"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_pairs() {
        let read = |text| pair(text).map(|(key, value)| format!("{key}:{value}"));
        assert_eq!(read("build=12=34").as_deref(), Ok("build:12=34"));
        assert_eq!(read("empty=").as_deref(), Ok("empty:"));
        assert!(read("=x").is_err());
        assert!(read("build").unwrap_err().contains("\"build\""));
    }

    fn flags() -> InstanceFlags {
        InstanceFlags {
            id: None,
            zone: None,
            capacity: None,
            metadata: Vec::new(),
            ttl: None,
        }
    }

    #[test]
    fn what_the_registry_would_refuse_is_refused() {
        let none = flags();
        assert_eq!(none.check("catalog", "v42"), Ok(()));
        assert!(
            none.check("Catalog", "v42")
                .unwrap_err()
                .contains("--service")
        );
        assert!(
            none.check("catalog", "-v42")
                .unwrap_err()
                .contains("--group")
        );
        assert!(none.check(&"x".repeat(64), "v42").is_err());
        let wrong = |change: fn(&mut InstanceFlags)| {
            let mut flags = flags();
            change(&mut flags);
            flags.check("catalog", "v42").unwrap_err()
        };
        assert!(wrong(|flags| flags.id = Some(String::new())).contains("--id \"\""));
        assert!(wrong(|flags| flags.zone = Some("eu/1".into())).contains("--zone"));
        assert!(wrong(|flags| flags.capacity = Some(10_001)).contains("10001 must be"));
        assert!(wrong(|flags| flags.ttl = Some(Duration::from_millis(999))).contains("999ms"));
    }

    #[test]
    fn each_has_an_id_of_its_own_unless_it_is_given_one() {
        assert_ne!(flags().identified().id, flags().identified().id);
        let named = InstanceFlags {
            id: Some("web-12".into()),
            ..flags()
        };
        assert_eq!(named.identified().id.as_deref(), Some("web-12"));
    }
}

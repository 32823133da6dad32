//! Names, ids and addresses, checked once and valid ever after.

use crate::interner::Shared;
use crate::text::checked_text;

/// The longest service or group name, in bytes: a DNS label's length.
pub const NAME_BYTES_MAX: usize = 63;
/// The longest instance id or zone, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

checked_text!(
    /// The name callers use.
    ServiceName,
    "service",
    |value| check_name(
        value,
        NAME_BYTES_MAX,
        "must be 1 to 63 of [a-z0-9._-], starting and ending with a letter or digit"
    )
);
checked_text!(
    /// The label of one release of a service.
    GroupName,
    "group",
    |value| check_name(
        value,
        NAME_BYTES_MAX,
        "must be 1 to 63 of [a-z0-9._-], starting and ending with a letter or digit"
    )
);
checked_text!(
    /// Names one process, unique within its service.
    InstanceId,
    "instance_id",
    |value| check_name(
        value,
        ID_BYTES_MAX,
        "must be 1 to 64 of [a-z0-9._-], starting and ending with a letter or digit"
    )
);
checked_text!(
    /// A failure domain; may be empty.
    Zone,
    "zone",
    |value: &str| if value.is_empty() {
        Ok(())
    } else {
        check_name(
            value,
            ID_BYTES_MAX,
            "must be empty or 1 to 64 of [a-z0-9._-], starting and ending with a letter or digit",
        )
    }
);
checked_text!(
    /// "host:port" that callers connect to.
    Address,
    "address",
    check_address
);

impl Shared for Zone {
    fn is_shared(&self) -> bool {
        arcstr::ArcStr::strong_count(&self.0).is_none_or(|count| count > 1)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self("".into())
    }
}

fn check_name(value: &str, bytes_max: usize, rule: &'static str) -> Result<(), &'static str> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = value.as_bytes();
    let ends_well = |end: Option<&u8>| end.is_some_and(|&byte| alphanumeric(byte));
    let valid = bytes.len() <= bytes_max
        && ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes
            .iter()
            .all(|&byte| alphanumeric(byte) || b"._-".contains(&byte));
    if valid { Ok(()) } else { Err(rule) }
}

fn check_address(value: &str) -> Result<(), &'static str> {
    if value.len() > ADDRESS_BYTES_MAX {
        return Err("must be at most 255 bytes");
    }
    let Some((host, port)) = value.rsplit_once(':') else {
        return Err("must be host:port");
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("must end with a port from 1 to 65535");
    }
    if let Some(v6) = host.strip_prefix('[') {
        return match v6.strip_suffix(']').map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(_)) => Ok(()),
            _ => Err("must have an IPv6 address between the brackets"),
        };
    }
    if host.contains(':') {
        return Err("must have brackets around an IPv6 address, as in [::1]:80");
    }
    check_host(host)
}

/// An IPv4 address or a host name. What has only digits and dots must be an
/// IPv4 address, so that "10.0.0.256" is an error and not a strange host.
fn check_host(host: &str) -> Result<(), &'static str> {
    const RULE: &str = "must start with an IP address or a host name";
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let valid = if numeric {
        host.parse::<std::net::Ipv4Addr>().is_ok()
    } else {
        host.strip_suffix('.')
            .unwrap_or(host)
            .split('.')
            .all(check_label)
    };
    if valid { Ok(()) } else { Err(RULE) }
}

/// Underscores are not in the standard for host names, but are in use.
fn check_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

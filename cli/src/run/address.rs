//! The address that callers connect to, as it is put together from flags (pure).

use std::fmt;
use std::net::IpAddr;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets.
    host: String,
    port: u16,
}

impl Address {
    /// # Errors
    /// When one of them cannot be part of an address.
    pub(crate) fn new(host: &str, port: u16) -> Result<Self, String> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if port == 0 {
            return Err("port 0 cannot be connected to; give 1 to 65535".to_owned());
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_ip = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || !(is_ip || host.bytes().all(is_name)) {
            return Err(format!("{host:?} is neither an IP address nor a host name"));
        }
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(format!(
                "{host} is where programs listen, not where callers connect to; \
                 give the address of this machine"
            ));
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }

    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':');
        let read = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match read {
            Some((host, port)) if host.starts_with('[') || !host.contains(':') => {
                Self::new(host, port)
            }
            _ => Err(format!("--address {text:?} is not HOST:PORT")),
        }
    }

    /// What is probably not meant: an address of this machine alone, in a
    /// registry for others.
    pub(crate) fn warning(&self, endpoints: &str) -> Option<String> {
        let is_local = |host: &str| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        let host_of = |endpoint: &str| {
            let endpoint = endpoint.trim().trim_start_matches("http://").to_owned();
            let host = endpoint.rsplit_once(':').map(|(host, _)| host.to_owned());
            host.unwrap_or(endpoint)
        };
        let mut elsewhere = endpoints.split(',').map(host_of);
        (is_local(&self.host) && !elsewhere.any(|host| is_local(&host))).then(|| {
            format!(
                "callers on other machines cannot reach {self}: say where they can \
                 with --host or --address"
            )
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_put_together_and_taken_apart() {
        let new = |host, port| Address::new(host, port).map(|address| address.to_string());
        assert_eq!(new("10.0.0.7", 80).as_deref(), Ok("10.0.0.7:80"));
        assert_eq!(new("::1", 80).as_deref(), Ok("[::1]:80"));
        assert_eq!(new("[::1]", 80).as_deref(), Ok("[::1]:80"));
        assert!(new("web-1", 0).unwrap_err().contains("65535"));
        assert!(new("", 80).is_err());
        assert!(new("a b", 80).is_err());
        assert!(new("0.0.0.0", 80).unwrap_err().contains("listen"));
        let parse = |text| Address::parse(text).map(|address| address.to_string());
        assert_eq!(parse("[::1]:80").as_deref(), Ok("[::1]:80"));
        assert_eq!(parse("web-1.example:80").as_deref(), Ok("web-1.example:80"));
        for wrong in ["web-1", "::1:80", "web-1:http", "web-1:70000", ":80"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_in_a_registry_elsewhere_is_warned_of() {
        let local = Address::new("127.0.0.1", 80).unwrap();
        assert_eq!(local.warning("127.0.0.1:7070"), None);
        assert_eq!(local.warning("http://[::1]:7070,10.0.0.1:7070"), None);
        assert!(local.warning("10.0.0.1:7070,10.0.0.2:7070").is_some());
        let other = Address::new("10.0.0.7", 80).unwrap();
        assert_eq!(other.warning("10.0.0.1:7070"), None);
    }
}

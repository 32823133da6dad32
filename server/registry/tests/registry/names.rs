//! What a name, an address, a weight may be, and what is said of one that may not.

use std::collections::BTreeMap;

use trimtab_registry::instance::{Capacity, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::rejection::Invalid;
use trimtab_registry::route::{BasisPoints, Weights};
use trimtab_registry::text::{Actor, Reason, RequestId};

use crate::world::group;

fn fields(invalid: Invalid) -> (String, String) {
    (invalid.field, invalid.value)
}

#[test]
fn names() {
    for good in ["a", "catalog", "a.b-c_d", "0", "v42", &"a".repeat(63)] {
        assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
        assert_eq!(GroupName::parse(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "-a",
        "a-",
        ".a",
        "A",
        "a b",
        "ä",
        "a/b",
        &"a".repeat(64),
    ] {
        let (field, value) = fields(ServiceName::parse(bad).unwrap_err());
        assert_eq!((field.as_str(), value.as_str()), ("service", bad));
        assert_eq!(GroupName::parse(bad).unwrap_err().field, "group");
    }
    assert!(InstanceId::parse(&"a".repeat(64)).is_ok());
    assert!(InstanceId::parse(&"a".repeat(65)).is_err());
    assert!(Zone::parse("").is_ok());
    assert!(Zone::parse("eu-west-1a").is_ok());
    assert!(Zone::parse("EU").is_err());
}

#[test]
fn addresses() {
    let long_host = format!("{}.example", vec!["a"; 100].join("."));
    for good in [
        "127.0.0.1:1",
        "10.0.0.7:65535",
        "[::1]:80",
        "[fe80::1]:80",
        "localhost:8080",
        "web-1.Example.com:443",
        "db_1:5432",
        "example.com.:80",
        "1a.example:80",
        &format!("{long_host}:80"),
    ] {
        assert!(Address::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "localhost",
        ":80",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:+80",
        "localhost:8 0",
        "10.0.0.256:80",
        "1.2.3:80",
        "::1:80",
        "[::1:80",
        "[localhost]:80",
        "a..b:80",
        "-a:80",
        "a b:80",
        "http://a:80",
        &format!("{}:80", "a".repeat(64)),
        &format!("{}:80", "a.".repeat(130)),
    ] {
        let invalid = Address::parse(bad).unwrap_err();
        assert_eq!(invalid.field, "address", "{bad}");
    }
}

#[test]
fn numbers() {
    assert!(Capacity::new(1).is_ok() && Capacity::new(10_000).is_ok());
    assert!(Capacity::new(0).is_err() && Capacity::new(10_001).is_err());
    assert!(Ttl::from_millis(1_000).is_ok() && Ttl::from_millis(600_000).is_ok());
    assert!(Ttl::from_millis(999).is_err() && Ttl::from_millis(600_001).is_err());
    assert!(Ttl::from_millis(u64::MAX).is_err());
    assert!(BasisPoints::new(0).is_err() && BasisPoints::new(10_001).is_err());
    assert!(BasisPoints::new(65_537).is_err());
}

#[test]
fn metadata() {
    let pairs = |count: usize, key: usize, value: usize| {
        let pairs = (0..count).map(|i| (format!("{i:0>key$}"), "v".repeat(value)));
        Metadata::new(pairs.collect::<BTreeMap<_, _>>())
    };
    assert!(pairs(0, 1, 1).is_ok());
    assert!(pairs(32, 64, 64).is_ok());
    assert!(pairs(1, 64, 512).is_ok());
    assert!(pairs(33, 2, 1).is_err());
    assert!(pairs(1, 65, 1).is_err());
    assert!(pairs(1, 1, 513).is_err());
    assert!(pairs(9, 64, 500).is_err(), "4 KiB in all");
    let empty_key = Metadata::new(BTreeMap::from([(String::new(), "v".into())]));
    assert_eq!(empty_key.unwrap_err().field, "metadata");
}

#[test]
fn texts_of_changes() {
    assert!(Actor::parse(&"a".repeat(128)).is_ok());
    assert!(Actor::parse(&"a".repeat(129)).is_err());
    assert!(Reason::parse(&"a".repeat(513)).is_err());
    assert!(RequestId::parse(&"a".repeat(65)).is_err());
    assert!(Reason::parse("Größe: 5 %").is_ok());
    assert!(Reason::parse("a\u{1b}[2J").is_err());
}

#[test]
fn weights() {
    let pairs = |pairs: &[(&str, u32)]| Weights::new(pairs.iter().map(|(n, w)| (group(n), *w)));
    let sorted = pairs(&[("b", 1), ("a", 9_999)]).unwrap();
    assert_eq!(crate::world::show(&sorted), "a=9999 b=1");

    let said = |pairs_: &[(&str, u32)]| pairs(pairs_).unwrap_err().to_string();
    assert_eq!(
        said(&[("a", 5_000), ("b", 4_000)]),
        "weights must sum to 10,000, but is \"a sum of 9000\""
    );
    assert!(said(&[]).contains("must name 1 to 100 groups"));
    assert!(said(&[("a", 5_000), ("a", 5_000)]).contains("each group once"));
    assert!(said(&[("a", 0), ("b", 10_000)]).starts_with("weights[a] must be 1 to 10,000"));
    assert!(said(&[("a", u32::MAX), ("b", 10_001)]).starts_with("weights[a]"));
}

#[test]
fn long_values_are_shown_in_part() {
    let invalid = ServiceName::parse(&"ü".repeat(4_000)).unwrap_err();
    assert!(invalid.value.len() < 120, "{}", invalid.value);
    assert!(invalid.value.ends_with("(8000 bytes)"));
}

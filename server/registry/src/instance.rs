//! One process of one release of a service.

use std::collections::BTreeMap;
use std::fmt;

use arcstr::ArcStr;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize};

use crate::interner::Shared;
use crate::invalid::Invalid;
use crate::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use crate::revision::Revision;

/// The largest capacity.
pub const CAPACITY_MAX: u32 = 10_000;
/// The capacity of an instance that names none.
pub const CAPACITY_DEFAULT: u32 = 100;
/// The shortest TTL, in milliseconds.
pub const TTL_MS_MIN: u64 = 1_000;
/// The longest TTL, in milliseconds.
pub const TTL_MS_MAX: u64 = 600_000;
/// The TTL of an instance that names none, in milliseconds.
pub const TTL_MS_DEFAULT: u64 = 15_000;
/// The most pairs of metadata.
pub const METADATA_PAIRS_MAX: usize = 32;
/// The longest key of metadata, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// The longest value of metadata, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 512;
/// The most bytes that all keys and values have together.
pub const METADATA_BYTES_MAX: usize = 4_096;

/// What may be done with an instance, as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Registered, not yet able to serve.
    Starting,
    /// Serving.
    Ready,
    /// Stopped renewing, or its renewal stream broke.
    Suspect,
    /// Finishes what it has and gets nothing new.
    Draining,
}

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeclaredStatus {
    /// Not yet able to serve.
    Starting,
    /// Able to serve.
    Ready,
    /// About to leave.
    Draining,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Starting => "STARTING",
            Status::Ready => "READY",
            Status::Suspect => "SUSPECT",
            Status::Draining => "DRAINING",
        })
    }
}

/// The weight of an instance within its group: 1 to [`CAPACITY_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Capacity(u32);

impl Capacity {
    /// Checks the range.
    ///
    /// # Errors
    /// Outside of 1 to 10,000.
    pub fn new(capacity: u32) -> Result<Self, Invalid> {
        if (1..=CAPACITY_MAX).contains(&capacity) {
            Ok(Self(capacity))
        } else {
            Err(Invalid::new("capacity", capacity, "must be 1 to 10,000"))
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self(CAPACITY_DEFAULT)
    }
}

impl TryFrom<u32> for Capacity {
    type Error = Invalid;
    fn try_from(capacity: u32) -> Result<Self, Invalid> {
        Self::new(capacity)
    }
}

impl From<Capacity> for u32 {
    fn from(capacity: Capacity) -> u32 {
        capacity.0
    }
}

/// How long a lease lasts without renewal: 1 second to 10 minutes, in whole
/// milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Ttl(u32);

impl Ttl {
    /// Checks the range.
    ///
    /// # Errors
    /// Outside of 1 second to 10 minutes.
    pub fn from_millis(millis: u64) -> Result<Self, Invalid> {
        match u32::try_from(millis) {
            Ok(short) if (TTL_MS_MIN..=TTL_MS_MAX).contains(&millis) => Ok(Self(short)),
            _ => Err(Invalid::new(
                "ttl",
                format_args!("{millis} ms"),
                "must be 1 second to 10 minutes",
            )),
        }
    }

    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::from(self.0)
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self(TTL_MS_DEFAULT as u32)
    }
}

impl TryFrom<u64> for Ttl {
    type Error = Invalid;
    fn try_from(millis: u64) -> Result<Self, Invalid> {
        Self::from_millis(millis)
    }
}

impl From<Ttl> for u64 {
    fn from(ttl: Ttl) -> u64 {
        ttl.as_millis()
    }
}

/// What an instance tells callers about itself, as pairs in the order of
/// their keys.
///
/// One piece of text: before each key and each value stands the character
/// whose number is its length in bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Metadata(ArcStr);

impl Metadata {
    /// Checks sizes and counts.
    ///
    /// # Errors
    /// More than 32 pairs, a key that is empty or longer than 64 bytes, a value
    /// longer than 512 bytes, or more than 4 KiB in all.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        check_metadata(&pairs)?;
        let mut text = String::new();
        for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
            // Every length that is allowed is a character's number.
            let length = u32::try_from(part.len()).ok().and_then(char::from_u32);
            text.extend(length);
            text.push_str(part);
        }
        Ok(Self(text.into()))
    }

    /// The pairs, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.0.as_str();
        let mut next = move || {
            let mut characters = rest.chars();
            let length = characters.next()? as usize;
            let (part, after) = characters.as_str().split_at_checked(length)?;
            rest = after;
            Some(part)
        };
        std::iter::from_fn(move || Some((next()?, next()?)))
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Shared for Metadata {
    fn is_shared(&self) -> bool {
        ArcStr::strong_count(&self.0).is_none_or(|count| count > 1)
    }
}

impl Serialize for Metadata {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl TryFrom<BTreeMap<String, String>> for Metadata {
    type Error = Invalid;
    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        Self::new(pairs)
    }
}

/// What an instance says when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Unique within the service.
    pub id: InstanceId,
    /// The release it runs.
    pub group: GroupName,
    /// Where callers connect to.
    pub address: Address,
    /// Its failure domain.
    pub zone: Zone,
    /// Its weight within the group.
    pub capacity: Capacity,
    /// What else callers may want to know.
    pub metadata: Metadata,
    /// Whether it can serve.
    pub status: DeclaredStatus,
}

/// A registered instance: what it said, what operators set, what its lease
/// is. Shared by the registry and all views of it, never changed in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What it said when it registered, and its latest word on its status.
    pub spec: InstanceSpec,
    /// The revision of the registration; names the lease.
    pub lease: Revision,
    /// How long the lease lasts without renewal.
    pub ttl: Ttl,
    /// Since when it is suspected to be dead.
    pub suspect_since: Option<Revision>,
    /// An operator holds it in DRAINING.
    pub held: bool,
    /// The capacity an operator set.
    pub capacity_override: Option<Capacity>,
}

impl Instance {
    /// Unique within the service.
    pub fn id(&self) -> &InstanceId {
        &self.spec.id
    }

    /// The release it runs.
    pub fn group(&self) -> &GroupName {
        &self.spec.group
    }

    /// What callers may do with it.
    pub fn status(&self) -> Status {
        match self.spec.status {
            _ if self.held => Status::Draining,
            DeclaredStatus::Draining => Status::Draining,
            _ if self.suspect_since.is_some() => Status::Suspect,
            DeclaredStatus::Starting => Status::Starting,
            DeclaredStatus::Ready => Status::Ready,
        }
    }

    /// The capacity in effect: an operator's, else its own.
    pub fn capacity(&self) -> u32 {
        self.capacity_override.unwrap_or(self.spec.capacity).get()
    }

    /// Names its lease.
    pub fn lease_key(&self, service: &ServiceName) -> LeaseKey {
        LeaseKey {
            service: service.clone(),
            instance: self.spec.id.clone(),
            lease: self.lease,
        }
    }
}

/// Names one lease of one instance. Copies share their text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The revision of the registration.
    pub lease: Revision,
}

fn check_metadata(pairs: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let invalid = |value: &dyn fmt::Display, rule| Err(Invalid::new("metadata", value, rule));
    if pairs.len() > METADATA_PAIRS_MAX {
        let value = format!("{} pairs", pairs.len());
        return invalid(&value, "must have at most 32 pairs");
    }
    for (key, value) in pairs {
        if key.is_empty() || key.len() > METADATA_KEY_BYTES_MAX {
            return invalid(key, "must have keys of 1 to 64 bytes");
        }
        if value.len() > METADATA_VALUE_BYTES_MAX {
            let value = format!("{key}: {} bytes", value.len());
            return invalid(&value, "must have values of at most 512 bytes");
        }
    }
    let total: usize = pairs
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if total > METADATA_BYTES_MAX {
        let value = format!("{total} bytes");
        return invalid(&value, "must have at most 4,096 bytes in all");
    }
    Ok(())
}

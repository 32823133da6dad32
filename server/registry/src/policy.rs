//! What callers do beyond the weights of a route: valid by construction, obeyed by callers alone.

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// How many milliseconds there are in a second, and in an hour.
const SECOND_MS: u32 = 1_000;
const HOUR_MS: u32 = 3_600 * SECOND_MS;

/// How many instances of each group a caller keeps connections to; 0: all.
/// A larger subset than half of the largest service would save nothing.
pub type SubsetSize = Count<0, 10_000>;
/// Over what time a group comes up to its share; 0: at once. No longer than
/// an hour, so that a change of weights is over while somebody looks.
pub type WarmUp = Span<0, HOUR_MS>;
/// How many failures one after another eject an instance.
pub type ConsecutiveFailures = Count<1, 1_000>;
/// How much of a group may be ejected at a time, in percent.
pub type EjectedPercent = Count<1, 100>;
/// How long the first ejection lasts.
pub type BaseEjection = Span<1, HOUR_MS>;

/// What callers do beyond the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// Callers may use groups that never carried traffic when nothing else is
    /// left.
    pub fall_back_to_dark: bool,
    /// How a caller chooses within a group.
    pub balancing: Balancing,
    /// Instances of the caller's own zone come first.
    pub prefer_zone: bool,
    /// How many instances of each group a caller connects to.
    pub subset_size: SubsetSize,
    /// Over what time a group comes up to its share.
    pub warm_up: WarmUp,
    /// When a caller stops calling an instance.
    pub outliers: OutlierPolicy,
}

/// How a caller chooses among the instances of the group whose turn it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balancing {
    /// The less loaded of two.
    #[default]
    LeastLoaded,
    /// One after another.
    RoundRobin,
    /// By a key of the call.
    ConsistentHash,
}

/// When a caller stops calling an instance that fails it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierPolicy {
    /// Never.
    pub disabled: bool,
    /// After so many failures one after another.
    pub consecutive_failures: ConsecutiveFailures,
    /// At most so much of a group at a time, but always one.
    pub max_ejected_percent: EjectedPercent,
    /// For how long at first.
    pub base_ejection: BaseEjection,
}

/// Envoy's defaults, which are tried.
impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            disabled: false,
            consecutive_failures: Count(5),
            max_ejected_percent: Count(10),
            base_ejection: Span(30 * SECOND_MS),
        }
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// Checks the value of a `field`.
    ///
    /// # Errors
    /// Less than `MIN` or more than `MAX`.
    pub fn new(field: &str, count: u32) -> Result<Self, Invalid> {
        if (MIN..=MAX).contains(&count) {
            return Ok(Self(count));
        }
        Err(Invalid::new(
            field,
            count,
            format!("must be {MIN} to {MAX}"),
        ))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The least there may be.
impl<const MIN: u32, const MAX: u32> Default for Count<MIN, MAX> {
    fn default() -> Self {
        Self(MIN)
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<u32> for Count<MIN, MAX> {
    type Error = Invalid;
    fn try_from(count: u32) -> Result<Self, Invalid> {
        Self::new("policy", count)
    }
}

impl<const MIN: u32, const MAX: u32> From<Count<MIN, MAX>> for u32 {
    fn from(count: Count<MIN, MAX>) -> u32 {
        count.0
    }
}

/// A time from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Span<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Span<MIN, MAX> {
    /// Checks the value of a `field`.
    ///
    /// # Errors
    /// Less than `MIN` or more than `MAX` milliseconds.
    pub fn from_millis(field: &str, millis: u64) -> Result<Self, Invalid> {
        match u32::try_from(millis) {
            Ok(short) if (MIN..=MAX).contains(&short) => Ok(Self(short)),
            _ => Err(Invalid::new(
                field,
                in_words(millis),
                format!(
                    "must be {} to {}",
                    in_words(u64::from(MIN)),
                    in_words(u64::from(MAX))
                ),
            )),
        }
    }

    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::from(self.0)
    }
}

/// The shortest there may be.
impl<const MIN: u32, const MAX: u32> Default for Span<MIN, MAX> {
    fn default() -> Self {
        Self(MIN)
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<u32> for Span<MIN, MAX> {
    type Error = Invalid;
    fn try_from(millis: u32) -> Result<Self, Invalid> {
        Self::from_millis("policy", u64::from(millis))
    }
}

impl<const MIN: u32, const MAX: u32> From<Span<MIN, MAX>> for u32 {
    fn from(span: Span<MIN, MAX>) -> u32 {
        span.0
    }
}

/// In the largest unit that says it exactly.
fn in_words(millis: u64) -> String {
    let units = [(u64::from(HOUR_MS), "h"), (u64::from(SECOND_MS), "s")];
    let exact = units.iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    match exact {
        Some((unit, name)) if millis > 0 => format!("{} {name}", millis / unit),
        _ => format!("{millis} ms"),
    }
}

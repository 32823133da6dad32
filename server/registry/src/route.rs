//! The weights over a service's groups: what is valid, and their arithmetic.

use serde::{Deserialize, Serialize};

use crate::bounds::GROUPS_MAX;
use crate::invalid::Invalid;
use crate::name::GroupName;
use crate::policy::RoutePolicy;
use crate::revision::Revision;

/// All of the traffic: weights are parts per 10,000.
pub const WHOLE: u32 = 10_000;

/// A share of the traffic in parts per 10,000: 1 to [`WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Checks the range.
    ///
    /// # Errors
    /// Outside of 1 to 10,000.
    pub fn new(basis_points: u32) -> Result<Self, Invalid> {
        match u16::try_from(basis_points) {
            Ok(short) if (1..=WHOLE).contains(&basis_points) => Ok(Self(short)),
            _ => Err(Invalid::new(
                "basis_points",
                basis_points,
                "must be 1 to 10,000",
            )),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }
}

impl TryFrom<u32> for BasisPoints {
    type Error = Invalid;
    fn try_from(basis_points: u32) -> Result<Self, Invalid> {
        Self::new(basis_points)
    }
}

impl From<BasisPoints> for u32 {
    fn from(basis_points: BasisPoints) -> u32 {
        basis_points.get()
    }
}

/// Shares of groups, sorted by name, which sum to [`WHOLE`]. A group that is
/// not listed has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(GroupName, BasisPoints)>")]
pub struct Weights(Vec<(GroupName, BasisPoints)>);

impl Weights {
    /// Sorts and checks.
    ///
    /// # Errors
    /// No group or more than 100, a group named twice, a weight out of range,
    /// or a sum other than 10,000.
    pub fn new(weights: impl IntoIterator<Item = (GroupName, u32)>) -> Result<Self, Invalid> {
        let mut checked = Vec::new();
        for (group, weight) in weights {
            let weight = BasisPoints::new(weight).map_err(|e| e.at(format!("weights[{group}]")))?;
            checked.push((group, weight));
        }
        Self::try_from(checked)
    }

    /// All to one group.
    pub fn whole(group: GroupName) -> Self {
        Self(vec![(group, BasisPoints(WHOLE as u16))])
    }

    /// The group's share in parts per 10,000; 0 when it is not listed.
    pub fn get(&self, group: &GroupName) -> u32 {
        match self.0.binary_search_by(|(name, _)| name.cmp(group)) {
            Ok(at) => self.0[at].1.get(),
            Err(_) => 0,
        }
    }

    /// The one group that has all, if there is one.
    pub fn only(&self) -> Option<&GroupName> {
        match self.0.as_slice() {
            [(group, _)] => Some(group),
            _ => None,
        }
    }

    /// These weights with another share for one group. The others share the
    /// rest in the proportion they have, to the nearest basis point by the
    /// largest remainder (ties go to the first by name); one whose part comes
    /// to nothing loses its weight. None when there is a rest and no other
    /// group to take it.
    #[must_use]
    pub fn with_share(&self, group: &GroupName, share: BasisPoints) -> Option<Self> {
        let mut others: Vec<(GroupName, u32)> = self
            .iter()
            .filter(|(name, _)| *name != group)
            .map(|(name, weight)| (name.clone(), weight))
            .collect();
        let rest = WHOLE - share.get();
        if others.is_empty() && rest > 0 {
            return None;
        }
        apportion(&mut others, rest);
        let mut weights: Vec<(GroupName, BasisPoints)> = others
            .into_iter()
            .filter_map(|(name, weight)| Some((name, BasisPoints::new(weight).ok()?)))
            .collect();
        weights.push((group.clone(), share));
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Self(weights))
    }

    /// The groups with weight and their shares in parts per 10,000, sorted by
    /// name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&GroupName, u32)> {
        self.0.iter().map(|(group, weight)| (group, weight.get()))
    }
}

impl TryFrom<Vec<(GroupName, BasisPoints)>> for Weights {
    type Error = Invalid;
    fn try_from(mut weights: Vec<(GroupName, BasisPoints)>) -> Result<Self, Invalid> {
        let count = weights.len();
        if count == 0 || count > GROUPS_MAX {
            let value = format_args!("{count} groups");
            return Err(Invalid::new("weights", value, "must name 1 to 100 groups"));
        }
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(twice) = weights.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let rule = "must name each group once";
            return Err(Invalid::new("weights", &twice[0].0, rule));
        }
        let sum: u32 = weights.iter().map(|(_, weight)| weight.get()).sum();
        if sum != WHOLE {
            let value = format_args!("a sum of {sum}");
            return Err(Invalid::new("weights", value, "must sum to 10,000"));
        }
        Ok(Self(weights))
    }
}

/// The weights over a service's groups. Equal routes have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Who gets which share.
    pub weights: Weights,
    /// What callers do beyond the weights.
    pub policy: RoutePolicy,
    /// What callers mix into the hash of a call's key: the change by which
    /// the service left a single group. Kept while several groups have
    /// weight; 0 while one has all.
    pub salt: Revision,
}

impl Route {
    /// The route of a service whose first group has come.
    pub(crate) fn first(group: GroupName) -> Self {
        Self {
            weights: Weights::whole(group),
            policy: RoutePolicy::default(),
            salt: Revision::default(),
        }
    }

    /// What a change at `at` to these weights and this policy leads to.
    pub(crate) fn next(&self, at: Revision, weights: Weights, policy: RoutePolicy) -> Self {
        let salt = match (self.weights.only(), weights.only()) {
            (_, Some(_)) => Revision::default(),
            (Some(_), None) => at,
            (None, None) => self.salt,
        };
        Self {
            weights,
            policy,
            salt,
        }
    }

    /// Whether it has a salt exactly when there is a group to draw.
    pub(crate) fn is_salted_right(&self) -> bool {
        self.weights.only().is_some() == (self.salt == Revision::default())
    }

    /// Whether callers are asked for the same, but for the salt.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        self.weights == other.weights && self.policy == other.policy
    }
}

/// A group's part, by ready capacity, of what it and the others do together:
/// to the nearest basis point, at least one, and at least one for the others.
pub(crate) fn even_share(ready_capacity: u64, others: u64) -> BasisPoints {
    let total = u128::from(ready_capacity) + u128::from(others);
    let doubled = u128::from(ready_capacity) * u128::from(WHOLE) * 2;
    let nearest = (doubled + total).checked_div(2 * total).unwrap_or(0);
    BasisPoints(nearest.clamp(1, u128::from(WHOLE - 1)) as u16)
}

/// Scales weights so that they sum to `rest` (Hamilton's method: floors, then
/// one more for those that lost most by it).
fn apportion(weights: &mut [(GroupName, u32)], rest: u32) {
    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if sum == 0 {
        return;
    }
    let mut by_remainder = Vec::with_capacity(weights.len());
    let mut left = rest;
    for (at, (_, weight)) in weights.iter_mut().enumerate() {
        let quota = u64::from(*weight) * u64::from(rest);
        by_remainder.push((quota % sum, at));
        *weight = (quota / sum) as u32;
        left -= *weight;
    }
    // Stable, so that equal remainders keep the order of names.
    by_remainder.sort_by_key(|(remainder, _)| std::cmp::Reverse(*remainder));
    for (_, at) in by_remainder.into_iter().take(left as usize) {
        weights[at].1 += 1;
    }
}

//! Which groups carry the calls: from what the route wants to the last resort.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::shares::TOTAL_MAX;
use crate::view::GroupState;
use crate::vitals::Vitals;

/// One divided by the part of a group's connected capacity below which its
/// preferred instances are not left alone with its calls: a half, as the panic
/// threshold of Envoy. Nobody gets more than twice its calls for it that others
/// are doubted.
const PANIC_BELOW: u64 = 2;

/// What is known of the connection to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// The first attempt has not ended.
    Untried,
    /// Connected.
    Up,
    /// The last attempt failed, or the connection broke.
    Down,
}

/// An instance that may take calls: READY or SUSPECT.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) target: T,
    pub(crate) vitals: Arc<Vitals>,
    /// A hash of its id: the same in every process.
    pub(crate) rank: u64,
    pub(crate) zone: Arc<str>,
    pub(crate) capacity: u32,
    /// READY, not SUSPECT.
    pub(crate) ready: bool,
    /// Left out by this process for failing calls.
    pub(crate) ejected: bool,
    pub(crate) link: LinkState,
}

/// A group and those of its instances that may take calls.
#[derive(Debug)]
pub(crate) struct CandidateGroup<T> {
    pub(crate) name: Arc<str>,
    pub(crate) state: GroupState,
    /// Basis points.
    pub(crate) weight: u32,
    pub(crate) candidates: Vec<Candidate<T>>,
}

/// Which groups carry the calls, and which should but cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) level: Level,
    /// Weighted groups without a connected instance, whose share others take.
    pub(crate) uncovered: Vec<Arc<str>>,
    /// Groups that carry calls and have so many instances ejected or SUSPECT
    /// that these take calls as well.
    pub(crate) in_panic: Vec<Arc<str>>,
}

/// From what the route wants to the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Groups with weight.
    Weighted,
    /// Groups that carried traffic before.
    Standby,
    /// Groups that never did, where the route's policy allows it.
    Dark,
    /// Groups being torn down.
    Retiring,
    /// There is nothing to call.
    Nothing,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Untried => "connecting",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Weighted => "calls go to groups with weight",
            Self::Standby => "calls go to groups that carried traffic before",
            Self::Dark => "calls go to groups that never carried traffic",
            Self::Retiring => "calls go to groups that are being torn down",
            Self::Nothing => "there is nothing to call",
        })
    }
}

// === impl Coverage ===

impl Coverage {
    /// Of those who know nobody.
    pub(crate) fn nothing() -> Self {
        Self {
            level: Level::Nothing,
            uncovered: Vec::new(),
            in_panic: Vec::new(),
        }
    }

    pub(crate) fn of<T>(groups: &[CandidateGroup<T>], fall_back_to_dark: bool) -> Self {
        let level = choose_level(groups, fall_back_to_dark);
        let uncovered = groups
            .iter()
            .filter(|group| group.weight > 0 && !group.can_take_calls());
        let mut coverage = Self {
            level,
            uncovered: uncovered.map(|group| Arc::clone(&group.name)).collect(),
            in_panic: Vec::new(),
        };
        let in_panic = groups
            .iter()
            .filter(|group| coverage.has(group) && group.is_in_panic());
        coverage.in_panic = in_panic.map(|group| Arc::clone(&group.name)).collect();
        coverage
    }

    /// Whether the group carries calls.
    pub(crate) fn has<T>(&self, group: &CandidateGroup<T>) -> bool {
        group.level() == self.level && group.can_take_calls()
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.level != Level::Weighted || !self.uncovered.is_empty()
    }
}

// === impl CandidateGroup ===

impl<T> CandidateGroup<T> {
    /// A group with a connection still in its first attempt is counted in, so
    /// that the first of many connections does not get all calls. An attempt
    /// is short.
    pub(crate) fn can_take_calls(&self) -> bool {
        self.candidates
            .iter()
            .any(|c| matches!(c.link, LinkState::Up | LinkState::Untried))
    }

    pub(crate) fn level(&self) -> Level {
        match self.state {
            _ if self.weight > 0 => Level::Weighted,
            GroupState::Retiring => Level::Retiring,
            GroupState::Dark => Level::Dark,
            GroupState::Standby | GroupState::Active => Level::Standby,
        }
    }

    /// There are instances to prefer, and they have less than half of the
    /// capacity that is connected: the rest is called as well, as they would
    /// not stand all the calls, and so many are no exceptions.
    pub(crate) fn is_in_panic(&self) -> bool {
        let connected = || self.candidates.iter().filter(|c| c.link == LinkState::Up);
        let all: u64 = connected().map(Candidate::weight).sum();
        let preferred = connected().filter(|c| c.is_preferred());
        let preferred: u64 = preferred.map(Candidate::weight).sum();
        connected().any(|c| c.ready) && preferred * PANIC_BELOW < all
    }

    /// Those who take the group's calls now, with their positions among all:
    /// of the connected ones those that are READY and not ejected, if these
    /// are enough; all, if not.
    pub(crate) fn into_members(self) -> Vec<(usize, Candidate<T>)> {
        let in_panic = self.is_in_panic();
        let any_ready = self.candidates.iter().any(Candidate::is_sound);
        let all = in_panic || !any_ready;
        let takes_calls = |c: &Candidate<T>| c.link == LinkState::Up && (all || c.is_preferred());
        let candidates = self.candidates.into_iter().enumerate();
        candidates.filter(|(_, c)| takes_calls(c)).collect()
    }

    /// Where it is registered.
    pub(crate) fn zones(&self) -> BTreeSet<Arc<str>> {
        self.candidates
            .iter()
            .map(|c| Arc::clone(&c.zone))
            .collect()
    }

    fn capacity(&self) -> u64 {
        let capacities = self.candidates.iter().map(|c| u64::from(c.capacity));
        capacities.sum::<u64>().max(1)
    }
}

impl<T> Candidate<T> {
    /// READY and connected.
    fn is_sound(&self) -> bool {
        self.ready && self.link == LinkState::Up
    }

    /// Nobody doubts it.
    fn is_preferred(&self) -> bool {
        self.is_sound() && !self.ejected
    }

    fn weight(&self) -> u64 {
        u64::from(self.capacity.max(1))
    }
}

fn choose_level<T>(groups: &[CandidateGroup<T>], fall_back_to_dark: bool) -> Level {
    let any = |level| {
        groups
            .iter()
            .any(|g| g.level() == level && g.can_take_calls())
    };
    [
        Level::Weighted,
        Level::Standby,
        Level::Dark,
        Level::Retiring,
    ]
    .into_iter()
    .filter(|level| *level != Level::Dark || fall_back_to_dark)
    .find(|level| any(*level))
    .unwrap_or(Level::Nothing)
}

/// Where no weights say otherwise, each group gets what it can carry.
pub(crate) fn shares_by_capacity<T>(groups: &[CandidateGroup<T>]) -> Vec<u32> {
    let capacities: Vec<u64> = groups.iter().map(CandidateGroup::capacity).collect();
    let total = capacities.iter().sum::<u64>().max(1);
    let parts = u64::from(TOTAL_MAX).saturating_sub(groups.len() as u64);
    capacities
        .iter()
        .map(|capacity| (capacity * parts / total).max(1) as u32)
        .collect()
}

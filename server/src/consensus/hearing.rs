//! Whom a replica has heard of late, counted in ticks.

use std::collections::{BTreeMap, BTreeSet};

/// When each member was last heard of.
#[derive(Debug)]
pub(super) struct Hearing {
    now: u64,
    /// Ticks of silence after which a member counts as not heard of.
    patience: u64,
    heard: BTreeMap<u64, u64>,
    /// Messages to these were lost, and nothing was heard of them since.
    lost: BTreeSet<u64>,
}

impl Hearing {
    /// Nobody yet. A member may be silent for twice `election_ticks`, as long
    /// as the slowest voter waits before it calls an election.
    pub(super) fn new(election_ticks: usize) -> Self {
        Self {
            now: 0,
            patience: 2 * election_ticks as u64,
            heard: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    pub(super) fn hear(&mut self, member: u64) {
        self.heard.insert(member, self.now);
        self.lost.remove(&member);
    }

    /// A message to it was lost.
    pub(super) fn lose(&mut self, member: u64) {
        self.lost.insert(member);
    }

    /// Whether it was heard of lately, and no message to it was lost since.
    pub(super) fn reaches(&self, member: u64) -> bool {
        self.hears(member) && !self.lost.contains(&member)
    }

    /// Whether it was heard of lately.
    pub(super) fn hears(&self, member: u64) -> bool {
        let when = self.heard.get(&member);
        when.is_some_and(|when| self.now - when <= self.patience)
    }

    /// Forgets all but these.
    pub(super) fn retain(&mut self, is_member: impl Fn(u64) -> bool) {
        self.heard.retain(|member, _| is_member(*member));
        self.lost.retain(|member| is_member(*member));
    }
}

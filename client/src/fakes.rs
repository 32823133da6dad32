//! Groups of made-up instances, for tests of what is chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::continuity::Continuity;
use crate::coverage::{Candidate, CandidateGroup, LinkState};
use crate::latency::Moment;
use crate::picker::{Picker, Rules};
use crate::policy::Balancing;
use crate::view::GroupState;
use crate::vitals::Vitals;

#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) group: &'static str,
    pub(crate) number: usize,
    pub(crate) vitals: Arc<Vitals>,
}

pub(crate) fn candidate(group: &'static str, number: usize, link: LinkState) -> Candidate<Fake> {
    let vitals = Arc::new(Vitals::new());
    vitals.went(link);
    Candidate {
        vitals: Arc::clone(&vitals),
        rank: xxh3_64(&number.to_le_bytes()),
        zone: "".into(),
        target: Fake {
            group,
            number,
            vitals,
        },
        capacity: 100,
        ready: true,
        ejected: false,
        link,
    }
}

pub(crate) fn group(
    name: &'static str,
    state: GroupState,
    weight: u32,
    links: &[LinkState],
) -> CandidateGroup<Fake> {
    CandidateGroup {
        name: name.into(),
        state,
        weight,
        candidates: links
            .iter()
            .enumerate()
            .map(|(number, link)| candidate(name, number, *link))
            .collect(),
    }
}

pub(crate) fn rng() -> SmallRng {
    SmallRng::seed_from_u64(11)
}

pub(crate) fn build(groups: Vec<CandidateGroup<Fake>>) -> Picker<Fake> {
    build_with(groups, false, &mut Continuity::default(), &mut rng())
}

pub(crate) fn build_with(
    groups: Vec<CandidateGroup<Fake>>,
    fall_back_to_dark: bool,
    continuity: &mut Continuity,
    rng: &mut SmallRng,
) -> Picker<Fake> {
    let rules = Rules {
        fall_back_to_dark,
        ..rules(Balancing::LeastLoaded)
    };
    build_by(groups, &rules, continuity, rng)
}

pub(crate) fn build_by(
    groups: Vec<CandidateGroup<Fake>>,
    rules: &Rules<'_>,
    continuity: &mut Continuity,
    rng: &mut SmallRng,
) -> Picker<Fake> {
    Picker::build(groups, rules, continuity, Instant::now(), rng)
}

pub(crate) fn rules(balancing: Balancing) -> Rules<'static> {
    Rules {
        fall_back_to_dark: false,
        balancing,
        zone: None,
    }
}

/// Some time.
pub(crate) fn moment() -> Moment {
    let now = Instant::now();
    Moment::new(now, now)
}

/// How many of `calls` each group got.
pub(crate) fn counts(picker: &Picker<Fake>, calls: usize) -> BTreeMap<&'static str, usize> {
    let mut rng = rng();
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        let group = picker.draw().unwrap();
        let target = picker.choose(group, None, |_| true, &mut rng).unwrap();
        assert!(target.vitals.is_connected());
        *counts.entry(target.group).or_default() += 1;
    }
    counts
}

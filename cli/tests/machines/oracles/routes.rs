//! Changes that were acknowledged are in the history, as they were acknowledged.

use std::collections::BTreeMap;

use trimtab_tests::history::Answered;

use crate::oracles::{Broken, History, weights};
use crate::parts::{SERVICE, route_text};
use crate::record::Event;

/// Which route every view had.
pub(super) struct Routes {
    by_revision: BTreeMap<u64, String>,
    /// From here on no change is missing: the registry forgets older ones.
    complete_from: u64,
}

impl Routes {
    pub(super) fn of(history: &History) -> Self {
        let changes = history.routes.as_array().into_iter().flatten();
        let mut by_revision: BTreeMap<u64, String> = changes
            .filter_map(|change| Some((change["revision"].as_u64()?, weights(&change["after"])?)))
            .collect();
        let complete_from = by_revision.keys().next().copied().unwrap_or(u64::MAX);
        for event in &history.reader {
            if let Event::Shown(shown) = event {
                let route = by_revision.entry(shown.revision);
                route.or_insert_with(|| route_text(&shown.weights));
            }
        }
        Self {
            by_revision,
            complete_from,
        }
    }

    /// `None` when it is not known.
    pub(super) fn at(&self, revision: u64) -> Option<&String> {
        if revision < self.complete_from {
            return self.by_revision.get(&revision);
        }
        let (_, route) = self.by_revision.range(..=revision).next_back()?;
        Some(route)
    }
}

pub(super) fn check(history: &History, broken: &mut Broken) {
    let routes = Routes::of(history);
    for event in history.scripts.values().flatten() {
        let Event::Asked(operation) = event else {
            continue;
        };
        let Some(Answered::Changed(revision, told)) = &operation.answer else {
            continue;
        };
        let kept = routes.by_revision.get(revision);
        let was_told = told.get(SERVICE).map(|told| &told.route);
        if *revision >= routes.complete_from && kept != was_told {
            broken.tell(
                "acknowledged changes are kept",
                format!("{operation:?} is in the history as {kept:?}"),
            );
        }
    }
}

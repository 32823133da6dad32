//! Changes that were acknowledged are in the history, as they were acknowledged.

use std::collections::BTreeMap;

use trimtab_tests::history::Answered;

use crate::oracles::{Broken, History, weights};
use crate::parts::SERVICE;
use crate::record::Event;

/// Route by revision, as far back as the registry remembers.
pub(super) fn by_revision(history: &History) -> BTreeMap<u64, String> {
    let told = history.routes.as_array().into_iter().flatten();
    let mut routes: BTreeMap<u64, String> = told
        .filter_map(|change| Some((change["revision"].as_u64()?, weights(&change["after"])?)))
        .collect();
    // Where it forgot nothing, the first is the start.
    routes.insert(history.start.revision, history.start.route.clone());
    routes
}

pub(super) fn check(history: &History, broken: &mut Broken) {
    let routes = by_revision(history);
    let oldest = history
        .routes
        .as_array()
        .and_then(|all| all.last()?["revision"].as_u64());
    for event in history.scripts.values().flatten() {
        let Event::Asked(operation) = event else {
            continue;
        };
        let Some(Answered::Changed(revision, told)) = &operation.answer else {
            continue;
        };
        let kept = routes.get(revision);
        let was_told = told.get(SERVICE).map(|told| &told.route);
        if Some(*revision) >= oldest && kept != was_told {
            broken.tell(
                "acknowledged changes are kept",
                format!("{operation:?} is in the history as {kept:?}"),
            );
        }
    }
}

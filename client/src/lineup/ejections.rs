//! Whom a lineup leaves out because calls to them fail, and takes back; how its instances stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use crate::coverage::{Coverage, LinkState};
use crate::endpoint::Connection;
use crate::lineup::Lineup;
use crate::meter::Standings;
use crate::outlier::{Change, Reason, Subject, Verdict};
use crate::record::Standing;
use crate::view::{Group, InstanceStatus};

impl<L: Connection> Lineup<L> {
    /// Judges by what calls came to. Whether a picker would differ.
    pub(crate) fn judge(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let endpoints = self.endpoints.values();
        let subjects: Vec<Subject<'_>> = endpoints
            .map(|endpoint| Subject {
                id: &endpoint.id,
                group: &endpoint.group,
                record: endpoint.link.record(),
                counts: endpoint.status == InstanceStatus::Ready
                    && endpoint.link.state() == LinkState::Up,
            })
            .collect();
        let policy = &self.view.policy.outliers;
        let changes = self.outliers.judge(now, policy, &subjects, rng);
        for change in &changes {
            tell(&self.service, change);
            if let Verdict::Ejected { reason, .. } = change.what {
                self.meter.ejected(&change.group, reason);
            }
        }
        !changes.is_empty()
    }

    /// Says to the metrics how the instances stand that a picker was built of.
    pub(super) fn measure(&mut self, coverage: &Coverage) {
        let mut groups: BTreeMap<Arc<str>, Standings> = BTreeMap::new();
        let mut uncovered = 0;
        for group in &self.view.groups {
            let standings = groups.entry(Arc::clone(&group.name)).or_default();
            standings.in_panic = coverage.in_panic.contains(&group.name);
            if coverage.uncovered.contains(&group.name) {
                uncovered = group.weight.saturating_add(uncovered);
            }
        }
        for endpoint in self.endpoints.values() {
            let standings = groups.entry(Arc::clone(&endpoint.group)).or_default();
            match endpoint.link.state() {
                LinkState::Up => standings.up += 1,
                LinkState::Untried => standings.connecting += 1,
                LinkState::Down => standings.down += 1,
            }
            standings.ejected += usize::from(endpoint.link.is_ejected());
        }
        self.meter.follows(self.view.revision, uncovered, groups);
    }

    /// Whether one of the group's instances is to have less than its share.
    pub(super) fn has_probation(&self, group: &Group) -> bool {
        group.instances.iter().any(|instance| {
            let endpoint = self.endpoints.get(&instance.id);
            endpoint.is_some_and(|it| it.link.record().standing() == Standing::Probation)
        })
    }
}

fn tell(service: &str, change: &Change) {
    let (group, instance) = (&*change.group, &*change.id);
    match change.what {
        Verdict::Ejected { reason, lasts } => {
            let why = match reason {
                Reason::Run(failures) => format!("{failures} calls failed one after another"),
                Reason::Rate { own, mean } => format!(
                    "{:.1} % of its calls succeeded, of its group {:.1} %",
                    own * 100.0,
                    mean * 100.0
                ),
            };
            tracing::warn!(service, group, instance, ?lasts, why, "instance left out");
        }
        Verdict::Returned => {
            tracing::info!(service, group, instance, "instance back, on probation");
        }
        Verdict::Cleared => tracing::info!(service, group, instance, "instance back in full"),
    }
}

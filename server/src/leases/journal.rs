//! What became of leases, gathered to a few lines for the log: once, and never one for each of thousands.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;

use super::brake::{Brake, Scope};

/// Between two entries: what happens within it is one line for each service.
const EVERY: Duration = Duration::from_secs(1);

/// Services with a line of their own in one entry, and brakes; the others are
/// counted together.
const LINES_MAX: usize = 8;

/// Instances named in one line, so that there is one to look at.
const NAMED_MAX: usize = 3;

/// What the log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Leases of one service changed their state.
    Changed {
        /// The service.
        service: ServiceName,
        /// How many.
        changes: Changes,
        /// Some of the instances.
        named: String,
    },
    /// So did leases of so many services more.
    ChangedElsewhere {
        /// The services.
        services: usize,
        /// How many leases, over all of them.
        changes: Changes,
    },
    /// Removals are held back from now on.
    BrakeBegan(Brake),
    /// They are no more; the brake as it was seen last.
    BrakeEnded(Brake),
    /// So many more brakes began and ended.
    BrakesElsewhere {
        /// Began.
        began: usize,
        /// Ended.
        ended: usize,
    },
}

/// Leases that changed their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They stopped renewing.
    pub suspected: u32,
    /// They were SUSPECT and renewed.
    pub revived: u32,
    /// They were over.
    pub removed: u32,
}

impl Changes {
    fn add(&mut self, other: Changes) {
        self.suspected += other.suspected;
        self.revived += other.revived;
        self.removed += other.removed;
    }
}

/// Gathers until it is time for an entry.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    since: Duration,
    changed: BTreeMap<ServiceName, (Changes, Vec<String>)>,
    brakes: BTreeMap<(ServiceName, Scope), Brake>,
}

impl Journal {
    pub(crate) fn note(&mut self, key: &LeaseKey, changes: Changes) {
        let (all, named) = self.changed.entry(key.service.clone()).or_default();
        all.add(changes);
        if named.len() < NAMED_MAX {
            named.push(key.instance.to_string());
        }
    }

    /// Forgets what it did not tell.
    pub(crate) fn clear(&mut self) {
        *self = Journal::default();
    }

    /// Time went by; true when there may be an entry to write.
    pub(crate) fn is_time(&mut self, elapsed: Duration) -> bool {
        self.since = self.since.saturating_add(elapsed);
        self.since >= EVERY
    }

    /// What happened since the last entry; `brakes` are those of now.
    pub(crate) fn entry(&mut self, brakes: Vec<Brake>) -> Vec<News> {
        self.since = Duration::ZERO;
        let mut news = Vec::new();
        self.tell_changes(&mut news);
        self.tell_brakes(brakes, &mut news);
        news
    }

    fn tell_changes(&mut self, news: &mut Vec<News>) {
        let mut rest = (0, Changes::default());
        for (service, (changes, named)) in std::mem::take(&mut self.changed) {
            if news.len() < LINES_MAX {
                let named = named.join(", ");
                news.push(News::Changed {
                    service,
                    changes,
                    named,
                });
            } else {
                rest.0 += 1;
                rest.1.add(changes);
            }
        }
        if let (services @ 1.., changes) = rest {
            news.push(News::ChangedElsewhere { services, changes });
        }
    }

    fn tell_brakes(&mut self, brakes: Vec<Brake>, news: &mut Vec<News>) {
        let now: BTreeMap<(ServiceName, Scope), Brake> = brakes
            .into_iter()
            .map(|brake| ((brake.service.clone(), brake.scope.clone()), brake))
            .collect();
        let before = std::mem::take(&mut self.brakes);
        let began = now.iter().filter(|(at, _)| !before.contains_key(at));
        let ended = before.iter().filter(|(at, _)| !now.contains_key(at));
        let began: Vec<News> = began
            .map(|(_, brake)| News::BrakeBegan(brake.clone()))
            .collect();
        let ended: Vec<News> = ended
            .map(|(_, brake)| News::BrakeEnded(brake.clone()))
            .collect();
        let more = |all: &[News]| all.len().saturating_sub(LINES_MAX);
        let (more_began, more_ended) = (more(&began), more(&ended));
        news.extend(began.into_iter().take(LINES_MAX));
        news.extend(ended.into_iter().take(LINES_MAX));
        if more_began + more_ended > 0 {
            news.push(News::BrakesElsewhere {
                began: more_began,
                ended: more_ended,
            });
        }
        self.brakes = now;
    }
}

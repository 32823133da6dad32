//! The oldest revision that any watcher of a service uses, known without asking each of them.

use std::collections::{BTreeMap, HashMap};

use trimtab_registry::name::ServiceName;

/// How many watchers of each service have confirmed which revision.
#[derive(Debug, Default)]
pub(super) struct Lowest(HashMap<ServiceName, BTreeMap<u64, usize>>);

impl Lowest {
    /// Of a service that is watched.
    pub(super) fn of(&self, service: &ServiceName) -> Option<u64> {
        let (lowest, _) = self.0.get(service)?.first_key_value()?;
        Some(*lowest)
    }

    /// Someone watches it, and has confirmed this.
    pub(super) fn add(&mut self, service: &ServiceName, revision: u64) {
        let counts = match self.0.get_mut(service) {
            Some(counts) => counts,
            None => self.0.entry(service.clone()).or_default(),
        };
        *counts.entry(revision).or_default() += 1;
    }

    /// Who had confirmed this watches it no more.
    pub(super) fn remove(&mut self, service: &ServiceName, revision: u64) {
        let Some(counts) = self.0.get_mut(service) else {
            return;
        };
        if let Some(count) = counts.get_mut(&revision) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&revision);
            }
        }
        if counts.is_empty() {
            self.0.remove(service);
        }
    }

    /// Whether the lowest is another now that someone went from one revision
    /// to the other.
    pub(super) fn moved(&mut self, service: &ServiceName, from: u64, to: u64) -> bool {
        let before = self.of(service);
        self.add(service, to);
        self.remove(service, from);
        before != self.of(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_with_the_last_and_is_forgotten_with_the_service() {
        let catalog = ServiceName::parse("catalog").expect("valid");
        let mut lowest = Lowest::default();
        assert_eq!(lowest.of(&catalog), None);
        lowest.add(&catalog, 0);
        lowest.add(&catalog, 0);
        assert!(!lowest.moved(&catalog, 0, 7));
        assert_eq!(lowest.of(&catalog), Some(0));
        assert!(lowest.moved(&catalog, 0, 9));
        assert_eq!(lowest.of(&catalog), Some(7));
        lowest.remove(&catalog, 7);
        assert_eq!(lowest.of(&catalog), Some(9));
        lowest.remove(&catalog, 9);
        assert!(lowest.0.is_empty());
    }
}

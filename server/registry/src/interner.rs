//! One copy of what many instances say alike: zones and sets of metadata.

use std::collections::BTreeSet;

use crate::instance::{InstanceSpec, Metadata};
use crate::name::Zone;

/// So many are kept before it is looked which of them nobody uses any more.
const SWEPT_FROM: usize = 1_024;

/// The copies that are shared. It is no part of the state: it says nothing
/// that the instances do not, and a copy of a registry begins without.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    zones: Pool<Zone>,
    metadata: Pool<Metadata>,
}

impl Interner {
    /// Has an instance share what another one said before it.
    pub(crate) fn share(&mut self, spec: &mut InstanceSpec) {
        self.zones.share(&mut spec.zone);
        if !spec.metadata.is_empty() {
            self.metadata.share(&mut spec.metadata);
        }
    }

    /// How many copies it knows of.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.zones.copies.len() + self.metadata.copies.len()
    }
}

impl Clone for Interner {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Interner {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Interner {}

/// Something whose copies may share their memory.
pub(crate) trait Shared: Clone + Ord {
    /// Whether somebody else has a copy of it.
    fn is_shared(&self) -> bool;
}

#[derive(Debug)]
struct Pool<T> {
    copies: BTreeSet<T>,
    /// How many there are when it is looked next which are still used: twice
    /// as many as were last time, so that each costs a look or two in all.
    swept_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            copies: BTreeSet::new(),
            swept_at: SWEPT_FROM,
        }
    }
}

impl<T: Shared> Pool<T> {
    fn share(&mut self, value: &mut T) {
        if let Some(copy) = self.copies.get(value) {
            value.clone_from(copy);
            return;
        }
        if self.copies.len() >= self.swept_at {
            self.copies.retain(Shared::is_shared);
            self.swept_at = SWEPT_FROM.max(2 * self.copies.len());
        }
        self.copies.insert(value.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::instance::{Capacity, DeclaredStatus};
    use crate::name::{Address, GroupName, InstanceId};

    use super::*;

    fn spec(zone: &str, rack: &str) -> InstanceSpec {
        let pairs = BTreeMap::from([("rack".to_owned(), rack.to_owned())]);
        InstanceSpec {
            id: InstanceId::parse("i1").expect("an id"),
            group: GroupName::parse("v1").expect("a name"),
            address: Address::parse("127.0.0.1:1").expect("an address"),
            zone: Zone::parse(zone).expect("a zone"),
            capacity: Capacity::default(),
            metadata: Metadata::new(pairs).expect("small"),
            status: DeclaredStatus::Ready,
        }
    }

    #[test]
    fn what_is_said_alike_is_kept_once() {
        let mut interner = Interner::default();
        let mut specs: Vec<InstanceSpec> = (0..10).map(|_| spec("z1", "r1")).collect();
        for spec in &mut specs {
            interner.share(spec);
        }
        let text = |spec: &InstanceSpec| spec.zone.as_str().as_ptr();
        assert!(specs.iter().all(|spec| text(spec) == text(&specs[0])));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn what_nobody_says_any_more_is_forgotten() {
        let mut interner = Interner::default();
        for turn in 0..20 * SWEPT_FROM {
            let mut spec = spec("z1", &format!("r{turn}"));
            interner.share(&mut spec);
        }
        assert!(interner.len() <= 2 * SWEPT_FROM, "{}", interner.len());
    }
}

//! The leases by their numbers: one place in memory for each, found without hashing a name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{InstanceId, ServiceName};
use trimtab_registry::revision::Revision;

use super::slot::Slot;

/// All leases. A lease's number is the revision of its registration, which no
/// other has.
#[derive(Debug, Default)]
pub(crate) struct Table {
    held: HashMap<Revision, Box<Held>, BuildHasherDefault<Spread>>,
}

#[derive(Debug)]
struct Held {
    service: ServiceName,
    instance: InstanceId,
    slot: Slot,
}

impl Held {
    fn is(&self, key: &LeaseKey) -> bool {
        self.instance == key.instance && self.service == key.service
    }

    fn key(&self, lease: Revision) -> LeaseKey {
        LeaseKey {
            service: self.service.clone(),
            instance: self.instance.clone(),
            lease,
        }
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(crate) fn get(&self, key: &LeaseKey) -> Option<&Slot> {
        let held = self.held.get(&key.lease).filter(|held| held.is(key))?;
        Some(&held.slot)
    }

    pub(crate) fn get_mut(&mut self, key: &LeaseKey) -> Option<&mut Slot> {
        let held = self.held.get_mut(&key.lease)?;
        held.is(key).then_some(&mut held.slot)
    }

    /// The whole name of a lease.
    pub(crate) fn key(&self, lease: Revision) -> Option<LeaseKey> {
        Some(self.held.get(&lease)?.key(lease))
    }

    pub(crate) fn insert(&mut self, key: &LeaseKey, slot: Slot) {
        let held = Held {
            service: key.service.clone(),
            instance: key.instance.clone(),
            slot,
        };
        self.held.insert(key.lease, Box::new(held));
    }

    pub(crate) fn remove(&mut self, key: &LeaseKey) -> Option<Slot> {
        self.get(key)?;
        let held = self.held.remove(&key.lease);
        // Many leases may have come at once and gone again.
        if self.held.len() < self.held.capacity() / 4 {
            self.held.shrink_to(2 * self.held.len());
        }
        held.map(|held| held.slot)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseKey, &Slot)> {
        let held = self.held.iter();
        held.map(|(lease, held)| (held.key(*lease), &held.slot))
    }
}

/// Spreads the numbers of leases, which come from the log and which nobody can
/// choose, over the table: multiplied, as Fibonacci hashing does (Knuth, The Art
/// of Computer Programming, 6.4).
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        // The table goes by the lowest and by the highest bits.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

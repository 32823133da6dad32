//! The leases of one renewal stream, known again without taking their names apart.
//!
//! A process names its leases in the same order again and again. So the next
//! one is looked for behind the last one that was found, and only if it is not
//! there by its number.

use std::collections::HashMap;

use trimtab_proto::v1::LeaseRef;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::rejection::Invalid;

use crate::convert;

/// As of which move of leases between streams this one holds it, if it ever
/// did: see [`crate::renewals::Renewals::hold`].
pub(super) type HeldAsOf = Option<u64>;

/// The leases that were renewed on one stream.
#[derive(Debug, Default)]
pub(super) struct Roll {
    entries: Vec<(LeaseKey, HeldAsOf)>,
    /// Where each stands, by its number. A process may claim that two have the
    /// same; then the later one is looked for in vain, and entered again.
    places: HashMap<u64, usize>,
    next: usize,
}

impl Roll {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &LeaseKey> {
        self.entries.iter().map(|(key, _)| key)
    }

    /// The lease that is named so, entered if it is new.
    ///
    /// # Errors
    /// A name that is not valid.
    pub(super) fn key(&mut self, named: &LeaseRef) -> Result<(&LeaseKey, &mut HeldAsOf), Invalid> {
        let place = match self.is_at(self.next, named) {
            true => self.next,
            false => self.find_or_enter(named)?,
        };
        self.next = match place + 1 < self.entries.len() {
            true => place + 1,
            false => 0,
        };
        let (key, held_as_of) = &mut self.entries[place];
        Ok((key, held_as_of))
    }

    /// Takes a lease out; how the wire names it.
    pub(super) fn remove(&mut self, key: &LeaseKey) -> Option<LeaseRef> {
        let place = self.places.get(&key.lease.0).copied()?;
        if self.entries.get(place).is_none_or(|(it, _)| it != key) {
            return None;
        }
        self.places.remove(&key.lease.0);
        self.entries.swap_remove(place);
        if let Some((moved, _)) = self.entries.get(place) {
            self.places.insert(moved.lease.0, place);
        }
        Some(convert::lease_ref(key))
    }

    fn find_or_enter(&mut self, named: &LeaseRef) -> Result<usize, Invalid> {
        let place = self.places.get(&named.lease).copied();
        if let Some(place) = place.filter(|place| self.is_at(*place, named)) {
            return Ok(place);
        }
        let key = convert::lease_key(named)?;
        let place = self.entries.len();
        self.places.insert(key.lease.0, place);
        self.entries.push((key, None));
        Ok(place)
    }

    fn is_at(&self, place: usize, named: &LeaseRef) -> bool {
        self.entries.get(place).is_some_and(|(key, _)| {
            key.lease.0 == named.lease
                && key.instance.as_str() == named.instance_id
                && key.service.as_str() == named.service
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(instance: &str, lease: u64) -> LeaseRef {
        LeaseRef {
            service: "catalog".to_owned(),
            instance_id: instance.to_owned(),
            lease,
        }
    }

    fn ask(roll: &mut Roll, named: &LeaseRef) {
        let (key, _) = roll.key(named).expect("names");
        assert_eq!(convert::lease_ref(key), *named);
    }

    #[test]
    fn leases_are_known_again_in_any_order() {
        let mut roll = Roll::default();
        let leases: Vec<LeaseRef> = (1..=20).map(|it| named(&format!("i{it}"), it)).collect();
        for _ in 0..3 {
            leases.iter().for_each(|lease| ask(&mut roll, lease));
        }
        leases.iter().rev().for_each(|lease| ask(&mut roll, lease));
        assert_eq!(roll.len(), 20);
    }

    #[test]
    fn what_was_taken_out_is_entered_anew_and_the_others_stay() {
        let mut roll = Roll::default();
        let leases: Vec<LeaseRef> = (1..=5).map(|it| named(&format!("i{it}"), it)).collect();
        leases.iter().for_each(|lease| ask(&mut roll, lease));
        let key = convert::lease_key(&leases[1]).expect("names");
        assert_eq!(roll.remove(&key).as_ref(), Some(&leases[1]));
        assert_eq!(roll.remove(&key), None);
        assert_eq!(roll.len(), 4);
        leases.iter().for_each(|lease| ask(&mut roll, lease));
        assert_eq!(roll.len(), 5);
    }

    #[test]
    fn a_number_claimed_twice_confuses_nobody() {
        let mut roll = Roll::default();
        for _ in 0..3 {
            ask(&mut roll, &named("i1", 7));
            ask(&mut roll, &named("i2", 7));
        }
        let first = convert::lease_key(&named("i1", 7)).expect("names");
        let second = convert::lease_key(&named("i2", 7)).expect("names");
        let removed = [roll.remove(&first), roll.remove(&second)];
        assert!(removed.iter().any(Option::is_some));
        assert!(roll.key(&named("I", 7)).is_err());
    }
}

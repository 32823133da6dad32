//! Who is where, by whose word.

use std::collections::BTreeMap;

use super::{Contact, Peer};

/// Who is where. A member's own word on its address is newer than the flags
/// of this replica, and those are newer than what the log says.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) members: BTreeMap<u64, Peer>,
    pub(super) guests: BTreeMap<u64, Peer>,
    pub(super) told: BTreeMap<u64, Contact>,
    pub(super) flags: BTreeMap<u64, String>,
}

/// What a replica's word on where it is changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    /// A member speaks for itself again, after another under its id.
    Back,
    /// A member is somewhere else.
    Moved,
    /// Someone who is not known as a member.
    Guest,
}

impl Known {
    pub(super) fn news_of(&self, id: u64, contact: &Contact, is_owed: bool) -> News {
        let guest = self.guests.get(&id);
        let is_new = guest.is_none_or(|guest| guest.contact != *contact);
        match self.members.get(&id) {
            Some(member) if member.contact.disk_id == contact.disk_id => {
                match (member.contact.address == contact.address, guest) {
                    (false, _) => News::Moved,
                    (true, Some(_)) => News::Back,
                    (true, None) => News::Nothing,
                }
            }
            // Another data directory's word says nothing of the member.
            Some(_) if is_owed && is_new => News::Guest,
            None if is_new => News::Guest,
            Some(_) | None => News::Nothing,
        }
    }
}

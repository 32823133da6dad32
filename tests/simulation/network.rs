//! The network: who reaches whom, and how late, how often, in what order.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::packet::{Node, Packet};

/// The usual way of a packet, in milliseconds.
const DELAY_MAX: u64 = 8;
/// The way of a packet that got stuck somewhere.
const LATE_MAX: u64 = 900;

/// What the network does to packets.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Of a thousand packets.
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) doubled: u64,
    /// From whom nothing reaches whom, until when.
    cuts: BTreeMap<(Node, Node), u64>,
}

impl Network {
    /// Nothing gets from one to the other until then.
    pub(crate) fn cut(&mut self, from: Node, to: Node, until: u64) {
        self.cuts.insert((from, to), until);
    }

    /// All is well again.
    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }

    /// After how long the copies of a packet arrive: none when it is lost.
    pub(crate) fn carry(
        &self,
        now: u64,
        from: Node,
        to: Node,
        packet: &Packet,
        chance: &mut Chance,
    ) -> Vec<u64> {
        let is_cut = self.cuts.get(&(from, to)).is_some_and(|until| *until > now);
        if is_cut || chance.per_mille(self.lost) {
            return Vec::new();
        }
        // Calls travel over connections that number what they carry.
        let is_doubled = matches!(packet, Packet::Raft(_)) && chance.per_mille(self.doubled);
        (0..=usize::from(is_doubled))
            .map(|_| {
                let stuck = chance.per_mille(self.late);
                chance.between(1, if stuck { LATE_MAX } else { DELAY_MAX })
            })
            .collect()
    }
}

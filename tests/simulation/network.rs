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

    /// Until when nothing gets from one to the other.
    pub(crate) fn cut_until(&self, now: u64, from: Node, to: Node) -> Option<u64> {
        if self.cuts.is_empty() {
            return None;
        }
        let until = self.cuts.get(&(from, to)).copied();
        until.filter(|until| *until > now)
    }

    /// After how long the copies of a packet arrive: none when it is lost.
    pub(crate) fn carry(
        &self,
        now: u64,
        from: Node,
        to: Node,
        packet: &Packet,
        chance: &mut Chance,
    ) -> [Option<u64>; 2] {
        if self.cut_until(now, from, to).is_some() || chance.per_mille(self.lost) {
            return [None; 2];
        }
        let mut delay = || {
            let stuck = chance.per_mille(self.late);
            chance.between(1, if stuck { LATE_MAX } else { DELAY_MAX })
        };
        let first = delay();
        // Calls travel over connections that number what they carry.
        let may_double = matches!(packet, Packet::Raft { .. });
        let second = may_double.then(&mut delay);
        let is_doubled = may_double && chance.per_mille(self.doubled);
        [Some(first), second.filter(|_| is_doubled)]
    }
}

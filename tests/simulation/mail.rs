//! Everything that is sent between machines, from its sender to its arrival.

use crate::packet::{Call, Node, Outbox, Packet, Request};
use crate::world::{Event, World};

impl World {
    /// Carries away what someone sends of his own accord.
    pub(crate) fn carry_away(&mut self, from: Node, out: Outbox) {
        self.dispatch(from, out, 0);
    }

    pub(crate) fn carry_to(&mut self, from: Node, to: Node, packet: Packet) {
        self.send(from, to, packet, 0);
    }

    pub(crate) fn dispatch(&mut self, from: Node, out: Outbox, delay: u64) {
        for wait in out.wakes {
            self.at(self.now + wait, Event::Actor(from));
        }
        let asks = |(_, packet): &(Node, Packet)| {
            matches!(
                packet,
                Packet::Call(Call {
                    request: Request::Propose(_),
                    ..
                })
            )
        };
        if let Node::Instance(number) = from
            && out.sends.iter().any(asks)
        {
            self.fleet[number].asked_after = self.ledger.newest_told;
        }
        for (to, packet) in out.sends {
            self.send(from, to, packet, delay);
        }
    }

    fn send(&mut self, from: Node, to: Node, packet: Packet, delay: u64) {
        let arrivals = self
            .network
            .carry(self.now, from, to, &packet, &mut self.chance);
        self.counts.messages += 1;
        self.counts.lost += u64::from(arrivals[0].is_none());
        if let (Node::Replica(from), Node::Replica(to), Packet::Raft { is_snapshot, .. }) =
            (from, to, &packet)
        {
            if *is_snapshot {
                self.counts.snapshots_sent += 1;
                let arrived = arrivals[0].is_some();
                let time = self.now + delay + arrivals[0].unwrap_or(50) + 5;
                self.at(time, Event::SnapshotEnded { from, to, arrived });
            } else if arrivals[0].is_none() && self.chance.per_mille(500) {
                self.at(self.now + delay + 5, Event::Unreachable { from, to });
                if self.chance.per_mille(50) {
                    self.counts.rumours += 1;
                    self.at(self.now + delay + 6, Event::Gone { from, to });
                }
            }
        }
        if let Some(after) = arrivals[1] {
            let packet = packet.clone();
            self.at(self.now + delay + after, Event::Arrive { from, to, packet });
        }
        if let Some(after) = arrivals[0] {
            self.at(self.now + delay + after, Event::Arrive { from, to, packet });
        }
    }
}

//! Everything that happened in a run, as one number: two runs of a seed that differ anywhere differ in it.

use crate::packet::{Flow, Node, Packet};
use crate::world::Event;

/// A sum over all events in order.
#[derive(Debug, Default)]
pub(crate) struct Trace(u64);

impl Trace {
    pub(crate) fn sum(&self) -> u64 {
        self.0
    }

    /// An event happens.
    pub(crate) fn note(&mut self, now: u64, event: &Event) {
        self.add(now);
        match event {
            Event::Tick { replica, life } => self.all(&[1, *replica, *life]),
            Event::Judge { replica, life } => self.all(&[2, *replica, *life]),
            Event::Arrive { from, to, packet } => {
                self.all(&[3, number_of(*from), number_of(*to)]);
                match packet {
                    Packet::Raft { bytes, .. } => self.add(trimtab_proto::checksum(bytes)),
                    Packet::Call(call) => self.all(&[4, call.id, call.path.len() as u64]),
                    Packet::Answer(answer) => self.all(&[5, answer.id]),
                }
            }
            Event::SnapshotEnded { from, to, arrived } => {
                self.all(&[6, *from, *to, u64::from(*arrived)]);
            }
            Event::Unreachable { from, to } => self.all(&[7, *from, *to]),
            Event::Resume { replica } => self.all(&[8, *replica]),
            Event::Restart { replica } => self.all(&[9, *replica]),
            Event::Repaired { replica } => self.all(&[10, *replica]),
            Event::Flow { stream, up, flow } => {
                let kind = match flow {
                    Flow::Opened => 0,
                    Flow::Request(_) => 1,
                    Flow::Answer(_) => 2,
                    Flow::Ended => 3,
                };
                self.all(&[11, *stream, u64::from(*up), kind]);
            }
            Event::Ping { stream } => self.all(&[12, *stream]),
            Event::Caller(number, life, _) => self.all(&[13, *number as u64, *life]),
            Event::Actor(node) => self.all(&[14, number_of(*node)]),
            Event::Fault => self.add(15),
            Event::Operator => self.add(16),
            Event::Gone { from, to } => self.all(&[17, *from, *to]),
        }
    }

    fn all(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.add(*number);
        }
    }

    fn add(&mut self, number: u64) {
        // The multiplier of Knuth's 64-bit linear congruential generator.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(6_364_136_223_846_793_005);
    }
}

fn number_of(node: Node) -> u64 {
    match node {
        Node::Replica(id) => id,
        Node::Instance(number) => 100 + number as u64,
        Node::Script(number) => 1_000 + number as u64,
        Node::Caller(number) => 2_000 + number as u64,
        Node::Operator => 3_000,
    }
}

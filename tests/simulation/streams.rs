//! Watch streams on the network: what is sent arrives in order, late, or the stream breaks.

use trimtab_proto::v1::watch_request::Kind;

use crate::packet::{Flow, Node};
use crate::world::{Event, SERVICES, World};

/// How late a caller, and a replica, may notice that the other is gone without
/// a word: pings, and the patience with them.
const UNNOTICED_MAX: u64 = 4_000;
const UNNOTICED_BY_REPLICA_MAX: u64 = 10_000;
/// A cut that ends within this may be survived: packets are sent again.
const SURVIVED_MAX: u64 = 3_000;

/// A connection between a caller and a replica.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) caller: usize,
    /// Which process of the caller.
    pub(crate) caller_life: u64,
    pub(crate) replica: u64,
    pub(crate) replica_life: u64,
    pub(crate) opened: u64,
    /// Since when the replica knows that the caller follows each service.
    pub(crate) served_since: [Option<u64>; SERVICES.len()],
    /// When the replica noticed that it was over.
    pub(crate) ended: Option<u64>,
    /// When the last packet arrives, there and here.
    last: [u64; 2],
    is_broken: bool,
}

impl World {
    /// A caller connects to a replica.
    pub(crate) fn open_stream(&mut self, caller: usize, replica: u64) -> u64 {
        let stream = self.streams.len() as u64;
        self.streams.push(Stream {
            caller,
            caller_life: self.callers[caller].life,
            replica,
            replica_life: self.seats[replica as usize - 1].life,
            opened: self.now,
            served_since: [None; SERVICES.len()],
            ended: None,
            last: [self.now; 2],
            is_broken: false,
        });
        self.flow(stream, true, Flow::Opened, 0);
        stream
    }

    /// Sends something along a stream: up to the replica, or down.
    pub(crate) fn flow(&mut self, stream: u64, up: bool, flow: Flow, delay: u64) {
        let at = &self.streams[stream as usize];
        if at.is_broken {
            return;
        }
        let (caller, replica) = (Node::Caller(at.caller), Node::Replica(at.replica));
        let (from, to) = if up {
            (caller, replica)
        } else {
            (replica, caller)
        };
        self.counts.flows += 1;
        let mut time = self.now + delay + self.chance.between(1, 8);
        if let Some(until) = self.network.cut_until(self.now, from, to) {
            if until > self.now + SURVIVED_MAX || self.chance.per_mille(300) {
                return self.break_stream(stream);
            }
            time = until + self.chance.between(1, 300);
        }
        if self.chance.per_mille(self.network.late) {
            time += self.chance.between(1, 900);
        }
        if self.chance.per_mille(self.network.lost) {
            // It is sent again; seldom that is lost as often as is bearable.
            if self.chance.per_mille(100) {
                return self.break_stream(stream);
            }
            time += self.chance.between(200, 1_500);
        }
        let last = &mut self.streams[stream as usize].last[usize::from(up)];
        *last = time.max(*last);
        let time = *last;
        self.at(time, Event::Flow { stream, up, flow });
    }

    /// Nothing gets through any more. Either end notices in its own time.
    pub(crate) fn break_stream(&mut self, stream: u64) {
        let at = &mut self.streams[stream as usize];
        if at.is_broken {
            return;
        }
        at.is_broken = true;
        for up in [true, false] {
            let time = self.now + self.chance.between(20, unnoticed_by(up));
            let flow = Flow::Ended;
            self.at(time, Event::Flow { stream, up, flow });
        }
    }

    /// One end died. Its machine tells the other at once, if it reaches it.
    pub(crate) fn end_dies(&mut self, stream: u64, at_replica: bool) {
        let at = &mut self.streams[stream as usize];
        if at.is_broken {
            return;
        }
        at.is_broken = true;
        let (caller, replica) = (Node::Caller(at.caller), Node::Replica(at.replica));
        let (from, to) = match at_replica {
            true => (replica, caller),
            false => (caller, replica),
        };
        let longest = match self.network.cut_until(self.now, from, to) {
            Some(_) => unnoticed_by(!at_replica),
            None => 20,
        };
        let time = self.now + self.chance.between(1, longest);
        let flow = Flow::Ended;
        let up = !at_replica;
        self.at(time, Event::Flow { stream, up, flow });
    }

    /// The streams of a replica that are not broken.
    pub(crate) fn streams_of(&self, replica: u64) -> Vec<u64> {
        let all = self.callers.iter().filter_map(|caller| caller.stream);
        all.filter(|stream| {
            let at = &self.streams[*stream as usize];
            at.replica == replica && !at.is_broken
        })
        .collect()
    }

    /// A replica stands still, or a caller and a replica do not reach each
    /// other: if so still when the pings ran out, the stream breaks.
    pub(crate) fn ping_later(&mut self, stream: u64) {
        let time = self.now + self.chance.between(2_000, UNNOTICED_MAX);
        self.at(time, Event::Ping { stream });
    }

    pub(crate) fn ping(&mut self, stream: u64) {
        let at = &self.streams[stream as usize];
        let (caller, replica) = (Node::Caller(at.caller), Node::Replica(at.replica));
        let is_stuck = self.seats[at.replica as usize - 1].paused_until > self.now;
        let is_cut = self.network.cut_until(self.now, caller, replica).is_some()
            || self.network.cut_until(self.now, replica, caller).is_some();
        if is_stuck || is_cut {
            self.break_stream(stream);
        }
    }

    /// Something arrives at an end of a stream.
    pub(crate) fn flowed(&mut self, stream: u64, up: bool, flow: Flow) -> Result<(), String> {
        let at = &mut self.streams[stream as usize];
        if !up {
            let (caller, life) = (at.caller, at.caller_life);
            return self.heard(caller, life, stream, flow);
        }
        let replica = at.replica;
        let seat = &self.seats[replica as usize - 1];
        if seat.life != at.replica_life || seat.host.is_none() {
            // Nobody knows of it there.
            self.end_dies(stream, true);
            return Ok(());
        }
        if matches!(flow, Flow::Ended) {
            at.ended.get_or_insert(self.now);
        }
        if let Flow::Request(request) = &flow
            && let Some(Kind::Subscribe(subscribe)) = &request.kind
            && let Some(service) = SERVICES.iter().position(|it| *it == subscribe.service)
        {
            at.served_since[service] = Some(self.now);
        }
        self.with_host(replica, |host| {
            match flow {
                Flow::Opened => host.open_stream(stream),
                Flow::Request(request) => host.ask_on_stream(stream, request),
                Flow::Ended => host.drop_stream(stream),
                Flow::Answer(_) => {}
            }
            Ok(())
        })
    }
}

fn unnoticed_by(replica: bool) -> u64 {
    match replica {
        true => UNNOTICED_BY_REPLICA_MAX,
        false => UNNOTICED_MAX,
    }
}

//! What goes wrong while a run is not healed. Each kind is on or off for a whole run, by its seed.

use crate::fleet::{Ailment, Life, ZONES};
use crate::host::campaign_now;
use crate::packet::{Node, Outbox};
use crate::world::{Event, World};

/// Kinds of faults that come by time, one bit each of `World::kinds`.
const KINDS: u64 = 15;
/// Instances fail calls, or are slow.
const ILLNESS: u64 = 15;
/// A process dies right after it took a new term: with its vote, if it gave it.
const AFTER_A_VOTE: u64 = 16;
/// One replica's disk, and no other's, forgets what it was told.
const BIT_FLIPS: u64 = 17;
/// A second candidate asks a voter that has just died and come back.
const RIVALS: u64 = 18;
/// Replicas are added, promoted, replaced and removed (`operator.rs`).
pub(crate) const MEMBERS: u64 = 19;
/// Along with that, disks are lost, and their replicas replaced.
pub(crate) const LOST_DISKS: u64 = 20;

impl World {
    /// One fault, and when the next one comes.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        let next = self.now + self.chance.between(50, 1_200);
        self.at(next, Event::Fault);
        // More often than the others: only a run of failures shows anything.
        if self.kinds & (1 << ILLNESS) != 0 && self.chance.per_mille(250) {
            self.make_ill();
        }
        let kind = self.chance.between(0, KINDS - 1);
        if self.kinds & (1 << kind) == 0 {
            return Ok(());
        }
        let replica = self.chance.between(1, self.replicas());
        match kind {
            0 => self.make_weather(),
            1 => self.isolate(replica, true),
            2 => self.isolate(replica, false),
            3 => self.cut_two(),
            4 => self.crash_if_up(replica),
            5 => self.doom(replica),
            6 => self.break_disk(replica),
            7 => self.slow_disk(replica),
            8 => self.stop_for_a_while(replica),
            9 => return self.stop_in_order(replica),
            10 => self.end_an_instance(),
            11 => self.crash_all(),
            12 => self.restart_a_caller(),
            13 => self.cut_a_caller_off(),
            _ => self.darken_a_zone(replica),
        }
        Ok(())
    }

    fn make_weather(&mut self) {
        self.network.lost = self.chance.between(0, 150);
        self.network.late = self.chance.between(0, 150);
        self.network.doubled = self.chance.between(0, 150);
    }

    /// One replica reaches no other, in both directions or one.
    fn isolate(&mut self, replica: u64, both: bool) {
        let until = self.now + self.chance.between(200, 6_000);
        let outward = self.chance.per_mille(500);
        for other in 1..=self.replicas() {
            let (here, there) = (Node::Replica(replica), Node::Replica(other));
            if both || outward {
                self.network.cut(here, there, until);
            }
            if both || !outward {
                self.network.cut(there, here, until);
            }
        }
        self.counts.cuts += 1;
    }

    /// Anyone does not reach someone.
    fn cut_two(&mut self) {
        let replica = Node::Replica(self.chance.between(1, self.replicas()));
        let other = match self.chance.between(0, 3) {
            0 | 1 => Node::Replica(self.chance.between(1, self.replicas())),
            2 => Node::Instance(self.chance.index(self.fleet.len())),
            _ => Node::Caller(self.chance.index(self.callers.len())),
        };
        let until = self.now + self.chance.between(200, 8_000);
        self.network.cut(replica, other, until);
        if self.chance.per_mille(700) {
            self.network.cut(other, replica, until);
        }
        if let Node::Caller(caller) = other
            && let Some(stream) = self.callers[caller].stream
        {
            self.ping_later(stream);
        }
        self.counts.cuts += 1;
    }

    /// A replica hands leadership over, or is told to stop and does so in
    /// order: often the leader.
    fn stop_in_order(&mut self, replica: u64) -> Result<(), String> {
        let leader = (self.leader_in_office()).filter(|_| self.chance.per_mille(600));
        let replica = leader.unwrap_or(replica);
        let host = self.seats[replica as usize - 1].host.as_ref();
        self.counts.transfers += u64::from(host.is_some_and(|host| host.leads()));
        if host.is_none_or(|host| host.stopping) {
            return Ok(());
        }
        if self.chance.per_mille(500) {
            return self.with_host(replica, crate::host::Host::hand_over);
        }
        self.with_host(replica, crate::host::Host::stop)
    }

    /// A caller's process ends, and another one begins: it knows nothing.
    fn restart_a_caller(&mut self) {
        if self.chance.per_mille(400) {
            let caller = self.chance.index(self.callers.len());
            self.start_caller(caller);
        }
    }

    /// A caller does not reach some of the instances, or none.
    fn cut_a_caller_off(&mut self) {
        let caller = self.chance.index(self.callers.len());
        let of_a_thousand = [100, 500, 1_000][self.chance.index(3)];
        let until = self.now + self.chance.between(200, 8_000);
        for instance in 0..self.fleet.len() {
            if self.chance.per_mille(of_a_thousand) {
                self.cut_from_instance(caller, instance, until);
            }
        }
        self.counts.cuts += 1;
    }

    fn crash_if_up(&mut self, replica: u64) {
        // The leader is where it hurts.
        let leader = self
            .leader_in_office()
            .filter(|_| self.chance.per_mille(500));
        let replica = leader.unwrap_or(replica);
        if self.seats[replica as usize - 1].host.is_some() {
            self.crash(replica);
        }
    }

    /// The process is killed in the middle of one of its next writes.
    fn doom(&mut self, replica: u64) {
        let operations = self.chance.between(0, 25);
        let seat = &mut self.seats[replica as usize - 1];
        if seat.host.is_some() && seat.bad_until <= self.now {
            seat.doomed = true;
            seat.disk.doom_after(operations);
        }
    }

    fn break_disk(&mut self, replica: u64) {
        let until = self.now + self.chance.between(300, 4_000);
        let operations = self.chance.between(0, 25);
        let is_full = self.chance.per_mille(400);
        let seat = &mut self.seats[replica as usize - 1];
        if seat.doomed {
            return;
        }
        seat.bad_until = until;
        match is_full {
            true => seat.disk.fill(),
            false => seat.disk.fail_after(operations),
        }
        // Whoever runs it sees to it in the end.
        self.at(until, Event::Repaired { replica });
    }

    fn slow_disk(&mut self, replica: u64) {
        let until = self.now + self.chance.between(500, 6_000);
        self.seats[replica as usize - 1].slow_until = until;
    }

    fn stop_for_a_while(&mut self, replica: u64) {
        let longest = [800, 3_000, 15_000][self.chance.index(3)];
        let length = self.chance.between(100, longest);
        self.pause(replica, length);
        self.counts.pauses += 1;
    }

    fn end_an_instance(&mut self) {
        let number = self.chance.index(self.fleet.len());
        let instance = &mut self.fleet[number];
        if instance.life != Life::Alive {
            return;
        }
        // The oldest group must last, or its service may be without a route.
        if self.chance.per_mille(300) {
            instance.life = Life::Leaving;
            return;
        }
        let mut out = Outbox::default();
        instance.die(&mut out);
        let node = instance.node();
        self.carry_away(node, out);
        self.notice_an_end(number);
    }

    fn crash_all(&mut self) {
        if self.chance.per_mille(700) {
            return;
        }
        for replica in 1..=self.replicas() {
            if self.seats[replica as usize - 1].host.is_some() {
                self.crash(replica);
            }
        }
    }

    /// All instances of a zone do not reach the replicas, or one of them, for
    /// longer than many a TTL. They live, and register anew afterwards.
    fn darken_a_zone(&mut self, replica: u64) {
        let zone = ZONES[self.chance.index(ZONES.len())];
        let until = self.now + self.chance.between(1_000, 12_000);
        let replicas = match self.chance.per_mille(500) {
            true => 1..=self.replicas(),
            false => replica..=replica,
        };
        for instance in self.fleet.iter().filter(|it| it.zone() == zone) {
            for replica in replicas.clone() {
                let (here, there) = (instance.node(), Node::Replica(replica));
                self.network.cut(here, there, until);
                self.network.cut(there, here, until);
            }
        }
        self.counts.dark_zones += 1;
    }

    /// Instances that live, and can be reached, fail calls or are slow: one,
    /// or all of a release. That outlasts the other troubles.
    fn make_ill(&mut self) {
        let first = self.chance.index(self.fleet.len());
        let all = self.chance.per_mille(150);
        let is_slow = self.chance.per_mille(300);
        let ailment = Ailment {
            until: self.now + self.chance.between(1_000, 15_000),
            failing: [0, 300, 700, 1_000][if is_slow { 0 } else { 1 + self.chance.index(3) }],
            slower: if is_slow { 1_500 } else { 0 },
        };
        let release = self.fleet[first].release();
        for number in 0..self.fleet.len() {
            if number == first || all && self.fleet[number].release() == release {
                self.fleet[number].ail(ailment);
            }
        }
        self.counts.ailments += 1;
    }

    /// A replica took a new term: may it die of it? If it gave its vote, that
    /// may be the moment at which another candidate of the same term asks.
    pub(crate) fn after_a_vote(&mut self, replica: u64, voted_for: Option<u64>) {
        if self.healed {
            return;
        }
        let has_kind = |kind: u64| self.kinds & (1 << kind) != 0;
        if let Some(candidate) = voted_for.filter(|_| has_kind(RIVALS))
            && self.chance.per_mille(500)
        {
            return self.rival(replica, candidate);
        }
        if has_kind(AFTER_A_VOTE) && self.chance.per_mille(400) {
            let wait = self.chance.between(1, 15);
            self.crash_for(replica, wait);
        }
    }

    /// The voter dies and is back at once. The candidate is cut off, so that
    /// nobody hears of its victory; and another one is told, by the leader it
    /// knew, to ask for votes now, which it does in the same term.
    fn rival(&mut self, voter: u64, candidate: u64) {
        let others = (1..=self.replicas()).filter(|id| ![voter, candidate].contains(id));
        let others: Vec<u64> = others.collect();
        let until = self.now + self.chance.between(200, 700);
        for other in (1..=self.replicas()).filter(|id| *id != candidate) {
            let (from, to) = (Node::Replica(candidate), Node::Replica(other));
            self.network.cut(from, to, until);
        }
        let wait = self.chance.between(1, 3);
        self.crash_for(voter, wait);
        if others.is_empty() {
            return;
        }
        let rival = others[self.chance.index(others.len())];
        let Some(host) = &self.seats[rival as usize - 1].host else {
            return;
        };
        let from = match host.leader_id() {
            0 => voter,
            leader => leader,
        };
        // Whoever waits to be taken in knows no term, and is told nothing.
        if from == rival || host.replica().term() == 0 {
            return;
        }
        self.counts.rivals += 1;
        let disk_of = |id: u64| self.seats[id as usize - 1].disk_id;
        let disks = (disk_of(from), disk_of(rival));
        let packet = campaign_now(from, rival, host.replica().term(), disks);
        let event = Event::Arrive {
            from: Node::Replica(from),
            to: Node::Replica(rival),
            packet,
        };
        self.at(self.now + wait + 1, event);
    }

    /// A bit turns over while a replica is down. Of a quorum no more than a
    /// minority may be lost, so it is always the same replica's.
    pub(crate) fn flip_a_bit(&mut self, replica: u64) {
        // What a flip does must not be taken for the work of a planted bug.
        let is_wanted = self.setup.planted.is_none() && self.kinds & (1 << BIT_FLIPS) != 0;
        let happens = !self.healed && is_wanted;
        let may = self.flipped.is_none_or(|it| it == replica) && self.may_lose(replica);
        if happens && may && self.chance.per_mille(300) {
            self.flipped = Some(replica);
            self.counts.bit_flips += 1;
            self.seats[replica as usize - 1]
                .disk
                .flip_bit(&mut self.chance);
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        for replica in 1..=self.replicas() {
            let now = self.now;
            let seat = &mut self.seats[replica as usize - 1];
            seat.paused_until = seat.paused_until.min(now);
            seat.slow_until = 0;
            seat.bad_until = 0;
            seat.doomed = false;
            seat.disk.repair();
            self.at(now, Event::Resume { replica });
            self.at(now + 1, Event::Restart { replica });
        }
    }
}

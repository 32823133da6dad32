//! One run: replicas, instances, scripts and watchers on one clock, moved by one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_registry::name::ServiceName;
use trimtab_server::leases::LeaseSettings;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::fleet::Instance;
use crate::history::{Model, Routes, Told};
use crate::host::{Host, Setup, is_snapshot};
use crate::ledger::{Heard, Ledger};
use crate::network::Network;
use crate::packet::{Answer, Call, Node, Outbox, Packet, Reply, Request};
use crate::planted::Planted;
use crate::scripts::Script;
use crate::watchers::Watcher;

/// How far a replica's clock may go wrong, in parts of a thousand.
pub(crate) const DRIFT_MAX: u64 = 20;
/// Between two judgements of leases, as in production.
const JUDGE_EVERY: u64 = 100;
/// A raft tick, as in production.
const TICK: u64 = 50;
/// Ticks that may pass at once after a pause, as in production.
const TICKS_AT_ONCE: u64 = 2;

const SERVICES: [&str; 2] = ["catalog", "search"];
const GROUPS: [&str; 3] = ["v1", "v2", "v3"];
const INSTANCES_PER_GROUP: usize = 3;
const SCRIPTS: usize = 3;
const WATCHERS: usize = 3;

/// What happens at some moment.
#[derive(Debug)]
pub(crate) enum Event {
    Tick {
        replica: u64,
        life: u64,
    },
    Judge {
        replica: u64,
        life: u64,
    },
    Arrive {
        from: Node,
        to: Node,
        packet: Packet,
    },
    SnapshotEnded {
        from: u64,
        to: u64,
        arrived: bool,
    },
    Unreachable {
        from: u64,
        to: u64,
    },
    Resume {
        replica: u64,
    },
    Restart {
        replica: u64,
    },
    Repaired {
        replica: u64,
    },
    Actor(Node),
    Fault,
}

/// A place for a replica: the machine, whether or not its process runs.
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) disk: Disk,
    pub(crate) life: u64,
    pub(crate) host: Option<Host>,
    pub(crate) paused_until: u64,
    inbox: Vec<Event>,
    /// In parts of a thousand; 1,000 is right.
    rate: u64,
    judged: u64,
    /// The disk is expected to fail until then.
    pub(crate) bad_until: u64,
    /// A write is to fail as if the process was killed in it.
    pub(crate) doomed: bool,
    pub(crate) slow_until: u64,
    syncs: u64,
    /// Term and last index when it died, if everything it had was synced.
    synced: Option<(u64, u64)>,
    /// It refused to go on, and waits for its operator.
    pub(crate) is_out: bool,
}

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) crashes: u64,
    pub(crate) disk_errors: u64,
    pub(crate) bit_flips: u64,
    /// Replicas that refused to go on after one.
    pub(crate) refusals: u64,
    /// Replicas that came back without what they had synced after one, and
    /// did not notice.
    pub(crate) shortened: u64,
    pub(crate) pauses: u64,
    pub(crate) cuts: u64,
    pub(crate) transfers: u64,
    pub(crate) snapshots_sent: u64,
    pub(crate) applied: u64,
    pub(crate) terms: u64,
    pub(crate) operations: u64,
    pub(crate) unanswered: u64,
    pub(crate) undecided: u64,
    pub(crate) expired: u64,
    pub(crate) views: u64,
    /// Renewals that were answered "lost" though the lease was there.
    pub(crate) mislaid: u64,
    /// Everything that happened, in one number.
    pub(crate) trace: u64,
}

impl Counts {
    /// Sums up over runs.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.messages += other.messages;
        self.lost += other.lost;
        self.crashes += other.crashes;
        self.disk_errors += other.disk_errors;
        self.bit_flips += other.bit_flips;
        self.refusals += other.refusals;
        self.shortened += other.shortened;
        self.pauses += other.pauses;
        self.cuts += other.cuts;
        self.transfers += other.transfers;
        self.snapshots_sent += other.snapshots_sent;
        self.applied += other.applied;
        self.terms += other.terms;
        self.operations += other.operations;
        self.unanswered += other.unanswered;
        self.undecided += other.undecided;
        self.expired += other.expired;
        self.views += other.views;
        self.mislaid += other.mislaid;
        self.trace ^= other.trace;
    }
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) now: u64,
    moment: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    pub(crate) chance: Chance,
    setup: Setup,
    pub(crate) seats: Vec<Seat>,
    pub(crate) network: Network,
    pub(crate) fleet: Vec<Instance>,
    pub(crate) scripts: Vec<Script>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) ledger: Ledger,
    heard: Heard,
    pub(crate) counts: Counts,
    /// Which kinds of faults this run has.
    pub(crate) kinds: u64,
    /// Nothing goes wrong: not yet, or not any more.
    pub(crate) healed: bool,
    /// The replica whose disk turned a bit over.
    pub(crate) flipped: Option<u64>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut chance = Chance::new(seed);
        let replicas = [3, 3, 3, 3, 3, 3, 1, 5][chance.index(8)];
        let members: BTreeMap<u64, String> = (1..=replicas)
            .map(|id| (id, format!("127.0.0.{id}:1")))
            .collect();
        let setup = Setup {
            seed,
            members,
            snapshot_every: chance.between(5, 60),
            trailing_entries: chance.between(0, 12),
            leases: LeaseSettings {
                brake_hold: Duration::from_millis(chance.between(2_000, 6_000)),
                ..LeaseSettings::default()
            },
            planted,
        };
        let services = SERVICES.map(|name| ServiceName::parse(name).expect("a name"));
        let seats = (1..=replicas).map(|id| Seat {
            id,
            disk: Disk::default(),
            life: 0,
            host: None,
            paused_until: 0,
            inbox: Vec::new(),
            rate: chance.between(1_000 - DRIFT_MAX, 1_000 + DRIFT_MAX),
            judged: 0,
            bad_until: 0,
            doomed: false,
            slow_until: 0,
            syncs: 0,
            synced: None,
            is_out: false,
        });
        let mut world = Self {
            now: 0,
            moment: 0,
            agenda: BTreeMap::new(),
            seats: seats.collect(),
            network: Network::default(),
            fleet: Vec::new(),
            scripts: (0..SCRIPTS)
                .map(|number| Script::new(number, replicas, &services))
                .collect(),
            watchers: (0..WATCHERS)
                .map(|number| Watcher::new(number, replicas, &services, planted))
                .collect(),
            ledger: Ledger::new(&setup.members),
            heard: Heard::default(),
            counts: Counts::default(),
            kinds: chance.number(),
            healed: true,
            flipped: None,
            setup,
            chance,
        };
        world.populate(replicas);
        world
    }

    fn populate(&mut self, replicas: u64) {
        for service in SERVICES {
            for (age, group) in GROUPS.iter().enumerate() {
                for _ in 0..INSTANCES_PER_GROUP {
                    let number = self.fleet.len();
                    let names = (service, *group);
                    let instance = Instance::new(number, names, replicas, &mut self.chance);
                    let born = match age {
                        0 => self.chance.between(0, 500),
                        _ => self.chance.between(2_000, 12_000 * age as u64),
                    };
                    self.at(born, Event::Actor(instance.node()));
                    self.fleet.push(instance);
                }
            }
        }
        for replica in 1..=replicas {
            self.at(0, Event::Restart { replica });
        }
    }

    pub(crate) fn replicas(&self) -> u64 {
        self.seats.len() as u64
    }

    pub(crate) fn brake_hold(&self) -> u64 {
        self.setup.leases.brake_hold.as_millis() as u64
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.moment += 1;
        self.agenda.insert((time, self.moment), event);
    }

    /// Scripts and watchers begin.
    pub(crate) fn begin(&mut self) -> Model {
        for number in 0..self.scripts.len() {
            self.at(self.now, Event::Actor(Node::Script(number)));
        }
        for number in 0..self.watchers.len() {
            self.at(self.now, Event::Actor(Node::Watcher(number)));
        }
        let routes: Routes = (self.ledger.registry().services())
            .filter_map(|service| {
                let revision = service.route_revision().0;
                let route = format!("{:?}", service.route()?);
                Some((service.name().to_string(), Told { revision, route }))
            })
            .collect();
        Model::new(&routes)
    }

    pub(crate) fn has_all_services(&self) -> bool {
        self.ledger.registry().services().len() == SERVICES.len()
    }

    /// Lets everything happen that is due until then.
    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(next) = self.agenda.first_entry() {
            if next.key().0 > end {
                break;
            }
            let ((time, _), event) = next.remove_entry();
            self.now = time;
            self.moment += 1;
            self.counts.events += 1;
            self.trace(&event);
            self.happen(event)
                .map_err(|reason| format!("at {} ms: {reason}", self.now))?;
        }
        self.now = end;
        Ok(())
    }

    fn trace(&mut self, event: &Event) {
        let mut bytes = self.counts.trace.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.now.to_le_bytes());
        bytes.extend_from_slice(format!("{event:?}").as_bytes());
        self.counts.trace = trimtab_proto::checksum(&bytes);
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        if let Some(replica) = self.paused(&event) {
            self.note_heard(&event);
            self.seats[replica].inbox.push(event);
            return Ok(());
        }
        match event {
            Event::Tick { replica, life } => self.tick(replica, life),
            Event::Judge { replica, life } => self.judge(replica, life),
            Event::Arrive { to, from, packet } => {
                let event = Event::Arrive { to, from, packet };
                self.note_heard(&event);
                let Event::Arrive { packet, .. } = event else {
                    return Ok(());
                };
                self.arrive(to, packet)
            }
            Event::SnapshotEnded { from, to, arrived } => {
                self.with_host(from, |host| host.report_snapshot(to, arrived))
            }
            Event::Unreachable { from, to } => {
                self.with_host(from, |host| host.report_unreachable(to))
            }
            Event::Resume { replica } => self.resume(replica),
            Event::Restart { replica } => self.restart(replica),
            Event::Repaired { replica } => {
                let seat = &self.seats[replica as usize - 1];
                if seat.bad_until <= self.now {
                    seat.disk.repair();
                }
                Ok(())
            }
            Event::Actor(node) => self.wake(node),
            Event::Fault => self.fault(),
        }
    }

    /// The place of the replica that an event waits for while it stands still.
    fn paused(&self, event: &Event) -> Option<usize> {
        let replica = match event {
            Event::Tick { replica, .. } | Event::Judge { replica, .. } => *replica,
            Event::Arrive {
                to: Node::Replica(replica),
                ..
            } => *replica,
            Event::SnapshotEnded { from, .. } | Event::Unreachable { from, .. } => *from,
            _ => return None,
        };
        let seat = replica as usize - 1;
        (self.seats[seat].paused_until > self.now).then_some(seat)
    }

    /// A renewal that reached the leader in office counts from here on, even
    /// if the leader stands still.
    fn note_heard(&mut self, event: &Event) {
        let Event::Arrive {
            to: Node::Replica(to),
            packet:
                Packet::Call(Call {
                    request: Request::Renew { key, .. },
                    ..
                }),
            ..
        } = event
        else {
            return;
        };
        if self.leader_in_office() == Some(*to) {
            self.heard.renewals.insert(key.clone(), self.now);
        }
    }

    /// Of those who believe that they lead, the one of the latest term.
    pub(crate) fn leader_in_office(&self) -> Option<u64> {
        let hosts = self.seats.iter().filter_map(|seat| seat.host.as_ref());
        let leaders = hosts.filter(|host| host.leads());
        leaders.max_by_key(|host| host.replica.term()).map(Host::id)
    }

    fn tick(&mut self, replica: u64, life: u64) -> Result<(), String> {
        let seat = &self.seats[replica as usize - 1];
        if seat.life != life {
            return Ok(());
        }
        let next = self.now + TICK * 1_000 / seat.rate;
        self.at(next, Event::Tick { replica, life });
        self.with_host(replica, Host::tick)
    }

    fn judge(&mut self, replica: u64, life: u64) -> Result<(), String> {
        let now = self.now;
        let seat = &mut self.seats[replica as usize - 1];
        if seat.life != life {
            return Ok(());
        }
        let elapsed = Duration::from_micros((now - seat.judged) * seat.rate);
        seat.judged = now;
        self.at(now + JUDGE_EVERY, Event::Judge { replica, life });
        self.with_host(replica, |host| host.judge(elapsed))
    }

    fn arrive(&mut self, to: Node, packet: Packet) -> Result<(), String> {
        let mut out = Outbox::default();
        match (to, packet) {
            (Node::Replica(replica), packet) => {
                return self.with_host(replica, |host| host.take(packet));
            }
            (Node::Instance(number), Packet::Answer(answer)) => {
                let instance = &mut self.fleet[number];
                if matches!(answer.reply, Reply::Renewed { lost: true, .. }) {
                    let held = instance.lease.as_ref().is_some_and(|key| {
                        let service = self.ledger.registry().service(&key.service);
                        let holder = service.and_then(|it| it.instance(&key.instance));
                        holder.is_some_and(|holder| holder.lease == key.lease)
                    });
                    self.counts.mislaid += u64::from(held);
                }
                instance.answered(self.now, answer);
            }
            (Node::Script(number), Packet::Answer(answer)) => {
                let script = &mut self.scripts[number];
                script.answered(self.now, self.moment, answer, &mut self.chance, &mut out);
            }
            (
                Node::Watcher(number),
                Packet::Answer(Answer {
                    reply: Reply::View(view),
                    ..
                }),
            ) => {
                self.counts.views += 1;
                self.ledger.shown(&view)?;
                self.watchers[number].shown(&view)?;
            }
            _ => {}
        }
        self.dispatch(to, out, 0);
        Ok(())
    }

    fn wake(&mut self, node: Node) -> Result<(), String> {
        let mut out = Outbox::default();
        match node {
            Node::Instance(number) => {
                self.fleet[number].wake(self.now, &mut self.chance, &mut out);
            }
            Node::Script(number) => {
                let script = &mut self.scripts[number];
                script.wake(self.now, self.moment, &mut self.chance, &mut out);
            }
            Node::Watcher(number) => self.watchers[number].wake(&mut self.chance, &mut out),
            Node::Replica(_) => {}
        }
        self.dispatch(node, out, 0);
        Ok(())
    }

    fn resume(&mut self, replica: u64) -> Result<(), String> {
        let seat = &mut self.seats[replica as usize - 1];
        if seat.paused_until > self.now {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut seat.inbox);
        // What was due while it stood still happened once at most, and before
        // or after it looks into its sockets.
        let mut ticks = 0;
        let timers_first = self.chance.per_mille(500);
        waiting.sort_by_key(|event| {
            let is_timer = matches!(event, Event::Tick { .. } | Event::Judge { .. });
            is_timer != timers_first
        });
        for event in waiting {
            if matches!(event, Event::Tick { .. }) {
                ticks += 1;
                if ticks > TICKS_AT_ONCE {
                    continue;
                }
            }
            self.happen(event)?;
        }
        Ok(())
    }

    fn restart(&mut self, replica: u64) -> Result<(), String> {
        let now = self.now;
        let seat = &mut self.seats[replica as usize - 1];
        if seat.host.is_some() || seat.is_out {
            return Ok(());
        }
        let is_bad = seat.bad_until > now;
        if !is_bad {
            seat.disk.repair();
        }
        seat.life += 1;
        seat.paused_until = 0;
        seat.inbox.clear();
        match Host::start(&self.setup, replica, seat.life, seat.disk.attach()) {
            Ok(host) => {
                let life = seat.life;
                let found = (host.replica.term(), host.replica.last_index());
                if seat.synced.is_some_and(|had| found.0 < had.0 || found.1 < had.1) {
                    return self.came_back_short(replica, found);
                }
                seat.host = Some(host);
                seat.judged = now;
                seat.synced = None;
                self.at(now + 1, Event::Tick { replica, life });
                self.at(now + JUDGE_EVERY, Event::Judge { replica, life });
                self.with_host(replica, |_| Ok(()))
            }
            Err(_) if is_bad => {
                seat.disk.crash(&mut self.chance);
                self.at(now + 500, Event::Restart { replica });
                Ok(())
            }
            Err(_) if self.flipped == Some(replica) => {
                self.put_out(replica);
                Ok(())
            }
            Err(reason) => Err(format!("replica {replica} cannot start: {reason}")),
        }
    }

    /// Has a replica do something, and carries away what comes of it.
    pub(crate) fn with_host(
        &mut self,
        replica: u64,
        work: impl FnOnce(&mut Host) -> Result<(), trimtab_server::consensus::error::FatalError>,
    ) -> Result<(), String> {
        let at = replica as usize - 1;
        let Some(mut host) = self.seats[at].host.take() else {
            return Ok(());
        };
        let term = host.replica.term();
        let worked = work(&mut host);
        let took_term = host.replica.term() > term;
        let done = std::mem::take(&mut host.done);
        self.counts.terms = self.counts.terms.max(host.replica.term());
        self.seats[at].host = Some(host);
        for (keys, command) in done.judged {
            self.heard.judged(self.now, &keys, command, &self.ledger);
        }
        for round in done.rounds {
            let applied = self.ledger.applied(round, &self.heard);
            applied.map_err(|reason| format!("replica {replica}: {reason}"))?;
        }
        for (_, packet) in &done.out.sends {
            if let Packet::Answer(Answer {
                reply: Reply::Decided { index, result },
                ..
            }) = packet
            {
                self.ledger.acknowledged(*index, result)?;
            }
        }
        let delay = self.slow_sync(at);
        self.dispatch(Node::Replica(replica), done.out, delay);
        let Err(error) = worked else {
            if took_term {
                self.after_a_vote(replica);
            }
            return Ok(());
        };
        let seat = &mut self.seats[at];
        let is_storage = matches!(
            error,
            trimtab_server::consensus::error::FatalError::Storage(_)
        );
        if is_storage && (seat.doomed || seat.bad_until > self.now) {
            self.counts.disk_errors += u64::from(!seat.doomed);
            self.crash(replica);
            return Ok(());
        }
        if self.flipped == Some(replica) {
            self.put_out(replica);
            return Ok(());
        }
        Err(format!("replica {replica} stopped: {error}"))
    }

    /// A slow disk: whatever waited for the sync leaves late, and so long the
    /// replica does nothing else.
    fn slow_sync(&mut self, at: usize) -> u64 {
        let seat = &mut self.seats[at];
        let syncs = seat.disk.syncs();
        let has_synced = std::mem::replace(&mut seat.syncs, syncs) != syncs;
        if !has_synced || seat.slow_until <= self.now {
            return 0;
        }
        let delay = self.chance.between(5, 250);
        self.pause(at as u64 + 1, delay);
        delay
    }

    /// A process stands still, whatever arrives.
    pub(crate) fn pause(&mut self, replica: u64, length: u64) {
        let until = self.now + length;
        let seat = &mut self.seats[replica as usize - 1];
        seat.paused_until = seat.paused_until.max(until);
        self.at(until, Event::Resume { replica });
    }

    /// Everything was synced when it died, and now it is not there.
    fn came_back_short(&mut self, replica: u64, found: (u64, u64)) -> Result<(), String> {
        if self.flipped == Some(replica) {
            self.counts.shortened += 1;
            self.put_out(replica);
            return Ok(());
        }
        let had = self.seats[replica as usize - 1].synced;
        Err(format!("replica {replica} had {had:?}, came back with {found:?}"))
    }

    /// A replica found its data damaged: it stays away until someone sees to it.
    fn put_out(&mut self, replica: u64) {
        let seat = &mut self.seats[replica as usize - 1];
        seat.host = None;
        seat.is_out = true;
        seat.life += 1;
        self.counts.refusals += 1;
    }

    /// A process dies, and with it whatever its disk had not synced.
    pub(crate) fn crash(&mut self, replica: u64) {
        let wait = match self.healed {
            true => 10,
            false => self.chance.between(20, 4_000),
        };
        self.crash_for(replica, wait);
    }

    /// It is back after so long.
    pub(crate) fn crash_for(&mut self, replica: u64, wait: u64) {
        let seat = &mut self.seats[replica as usize - 1];
        let was_synced = !seat.doomed && seat.bad_until <= self.now;
        let had = seat.host.as_ref().filter(|_| was_synced && self.setup.planted.is_none());
        seat.synced = had.map(|host| (host.replica.term(), host.replica.last_index()));
        seat.disk.crash(&mut self.chance);
        if seat.doomed {
            seat.doomed = false;
            seat.disk.repair();
        }
        seat.host = None;
        seat.life += 1;
        seat.inbox.clear();
        seat.paused_until = 0;
        self.counts.crashes += 1;
        self.flip_a_bit(replica);
        self.at(self.now + wait, Event::Restart { replica });
    }

    /// Carries away what someone sends of his own accord.
    pub(crate) fn carry_away(&mut self, from: Node, out: Outbox) {
        self.dispatch(from, out, 0);
    }

    fn dispatch(&mut self, from: Node, out: Outbox, delay: u64) {
        for wait in out.wakes {
            self.at(self.now + wait, Event::Actor(from));
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
        self.counts.lost += u64::from(arrivals.is_empty());
        if let (Node::Replica(from), Node::Replica(to), Packet::Raft(bytes)) = (from, to, &packet) {
            let first = arrivals.first().copied();
            if is_snapshot(bytes) {
                self.counts.snapshots_sent += 1;
                let arrived = first.is_some();
                let time = self.now + delay + first.unwrap_or(50) + 5;
                self.at(time, Event::SnapshotEnded { from, to, arrived });
            } else if first.is_none() && self.chance.per_mille(500) {
                self.at(self.now + delay + 5, Event::Unreachable { from, to });
            }
        }
        for after in arrivals {
            let packet = packet.clone();
            self.at(self.now + delay + after, Event::Arrive { from, to, packet });
        }
    }
}

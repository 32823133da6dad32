//! One run: replicas, instances, scripts and callers on one clock, moved by one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_registry::name::ServiceName;
use trimtab_server::consensus::membership::Member;
use trimtab_server::leases::LeaseSettings;

use crate::callers::{Caller, Doing};
use crate::chance::Chance;
use crate::counts::Counts;
use crate::faults::{LOST_DISKS, MEMBERS};
use crate::fleet::Instance;
use crate::history::{Model, Routes, Told};
use crate::host::{Host, Setup};
use crate::ledger::{Heard, Ledger};
use crate::network::Network;
use crate::operator::Operator;
use crate::packet::{Answer, Call, Flow, Node, Outbox, Packet, Reply, Request};
use crate::planted::Planted;
use crate::scripts::{Script, what_it_asks};
use crate::seats::Seat;
use crate::streams::Stream;
use crate::trace::Trace;
use trimtab_server::peers::Report;

/// How far a replica's clock may go wrong, in parts of a thousand.
pub(crate) const DRIFT_MAX: u64 = 20;

/// Who is called.
pub(crate) const SERVICES: [&str; 2] = ["catalog", "search"];
const GROUPS: [&str; 3] = ["v1", "v2", "v3"];
/// How many of a group there are, at least and at most.
const INSTANCES: (u64, u64) = (3, 5);
const SCRIPTS: usize = 3;
const CALLERS: usize = 3;

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
    /// One is told, truly or not, that the other's process has ended.
    Gone {
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
    /// On a watch stream, up to its replica or down.
    Flow {
        stream: u64,
        up: bool,
        flow: Flow,
    },
    Ping {
        stream: u64,
    },
    /// A caller, as one of its processes, does something.
    Caller(usize, u64, Doing),
    Actor(Node),
    Fault,
    Operator,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) moment: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    pub(crate) chance: Chance,
    pub(crate) setup: Setup,
    pub(crate) seats: Vec<Seat>,
    pub(crate) network: Network,
    pub(crate) fleet: Vec<Instance>,
    pub(crate) scripts: Vec<Script>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) streams: Vec<Stream>,
    trace: Trace,
    pub(crate) ledger: Ledger,
    pub(crate) heard: Heard,
    pub(crate) counts: Counts,
    /// Which kinds of faults this run has.
    pub(crate) kinds: u64,
    /// Nothing goes wrong: not yet, or not any more.
    pub(crate) healed: bool,
    /// The replica whose disk turned a bit over.
    pub(crate) flipped: Option<u64>,
    pub(crate) operator: Operator,
    /// The first caller makes many calls.
    pub(crate) is_busy: bool,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut chance = Chance::new(seed);
        let replicas = [3, 3, 3, 3, 3, 3, 1, 5][chance.index(8)];
        let member = |id: u64| Member {
            address: format!("127.0.0.{id}:1"),
            disk_id: 10 + id,
        };
        let founders: BTreeMap<u64, Member> = (1..=replicas).map(|id| (id, member(id))).collect();
        let setup = Setup {
            seed,
            founders,
            snapshot_every: chance.between(5, 60),
            trailing_entries: chance.between(0, 12),
            leases: LeaseSettings {
                brake_hold: Duration::from_millis(chance.between(2_000, 6_000)),
                ..LeaseSettings::default()
            },
            planted,
        };
        // What only lost disks can show is not looked for without them.
        let always = match planted {
            Some(Planted::DisksUnchecked) => 1 << MEMBERS | 1 << LOST_DISKS,
            _ => 0,
        };
        // How long scripts rest between requests, at most.
        let rest = [0, 0, 1_500, 5_000][chance.index(4)];
        let services = SERVICES.map(|name| ServiceName::parse(name).expect("a name"));
        let seats = (1..=replicas).map(|id| Seat::new(id, &mut chance));
        let mut world = Self {
            now: 0,
            moment: 0,
            agenda: BTreeMap::new(),
            seats: seats.collect(),
            network: Network::default(),
            fleet: Vec::new(),
            scripts: (0..SCRIPTS)
                .map(|number| Script::new(number, replicas, &services, rest))
                .collect(),
            callers: (0..CALLERS)
                .map(|number| Caller::new(number, 0, (replicas, planted), &mut chance))
                .collect(),
            streams: Vec::new(),
            trace: Trace::default(),
            ledger: Ledger::new(),
            heard: Heard::default(),
            counts: Counts::default(),
            kinds: chance.number() | always,
            healed: true,
            flipped: None,
            operator: Operator::default(),
            is_busy: chance.per_mille(100),
            setup,
            chance,
        };
        world.populate(replicas);
        world
    }

    fn populate(&mut self, replicas: u64) {
        for service in SERVICES {
            for (age, group) in GROUPS.iter().enumerate() {
                for _ in 0..self.chance.between(INSTANCES.0, INSTANCES.1) {
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

    /// Scripts and callers begin.
    pub(crate) fn begin(&mut self) -> Model {
        self.begin_operating();
        for number in 0..self.scripts.len() {
            self.at(self.now, Event::Actor(Node::Script(number)));
        }
        for number in 0..self.callers.len() {
            self.start_caller(number);
        }
        let routes: Routes = (self.ledger.registry().services())
            .filter_map(|service| {
                let revision = service.route_revision().0;
                let route = what_it_asks(service.route()?);
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
            self.trace.note(self.now, &event);
            self.happen(event)
                .map_err(|reason| format!("at {} ms: {reason}", self.now))?;
        }
        self.now = end;
        Ok(())
    }

    /// Everything that happened, in one number.
    pub(crate) fn traced(&self) -> u64 {
        self.trace.sum()
    }

    pub(crate) fn happen(&mut self, event: Event) -> Result<(), String> {
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
                let report = Report::SnapshotEnded { peer: to, arrived };
                self.with_host(from, |host| host.report(report))
            }
            Event::Unreachable { from, to } => {
                self.with_host(from, |host| host.report(Report::Unreachable(to)))
            }
            Event::Gone { from, to } => self.with_host(from, |host| host.report(Report::Gone(to))),
            Event::Flow { stream, up, flow } => self.flowed(stream, up, flow),
            Event::Ping { stream } => {
                self.ping(stream);
                Ok(())
            }
            Event::Caller(number, life, doing) => self.caller_does(number, life, doing),
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
            Event::Operator => {
                self.operate();
                Ok(())
            }
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
            Event::SnapshotEnded { from, .. }
            | Event::Unreachable { from, .. }
            | Event::Gone { from, .. } => *from,
            Event::Flow {
                stream, up: true, ..
            } => self.streams[*stream as usize].replica,
            _ => return None,
        };
        let seat = replica as usize - 1;
        (self.seats[seat].paused_until > self.now).then_some(seat)
    }

    /// A renewal that reached the leader in office counts from here on, even
    /// if the leader stands still.
    pub(crate) fn note_heard(&mut self, event: &Event) {
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
            self.heard.renewed(self.now, key, &self.ledger);
        }
    }

    /// Of those who believe that they lead, the one of the latest term.
    pub(crate) fn leader_in_office(&self) -> Option<u64> {
        let hosts = self.seats.iter().filter_map(|seat| seat.host.as_ref());
        let leaders = hosts.filter(|host| host.leads());
        leaders
            .max_by_key(|host| host.replica().term())
            .map(Host::id)
    }

    fn arrive(&mut self, to: Node, packet: Packet) -> Result<(), String> {
        let mut out = Outbox::default();
        match (to, packet) {
            (Node::Replica(replica), packet) => {
                if let Some((asker, refusal)) = self.refusal(replica, &packet) {
                    self.carry_to(to, asker, refusal);
                }
                return self.with_host(replica, |host| host.take(packet));
            }
            (Node::Instance(number), Packet::Answer(answer)) => {
                let instance = &mut self.fleet[number];
                if let Reply::Decided { index, .. } = answer.reply
                    && instance.awaits(answer.id)
                    && index <= instance.asked_after
                {
                    return Err(format!(
                        "instance {number} asked when the outcome of entry {} was known, and was \
                         told that it was done at {index}",
                        instance.asked_after
                    ));
                }
                let is_lost = matches!(answer.reply, Reply::Renewed { lost: true, .. });
                if is_lost && instance.awaits(answer.id) {
                    let held = instance.lease.as_ref().is_some_and(|key| {
                        let service = self.ledger.registry().service(&key.service);
                        let holder = service.and_then(|it| it.instance(&key.instance));
                        holder.is_some_and(|holder| holder.lease == key.lease)
                    });
                    if held {
                        return Err(format!(
                            "instance {number} was told by replica {} that its lease is lost",
                            instance.replica
                        ));
                    }
                }
                instance.answered(self.now, answer);
                self.notice_an_end(number);
            }
            (Node::Operator, Packet::Answer(answer)) => return self.operator_told(answer),
            (Node::Script(number), Packet::Answer(answer)) => {
                self.check_complete(number, &answer)?;
                let script = &mut self.scripts[number];
                script.answered(self.now, self.moment, answer, &mut self.chance, &mut out);
            }
            _ => {}
        }
        self.dispatch(to, out, 0);
        Ok(())
    }

    /// Where no process runs, whoever connects is told so.
    fn refusal(&self, replica: u64, packet: &Packet) -> Option<(Node, Packet)> {
        let is_off = self.seats[replica as usize - 1].host.is_none();
        match packet {
            Packet::Call(Call { id, path, .. }) if is_off => match path[..] {
                [asker @ (Node::Instance(_) | Node::Operator)] => {
                    let (path, reply) = (Vec::new(), Reply::NotDone);
                    let id = *id;
                    Some((asker, Packet::Answer(Answer { id, path, reply })))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn wake(&mut self, node: Node) -> Result<(), String> {
        let mut out = Outbox::default();
        match node {
            Node::Instance(number) => {
                self.fleet[number].wake(self.now, &mut self.chance, &mut out);
                self.notice_an_end(number);
            }
            Node::Script(number) => {
                let script = &mut self.scripts[number];
                script.wake(self.now, self.moment, &mut self.chance, &mut out);
            }
            Node::Replica(_) | Node::Caller(_) | Node::Operator => {}
        }
        self.dispatch(node, out, 0);
        Ok(())
    }

    /// When an instance's process ended, its callers notice.
    pub(crate) fn notice_an_end(&mut self, number: usize) {
        let instance = &mut self.fleet[number];
        if instance.is_dead() && !std::mem::replace(&mut instance.is_noticed, true) {
            self.instance_ended(number);
        }
    }
}

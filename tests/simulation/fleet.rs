//! Instances: they register, renew, change their minds, leave, and die.

use trimtab_registry::command::{Command, Deregister, Register, SetStatus};
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, LeaseKey, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Rejection;
use trimtab_server::consensus::entry::{decode_result, encode_command};

use crate::chance::Chance;
use crate::packet::{Answer, Node, Outbox, Reply, Request};

/// How long an instance waits for the answer to a registration.
const REGISTER_TIMEOUT: u64 = 2_000;

const PORT_FIRST: usize = 4_000;
/// Where instances run.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// Which instance has an address.
pub(crate) fn number_of(address: &str) -> usize {
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    port.map_or(0, |port: usize| port - PORT_FIRST)
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Unborn,
    Alive,
    /// It asks to be forgotten.
    Leaving,
    /// It left, or the registry will not have it; or its process died.
    Gone,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Instance {
    number: usize,
    pub(crate) service: ServiceName,
    pub(crate) id: InstanceId,
    group: GroupName,
    ttl: Ttl,
    pub(crate) life: Life,
    pub(crate) lease: Option<LeaseKey>,
    starting: bool,
    pub(crate) replicas: u64,
    /// The replica it speaks with.
    pub(crate) replica: u64,
    calls: u64,
    /// What it waits for, and until when.
    waits: Option<(u64, u64)>,
    /// The last entry whose outcome anyone had been told when it asked.
    pub(crate) asked_after: u64,
    next_renewal: u64,
    /// Its end was noticed by those who were connected.
    pub(crate) is_noticed: bool,
    /// What it says that it can take.
    capacity: u32,
    ailment: Ailment,
}

/// What is wrong with an instance that lives and can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ailment {
    pub(crate) until: u64,
    /// So many of a thousand calls fail.
    pub(crate) failing: u64,
    /// Answers take up to so many milliseconds longer.
    pub(crate) slower: u64,
}

impl Instance {
    pub(crate) fn new(
        number: usize,
        (service, group): (&str, &str),
        replicas: u64,
        chance: &mut Chance,
    ) -> Self {
        Self {
            number,
            service: ServiceName::parse(service).expect("a name"),
            id: InstanceId::parse(&format!("i{number}")).expect("an id"),
            group: GroupName::parse(group).expect("a name"),
            ttl: Ttl::from_millis(chance.between(3_000, 9_000)).expect("in range"),
            life: Life::Unborn,
            lease: None,
            starting: chance.per_mille(300),
            replicas,
            replica: chance.between(1, replicas),
            calls: 0,
            waits: None,
            asked_after: 0,
            next_renewal: 0,
            is_noticed: false,
            capacity: [100, 100, 100, 50, 250][chance.index(5)],
            ailment: Ailment::default(),
        }
    }

    /// From now on something is wrong with it.
    pub(crate) fn ail(&mut self, ailment: Ailment) {
        self.ailment = ailment;
    }

    /// How long it takes to answer a call, and whether it fails.
    pub(crate) fn serve(&self, now: u64, chance: &mut Chance) -> (u64, bool) {
        let usual = chance.between(1, 60);
        if now >= self.ailment.until {
            return (usual, false);
        }
        let longer = chance.between(0, self.ailment.slower);
        (usual + longer, chance.per_mille(self.ailment.failing))
    }

    pub(crate) fn node(&self) -> Node {
        Node::Instance(self.number)
    }

    /// `host:port`: no two have the same.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", PORT_FIRST + self.number)
    }

    /// What it runs.
    pub(crate) fn release(&self) -> (ServiceName, GroupName) {
        (self.service.clone(), self.group.clone())
    }

    /// Where it runs.
    pub(crate) fn zone(&self) -> &'static str {
        ZONES[self.number % ZONES.len()]
    }

    /// Whether nobody listens there: not yet, or not any more.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.life, Life::Unborn | Life::Gone)
    }

    /// The process dies. Its stream breaks, if anyone is there to see it.
    pub(crate) fn die(&mut self, out: &mut Outbox) {
        self.life = Life::Gone;
        self.stream_broke(out);
    }

    /// Time to look at what is due.
    pub(crate) fn wake(&mut self, now: u64, chance: &mut Chance, out: &mut Outbox) {
        if matches!(self.life, Life::Unborn) {
            self.life = Life::Alive;
        }
        if self.life == Life::Gone {
            return;
        }
        out.wakes.push(chance.between(80, 120));
        if let Some((_, deadline)) = self.waits {
            if deadline > now {
                return;
            }
            // No answer: another replica may have one.
            self.stream_broke(out);
            self.replica = self.replica % self.replicas + 1;
            self.waits = None;
        }
        match (&self.lease, self.life) {
            (None, Life::Alive) => self.register(now, out),
            (None, _) => self.life = Life::Gone,
            (Some(lease), Life::Leaving) => {
                let lease = lease.clone();
                self.propose(now, &Command::Deregister(Deregister { lease }), out);
            }
            (Some(lease), _) if self.starting => {
                let (lease, status) = (lease.clone(), DeclaredStatus::Ready);
                self.propose(now, &Command::SetStatus(SetStatus { lease, status }), out);
            }
            (Some(lease), _) if self.next_renewal <= now => {
                let (via, key) = (self.replica, lease.clone());
                // Asked again at the next replica well before the TTL is over.
                let patience = self.ttl.as_millis() / 6;
                self.ask(now + patience, Request::Renew { via, key }, out);
            }
            _ => {}
        }
    }

    /// Whether it still waits for the answer to this call.
    pub(crate) fn awaits(&self, call: u64) -> bool {
        self.life != Life::Gone && self.waits.is_some_and(|(waited, _)| waited == call)
    }

    /// An answer came. Late ones are not waited for any more.
    pub(crate) fn answered(&mut self, now: u64, answer: Answer) {
        if !self.awaits(answer.id) {
            return;
        }
        self.waits = None;
        match answer.reply {
            Reply::Renewed { retire: true, .. } => self.life = Life::Leaving,
            Reply::Renewed { lost: true, .. } => self.lease = None,
            Reply::Renewed { .. } => self.next_renewal = now + self.ttl.as_millis() / 3,
            Reply::Decided { result, .. } => {
                let result = decode_result(&result).expect("a result");
                self.decided(now, result);
            }
            _ => {
                // Not done, or not known: the other replicas may know better.
                self.replica = self.replica % self.replicas + 1;
            }
        }
    }

    fn decided(&mut self, now: u64, result: Result<Outcome, Rejection>) {
        match result {
            Ok(Outcome::Registered { lease, .. }) => {
                self.lease = Some(LeaseKey {
                    service: self.service.clone(),
                    instance: self.id.clone(),
                    lease,
                });
                self.next_renewal = now + self.ttl.as_millis() / 3;
            }
            Ok(Outcome::StatusSet { .. }) => self.starting = false,
            Ok(Outcome::Deregistered { .. }) | Err(Rejection::GroupRetiring { .. }) => {
                self.lease = None;
                self.life = Life::Gone;
            }
            // The lease is gone: it registers anew.
            _ => self.lease = None,
        }
    }

    fn register(&mut self, now: u64, out: &mut Outbox) {
        let status = match self.starting {
            true => DeclaredStatus::Starting,
            false => DeclaredStatus::Ready,
        };
        let command = Command::Register(Register {
            service: self.service.clone(),
            instance: InstanceSpec {
                id: self.id.clone(),
                group: self.group.clone(),
                address: Address::parse(&self.address()).expect("an address"),
                zone: Zone::parse(self.zone()).expect("a zone"),
                capacity: Capacity::new(self.capacity).expect("in range"),
                metadata: Metadata::default(),
                status,
            },
            ttl: self.ttl,
            at_ms: now,
        });
        self.propose(now, &command, out);
    }

    fn propose(&mut self, now: u64, command: &Command, out: &mut Outbox) {
        let bytes = encode_command(command).expect("encodes");
        self.ask(now + REGISTER_TIMEOUT, Request::Propose(bytes), out);
    }

    fn ask(&mut self, deadline: u64, request: Request, out: &mut Outbox) {
        self.calls += 1;
        self.waits = Some((self.calls, deadline));
        out.call(self.node(), self.replica, self.calls, request);
    }

    fn stream_broke(&mut self, out: &mut Outbox) {
        if let Some(key) = self.lease.clone() {
            let via = self.replica;
            out.call(self.node(), via, 0, Request::Broken { via, key });
        }
    }
}

//! Processes that call services: the client's own resolver and picker, on simulated streams and connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trimtab_client::simulation::{Caller as Core, LinkState, Picked, Turn};
use trimtab_proto::v1::watch_request::Kind as Ask;

use crate::chance::Chance;
use crate::fleet::number_of;
use crate::lines::Line;
use crate::packet::Flow;
use crate::picks::{Picks, Place};
use crate::planted::Planted;
use crate::world::{Event, SERVICES, World};

/// Between two calls of one caller to one service.
const CALL_EVERY: u64 = 100;
/// Attempts at one call, as many as the client makes.
const ATTEMPTS_MAX: u32 = 17;
/// What is due for a caller.
#[derive(Debug, Clone)]
pub(crate) enum Doing {
    /// It calls every service once.
    Call,
    /// A call is answered.
    Answered(u64),
    /// It opens a stream.
    Open,
    /// It may have waited long enough.
    Look,
    /// It reports load.
    Report,
    /// Its calls are to follow what it heard of a service.
    Follow(usize),
    /// It says which revision its calls follow.
    Confirm(usize),
    /// It tries to connect.
    Connect(usize, Arc<str>, u64),
    /// It notices whether a connection still holds.
    Ping(usize, Arc<str>),
    /// It has held what a view took away for long enough.
    LetGo(usize),
}

/// A call that waits for an instance.
#[derive(Debug)]
struct Waiting {
    service: usize,
    turn: Turn,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) number: usize,
    pub(crate) life: u64,
    pub(crate) core: Core,
    pub(crate) chance: Chance,
    pub(crate) stream: Option<u64>,
    /// The one before it.
    pub(crate) stream_before: Option<u64>,
    pub(crate) lines: [BTreeMap<Arc<str>, Line>; 2],
    /// The newest that its calls were told to follow.
    followed: [(u64, Option<u64>); 2],
    waiting: Vec<Waiting>,
    under_way: BTreeMap<u64, (usize, Picked)>,
    pub(crate) picks: [Picks; 2],
    pub(crate) made: u64,
    pub(crate) ended: u64,
    pub(crate) last_failure: u64,
}

impl Caller {
    pub(crate) fn new(number: usize, life: u64, replicas: u64, chance: &mut Chance) -> Self {
        let id = format!("c{number}-{life}");
        let mut core = Core::new(&id, &SERVICES, replicas as usize).expect("valid names");
        core.start_at(chance.index(replicas as usize));
        Self {
            number,
            life,
            core,
            chance: Chance::new(chance.number()),
            stream: None,
            stream_before: None,
            lines: [BTreeMap::new(), BTreeMap::new()],
            followed: [(0, None); 2],
            waiting: Vec::new(),
            under_way: BTreeMap::new(),
            picks: [Picks::default(), Picks::default()],
            made: 0,
            ended: 0,
            last_failure: 0,
        }
    }

    pub(crate) fn state_of(&self, service: usize, address: &str) -> Option<LinkState> {
        self.lines[service].get(address).map(|line| line.state)
    }

    /// Calls made that are neither answered nor lost: those that wait, and
    /// those under way.
    pub(crate) fn open_calls(&self) -> (usize, usize) {
        (self.waiting.len(), self.under_way.len())
    }

    /// Calls that wait though there is someone to call.
    pub(crate) fn stuck_calls(&self) -> usize {
        let is_stuck = |it: &&Waiting| self.picks[it.service].has_anyone();
        self.waiting.iter().filter(is_stuck).count()
    }

    pub(crate) fn has_lines_to(&self, address: &str) -> Vec<usize> {
        (0..SERVICES.len())
            .filter(|service| self.state_of(*service, address) == Some(LinkState::Up))
            .collect()
    }
}

impl World {
    pub(crate) fn caller_at(&mut self, number: usize, wait: u64, doing: Doing) {
        let life = self.callers[number].life;
        self.at(self.now + wait, Event::Caller(number, life, doing));
    }

    /// A caller starts, or starts again, knowing nothing.
    pub(crate) fn start_caller(&mut self, number: usize) {
        if let Some(stream) = self.callers[number].stream {
            self.end_dies(stream, false);
        }
        let life = self.callers[number].life + 1;
        let replicas = self.replicas();
        self.callers[number] = Caller::new(number, life, replicas, &mut self.chance);
        self.caller_at(number, 0, Doing::Open);
        self.caller_at(number, 1, Doing::Call);
    }

    pub(crate) fn caller_does(
        &mut self,
        number: usize,
        life: u64,
        doing: Doing,
    ) -> Result<(), String> {
        if self.callers[number].life != life {
            return Ok(());
        }
        match doing {
            Doing::Call => {
                self.caller_at(number, CALL_EVERY, Doing::Call);
                for service in 0..SERVICES.len() {
                    self.callers[number].made += 1;
                    self.attempt(number, service, Turn::default(), true)?;
                }
            }
            Doing::Answered(call) => {
                let now = Duration::from_millis(self.now);
                let caller = &mut self.callers[number];
                if let Some((_, picked)) = caller.under_way.remove(&call) {
                    caller
                        .core
                        .ended_call(picked, false, &mut Turn::default(), now);
                    caller.ended += 1;
                }
            }
            Doing::Open => self.connect_to_replica(number)?,
            Doing::Look => self.look(number),
            Doing::Report => {
                let caller = &mut self.callers[number];
                caller.core.report(Duration::from_millis(self.now));
                if caller.core.is_open() {
                    self.caller_at(number, 1_000, Doing::Report);
                }
                self.flush(number)?;
            }
            Doing::Follow(service) => self.follow(number, service)?,
            Doing::Confirm(service) => {
                let caller = &mut self.callers[number];
                let used = caller.core.used(SERVICES[service]);
                caller.core.confirm(SERVICES[service], used);
                caller.picks[service].floor = used;
                self.flush(number)?;
            }
            Doing::Connect(service, address, attempt) => {
                self.connect(number, service, &address, attempt)?;
            }
            Doing::Ping(service, address) => {
                if !self.reaches(number, number_of(&address)) {
                    self.went(number, service, &address, LinkState::Down)?;
                }
            }
            Doing::LetGo(service) => {
                self.let_go(number, service);
                self.expect_picks(number, service);
                self.try_waiting(number, service)?;
            }
        }
        Ok(())
    }

    fn connect_to_replica(&mut self, number: usize) -> Result<(), String> {
        let planted = self.setup.planted;
        let caller = &mut self.callers[number];
        if caller.core.is_open() {
            return Ok(());
        }
        if planted == Some(Planted::CallerGoesBack) {
            SERVICES.iter().for_each(|it| caller.core.forget(it));
        }
        let replica = caller.core.open() as u64 + 1;
        let stream = self.open_stream(number, replica);
        let caller = &mut self.callers[number];
        caller.stream_before = caller.stream.replace(stream);
        self.look_later(number);
        self.flush(number)
    }

    fn look_later(&mut self, number: usize) {
        let caller = &self.callers[number];
        let (Some(due), Some(stream)) = (caller.core.due(), caller.stream) else {
            return;
        };
        let due = self.streams[stream as usize].opened + due.as_millis() as u64 + 1;
        self.caller_at(number, due.saturating_sub(self.now), Doing::Look);
    }

    fn open_for(&self, number: usize) -> Duration {
        let stream = self.callers[number].stream;
        let opened = stream.map_or(self.now, |stream| self.streams[stream as usize].opened);
        Duration::from_millis(self.now - opened)
    }

    fn look(&mut self, number: usize) {
        let open_for = self.open_for(number);
        let caller = &mut self.callers[number];
        if let Err(wait) = caller.core.look(open_for, caller.chance.generator()) {
            self.leave(number, wait);
        }
    }

    /// It left its replica, or was left, and tries the next one later.
    fn leave(&mut self, number: usize, wait: Duration) {
        if let Some(stream) = self.callers[number].stream.take() {
            self.end_dies(stream, false);
        }
        self.caller_at(number, wait.as_millis() as u64, Doing::Open);
    }

    /// Sends what the caller wants to say on its stream.
    fn flush(&mut self, number: usize) -> Result<(), String> {
        let Some(stream) = self.callers[number].stream else {
            return Ok(());
        };
        while let Some(request) = self.callers[number].core.next_request() {
            if let Some(Ask::Receipt(receipt)) = &request.kind {
                self.counts.receipts += 1;
                let used = self.callers[number].core.used(&receipt.service);
                if used < receipt.revision {
                    return Err(format!(
                        "caller {number} confirms {} of {}, its calls follow {used}",
                        receipt.revision, receipt.service
                    ));
                }
            }
            self.flow(stream, true, Flow::Request(request), 0);
        }
        Ok(())
    }

    /// Something arrived on the caller's stream.
    pub(crate) fn heard(
        &mut self,
        number: usize,
        life: u64,
        stream: u64,
        flow: Flow,
    ) -> Result<(), String> {
        let caller = &mut self.callers[number];
        if caller.life != life || caller.stream != Some(stream) {
            return Ok(());
        }
        match flow {
            Flow::Answer(mut response) => {
                self.check_said(number, stream, &response)?;
                if self.setup.planted == Some(Planted::KeepsOldRoute) {
                    self.keep_old_route(number, &mut response);
                }
                let open_for = self.open_for(number);
                let caller = &mut self.callers[number];
                let heard = caller
                    .core
                    .hear(open_for, response, caller.chance.generator());
                match heard {
                    Ok(None) => {}
                    Ok(Some(interval)) => {
                        let wait = self.chance.between(100, interval.as_millis() as u64);
                        self.caller_at(number, wait, Doing::Report);
                    }
                    Err(wait) => self.leave(number, wait),
                }
                self.look_later(number);
                self.follow_soon(number)?;
                self.flush(number)
            }
            Flow::Ended => {
                if self.setup.planted == Some(Planted::CallerStaysDeaf) {
                    return Ok(());
                }
                let wait = caller.core.broke(caller.chance.generator());
                self.leave(number, wait);
                Ok(())
            }
            Flow::Opened | Flow::Request(_) => Ok(()),
        }
    }

    /// Calls follow what was heard as soon as the task that does it runs.
    fn follow_soon(&mut self, number: usize) -> Result<(), String> {
        for (service, name) in SERVICES.iter().enumerate() {
            let caller = &mut self.callers[number];
            let known = caller.core.known(name);
            if caller.followed[service] == known {
                continue;
            }
            caller.followed[service] = known;
            if self.setup.planted == Some(Planted::ReceiptBeforeSwap) {
                self.callers[number].core.confirm(name, known.0);
                self.flush(number)?;
            }
            let wait = self.chance.between(0, 15);
            self.caller_at(number, wait, Doing::Follow(service));
        }
        Ok(())
    }

    fn follow(&mut self, number: usize, service: usize) -> Result<(), String> {
        let now = Duration::from_millis(self.now);
        let caller = &mut self.callers[number];
        let before = caller.core.used(SERVICES[service]);
        let missed = self.missed(number, service);
        self.counts.shrinks += u64::from(!missed.is_empty());
        let caller = &mut self.callers[number];
        let rng = caller.chance.generator();
        let wishes = caller.core.follow(SERVICES[service], now, rng);
        let used = caller.core.used(SERVICES[service]);
        if used < before {
            return Err(format!(
                "caller {number} went back from {before} to {used} of {}",
                SERVICES[service]
            ));
        }
        for (id, holding) in missed {
            let held = &mut self.callers[number].picks[service].held;
            held.entry(id).or_insert(holding);
        }
        for wish in wishes {
            self.fulfil(number, service, wish);
        }
        self.let_go(number, service);
        self.expect_picks(number, service);
        // After the last call that was begun by an older picker.
        let wait = match self.chance.per_mille(20) {
            true => self.chance.between(5, 100),
            false => self.chance.between(0, 2),
        };
        self.caller_at(number, wait, Doing::Confirm(service));
        self.try_waiting(number, service)
    }

    /// What a view took away is let go, where it is time to.
    pub(crate) fn let_go(&mut self, number: usize, service: usize) {
        let now = Duration::from_millis(self.now);
        let caller = &mut self.callers[number];
        let rng = caller.chance.generator();
        let (wishes, until) = caller.core.let_go(SERVICES[service], now, rng);
        for wish in wishes {
            self.fulfil(number, service, wish);
        }
        if let Some(until) = until {
            let wait = until.saturating_sub(now).as_millis() as u64;
            self.caller_at(number, wait, Doing::LetGo(service));
        }
    }

    pub(crate) fn try_waiting(&mut self, number: usize, service: usize) -> Result<(), String> {
        let all = std::mem::take(&mut self.callers[number].waiting);
        let (now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.service == service);
        self.callers[number].waiting = later;
        for waiting in now {
            self.attempt(number, service, waiting.turn, false)?;
        }
        Ok(())
    }

    /// Attempts of one call until it is under way, waits or is lost.
    fn attempt(
        &mut self,
        number: usize,
        service: usize,
        mut turn: Turn,
        mut is_first: bool,
    ) -> Result<(), String> {
        let now = Duration::from_millis(self.now);
        for _ in 0..ATTEMPTS_MAX {
            let caller = &mut self.callers[number];
            let name = SERVICES[service];
            if self.setup.planted == Some(Planted::OrderForgotten) {
                caller.core.forget_order(name, caller.chance.generator());
            }
            let rng = caller.chance.generator();
            let picked = caller.core.pick(name, &mut turn, now, rng);
            let place = match is_first {
                true => Place::Drawn,
                false if turn.is_repeat() => Place::None,
                false => Place::DrawnBefore,
            };
            self.check_pick(number, service, picked.as_ref(), place)?;
            is_first = false;
            let Some(picked) = picked else {
                self.counts.waits += 1;
                let waiting = Waiting { service, turn };
                self.callers[number].waiting.push(waiting);
                return Ok(());
            };
            let instance = self.instance_of(&picked);
            if self.reaches(number, instance) {
                self.counts.calls += 1;
                let call = self.counts.calls;
                let wait = self.chance.between(1, 60);
                self.callers[number]
                    .under_way
                    .insert(call, (service, picked));
                self.caller_at(number, wait, Doing::Answered(call));
                return Ok(());
            }
            let is_dead = self.fleet[instance].is_dead();
            let caller = &mut self.callers[number];
            caller.last_failure = self.now;
            caller.core.ended_call(picked, true, &mut turn, now);
            if !is_dead {
                // It may have got there: not repeated.
                break;
            }
        }
        self.counts.calls_lost += 1;
        self.callers[number].ended += 1;
        Ok(())
    }

    fn instance_of(&self, picked: &Picked) -> usize {
        let id = picked.instance();
        id.trim_start_matches('i').parse().expect("i and a number")
    }
}

//! Processes that call services: the client's own resolver and picker, on simulated streams and connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trimtab_client::simulation::{Caller as Core, LinkState};
use trimtab_proto::v1::watch_request::Kind as Ask;

use crate::calls::{Call, UnderWay};
use crate::chance::Chance;
use crate::fleet::{ZONES, number_of};
use crate::lines::Line;
use crate::packet::Flow;
use crate::picks::Picks;
use crate::planted::Planted;
use crate::world::{Event, SERVICES, World};

/// Between two calls of one caller to one service.
const CALL_EVERY: u64 = 100;
/// The same of a caller that is busy.
const BUSY_CALL_EVERY: u64 = 20;

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
    /// Something is due by what it knows of a service.
    LookAfter(usize, u64),
    /// Calls to an instance failed one after another.
    Judge(usize),
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
    /// When it will look after each service, if nothing happens before.
    look_after_at: [u64; 2],
    /// Calls that wait for an instance.
    pub(crate) waiting: Vec<Call>,
    pub(crate) under_way: BTreeMap<u64, UnderWay>,
    /// Calls under way to each instance.
    pub(crate) in_flight: BTreeMap<usize, u32>,
    /// Where it runs; empty if nobody said.
    pub(crate) zone: &'static str,
    pub(crate) picks: [Picks; 2],
    pub(crate) made: u64,
    pub(crate) ended: u64,
    pub(crate) last_failure: u64,
}

impl Caller {
    pub(crate) fn new(
        number: usize,
        life: u64,
        (replicas, planted): (u64, Option<Planted>),
        chance: &mut Chance,
    ) -> Self {
        let id = format!("c{number}-{life}");
        let zone = match chance.per_mille(200) {
            true => "",
            false => ZONES[number % ZONES.len()],
        };
        let believed = match planted {
            Some(Planted::ZoneForgotten) if !zone.is_empty() => "nowhere",
            _ => zone,
        };
        let mut core = Core::new(&id, believed, &SERVICES, replicas as usize).expect("valid names");
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
            look_after_at: [u64::MAX; 2],
            waiting: Vec::new(),
            under_way: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            zone,
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
        let is_stuck = |it: &&Call| self.picks[it.service].has_anyone();
        self.waiting.iter().filter(is_stuck).count()
    }

    /// An instance has a new connection: nothing is held against it, and to
    /// calls it is another.
    pub(crate) fn opened(&mut self, service: usize, id: &str) {
        self.picks[service].ejections.opened(id);
        let under_way = self.under_way.values_mut().map(|it| &mut it.call);
        let calls = under_way.chain(&mut self.waiting);
        for call in calls.filter(|call| call.service == service) {
            call.tried.retain(|tried| *tried != *id);
        }
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
        let setup = (self.replicas(), self.setup.planted);
        self.callers[number] = Caller::new(number, life, setup, &mut self.chance);
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
                let is_busy = number == 0 && self.is_busy;
                let every = if is_busy { BUSY_CALL_EVERY } else { CALL_EVERY };
                self.caller_at(number, every, Doing::Call);
                self.call_all(number)?;
            }
            Doing::Answered(call) => self.call_ended(number, call)?,
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
            Doing::LookAfter(service, at) => {
                // Another time was agreed on meanwhile.
                if self.callers[number].look_after_at[service] == at {
                    self.callers[number].look_after_at[service] = u64::MAX;
                    self.look_again(number, service)?;
                }
            }
            Doing::Judge(service) => self.look_again(number, service)?,
        }
        Ok(())
    }

    fn look_again(&mut self, number: usize, service: usize) -> Result<(), String> {
        // Steps of a warm-up are taken notice of in any case.
        let is_warming = self.callers[number].picks[service].ramp.is_on();
        let takes_notice = is_warming || self.setup.planted != Some(Planted::CallsTheEjected);
        self.look_after(number, service, takes_notice)?;
        self.expect_picks(number, service)?;
        self.try_waiting(number, service)
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
        while let Some(mut request) = self.callers[number].core.next_request() {
            // Planted bugs that misread views do it with whole ones.
            let misreads =
                self.setup.planted == Some(Planted::KeepsOldRoute) || self.tampers_with_views();
            if misreads && let Some(Ask::Subscribe(subscribe)) = &mut request.kind {
                subscribe.takes_deltas = false;
            }
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
                self.tamper(number, &mut response);
                self.misfit(number, &mut response);
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
        let before = self.callers[number].core.used(SERVICES[service]);
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
        self.warm_up(number, service, before);
        // Calls might be made now: what comes next may be another order of turns.
        self.expect_picks(number, service)?;
        self.look_after(number, service, true)?;
        self.expect_picks(number, service)?;
        // After the last call that was begun by an older picker.
        let wait = match self.chance.per_mille(20) {
            true => self.chance.between(5, 100),
            false => self.chance.between(0, 2),
        };
        self.caller_at(number, wait, Doing::Confirm(service));
        self.try_waiting(number, service)
    }

    /// Has the caller see to what is due, and holds what it did against what
    /// it had reason to.
    pub(crate) fn look_after(
        &mut self,
        number: usize,
        service: usize,
        takes_notice: bool,
    ) -> Result<(), String> {
        let forgets_time = self.setup.planted == Some(Planted::ForgetsTime);
        let now = Duration::from_millis(self.now);
        let caller = &mut self.callers[number];
        let rng = caller.chance.generator();
        let (wishes, due) = (caller.core).look_after(SERVICES[service], now, takes_notice, rng);
        for wish in wishes {
            self.fulfil(number, service, wish);
        }
        if let Some(due) = due.filter(|_| !forgets_time) {
            // Not before its time: a part of a millisecond counts as one.
            let at = due.as_nanos().div_ceil(1_000_000) as u64;
            let at = at.max(self.now + 1);
            let agreed = &mut self.callers[number].look_after_at[service];
            if at < *agreed {
                *agreed = at;
                self.caller_at(number, at - self.now, Doing::LookAfter(service, at));
            }
        }
        self.check_judged(number, service)?;
        self.check_subset(number, service)
    }
}

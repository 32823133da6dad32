//! Connections from callers to instances: they are made, break, and are noticed to.

use std::sync::Arc;

use trimtab_client::simulation::{LinkState, Wish};

use crate::callers::Doing;
use crate::fleet::number_of;
use crate::packet::Node;
use crate::planted::Planted;
use crate::world::{SERVICES, World};

/// After a connection broke it is tried again, first soon and then ever later.
const RETRY_FIRST: u64 = 50;
const RETRY_MOST: u64 = 3_000;
/// After so long without a connection the attempt has failed.
const CONNECT_TIMEOUT: u64 = 1_000;

/// A connection to an instance.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) state: LinkState,
    /// Which of its attempts to connect counts.
    attempt: u64,
    /// The first attempt has waited for its answer in vain.
    has_waited: bool,
    retry_after: u64,
}

impl World {
    pub(crate) fn fulfil(&mut self, number: usize, service: usize, wish: Wish) {
        let lines = &mut self.callers[number].lines[service];
        match wish {
            Wish::Open(address) => {
                let line = Line {
                    state: LinkState::Untried,
                    attempt: 0,
                    has_waited: false,
                    retry_after: RETRY_FIRST,
                };
                lines.insert(Arc::clone(&address), line);
                let id = format!("i{}", number_of(&address));
                self.callers[number].opened(service, &id);
                let wait = self.chance.between(1, 8);
                self.caller_at(number, wait, Doing::Connect(service, address, 0));
            }
            Wish::Retry(address) => {
                if let Some(line) = lines.get_mut(&address) {
                    line.attempt += 1;
                    let attempt = line.attempt;
                    self.caller_at(number, 1, Doing::Connect(service, address, attempt));
                }
            }
            Wish::Close(address) => {
                lines.remove(&address);
            }
        }
    }

    pub(crate) fn connect(
        &mut self,
        number: usize,
        service: usize,
        address: &Arc<str>,
        attempt: u64,
    ) -> Result<(), String> {
        let instance = number_of(address);
        let reaches = self.reaches(number, instance);
        let is_dead = self.fleet[instance].is_dead();
        let Some(line) = self.callers[number].lines[service].get_mut(address) else {
            return Ok(());
        };
        if line.attempt != attempt || line.state == LinkState::Up {
            return Ok(());
        }
        if reaches {
            line.retry_after = RETRY_FIRST;
            return self.went(number, service, address, LinkState::Up);
        }
        if !is_dead && !line.has_waited {
            line.has_waited = true;
            let again = Doing::Connect(service, Arc::clone(address), attempt);
            self.caller_at(number, CONNECT_TIMEOUT, again);
            return Ok(());
        }
        self.went(number, service, address, LinkState::Down)
    }

    /// A connection came up or went down.
    pub(crate) fn went(
        &mut self,
        number: usize,
        service: usize,
        address: &Arc<str>,
        state: LinkState,
    ) -> Result<(), String> {
        let planted = self.setup.planted;
        let caller = &mut self.callers[number];
        let Some(line) = caller.lines[service].get_mut(address) else {
            return Ok(());
        };
        line.state = state;
        line.attempt += 1;
        if state == LinkState::Down {
            let wait = caller
                .chance
                .between(line.retry_after / 2, line.retry_after);
            line.retry_after = (2 * line.retry_after).min(RETRY_MOST);
            let again = Doing::Connect(service, Arc::clone(address), line.attempt);
            self.caller_at(number, wait, again);
        }
        let caller = &mut self.callers[number];
        let name = SERVICES[service];
        caller.core.connected(name, address, state);
        match planted {
            Some(Planted::LossOfConnectionUnnoticed) if state == LinkState::Down => {}
            Some(Planted::SubsetForgetsTheDead) => {
                caller.core.take_notice(name, caller.chance.generator());
            }
            _ => self.look_after(number, service, true)?,
        }
        self.check_subset(number, service)?;
        self.expect_picks(number, service)?;
        self.try_waiting(number, service)
    }

    /// Whether packets get there and back, and someone listens.
    pub(crate) fn reaches(&self, caller: usize, instance: usize) -> bool {
        let (here, there) = (Node::Caller(caller), Node::Instance(instance));
        !self.fleet[instance].is_dead()
            && self.network.cut_until(self.now, here, there).is_none()
            && self.network.cut_until(self.now, there, here).is_none()
    }

    /// An instance's process ended: whoever is connected notices, at once if
    /// its machine can tell.
    pub(crate) fn instance_ended(&mut self, instance: usize) {
        let address: Arc<str> = self.fleet[instance].address().into();
        for caller in 0..self.callers.len() {
            let there = (Node::Instance(instance), Node::Caller(caller));
            let is_cut = self.network.cut_until(self.now, there.0, there.1).is_some();
            for service in self.callers[caller].has_lines_to(&address) {
                let wait = self.chance.between(1, if is_cut { 7_000 } else { 10 });
                self.caller_at(caller, wait, Doing::Ping(service, Arc::clone(&address)));
            }
        }
    }

    /// A caller and an instance are cut from each other for a while.
    pub(crate) fn cut_from_instance(&mut self, caller: usize, instance: usize, until: u64) {
        let (here, there) = (Node::Caller(caller), Node::Instance(instance));
        self.network.cut(here, there, until);
        let address: Arc<str> = self.fleet[instance].address().into();
        for service in self.callers[caller].has_lines_to(&address) {
            let wait = self.chance.between(2_000, 7_000);
            self.caller_at(caller, wait, Doing::Ping(service, Arc::clone(&address)));
        }
    }
}

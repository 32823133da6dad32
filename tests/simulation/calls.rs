//! Calls that callers make: attempts, answers, failures, repetitions.

use std::time::Duration;

use trimtab_client::simulation::{Outcome, Picked, Turn};
use trimtab_client::sticky::{BUCKETS, Bucket, StickyKey};

use crate::callers::Doing;
use crate::chance::Chance;
use crate::planted::Planted;
use crate::world::{SERVICES, World};
use crate::zones::giving_way;

/// Attempts at one call, as many as the client makes.
const ATTEMPTS_MAX: u32 = 17;
/// How many users there are.
const KEYS: u64 = 40;

/// A call between attempts.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) service: usize,
    pub(crate) tie: Tie,
    turn: Turn,
    /// Whom it was sent to, over the connections that they have.
    pub(crate) tried: Vec<String>,
    /// The group of the last of these.
    pub(crate) failed_in: String,
    /// Groups in which calls may leave the caller's zone for what they cost.
    pub(crate) giving_way: Vec<String>,
    /// Made so far.
    pub(crate) attempts: u32,
    /// It may be sent again after an instance said that it failed.
    is_repeatable: bool,
}

/// What ties a call to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    Nothing,
    /// Whom it is for.
    Key(u64),
    /// It is part of a call that had this bucket.
    Bucket(u16),
}

/// A call that an instance has.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) call: Call,
    picked: Picked,
    fails: bool,
}

impl Tie {
    fn draw(chance: &mut Chance) -> Self {
        match chance.between(0, 99) {
            0..40 => Self::Key(chance.between(1, KEYS)),
            40..45 => Self::Bucket(chance.between(0, u64::from(BUCKETS) - 1) as u16),
            _ => Self::Nothing,
        }
    }

    /// The key of a user.
    pub(crate) fn key(number: u64) -> StickyKey {
        StickyKey::new(format!("user-{number}"))
    }
}

impl Call {
    pub(crate) fn draw(service: usize, planted: Option<Planted>, chance: &mut Chance) -> Self {
        let tie = Tie::draw(chance);
        let turn = match tie {
            Tie::Nothing => Turn::default(),
            Tie::Bucket(number) => Turn::tied(None, Bucket::new(number)),
            Tie::Key(number) => {
                let key = Tie::key(number);
                match planted {
                    Some(Planted::SaltIgnored) => {
                        let bucket = key.bucket(0);
                        Turn::tied(Some(key), Some(bucket))
                    }
                    Some(Planted::KeyIgnored) => Turn::default(),
                    _ => Turn::tied(Some(key), None),
                }
            }
        };
        Self {
            service,
            tie,
            turn,
            tried: Vec::new(),
            failed_in: String::new(),
            giving_way: Vec::new(),
            attempts: 0,
            is_repeatable: chance.per_mille(500),
        }
    }
}

impl World {
    /// A caller calls every service once.
    pub(crate) fn call_all(&mut self, number: usize) -> Result<(), String> {
        for service in 0..SERVICES.len() {
            self.callers[number].made += 1;
            let call = Call::draw(service, self.setup.planted, &mut self.chance);
            self.attempt(number, call, true)?;
        }
        Ok(())
    }

    /// Attempts of one call until it is under way, waits or is lost.
    pub(crate) fn attempt(
        &mut self,
        number: usize,
        mut call: Call,
        mut is_first: bool,
    ) -> Result<(), String> {
        let now = Duration::from_millis(self.now);
        while call.attempts < ATTEMPTS_MAX {
            let caller = &mut self.callers[number];
            let name = SERVICES[call.service];
            if self.setup.planted == Some(Planted::OrderForgotten) {
                caller.core.forget_order(name, caller.chance.generator());
            }
            call.giving_way = giving_way(caller, call.service);
            let rng = caller.chance.generator();
            let picked = caller.core.pick(name, &mut call.turn, now, rng);
            self.check_pick(number, &call, picked.as_ref(), is_first)?;
            is_first = false;
            let Some(picked) = picked else {
                self.counts.waits += 1;
                self.callers[number].waiting.push(call);
                return Ok(());
            };
            call.attempts += 1;
            let instance = self.instance_of(&picked);
            if self.reaches(number, instance) {
                self.hand_over_call(number, instance, call, picked);
                return Ok(());
            }
            let is_dead = self.fleet[instance].is_dead();
            let caller = &mut self.callers[number];
            caller.last_failure = self.now;
            call.tried.push(picked.instance().to_owned());
            call.failed_in = picked.group().to_owned();
            let lost = Outcome::Lost;
            caller.core.ended_call(picked, lost, &mut call.turn, now);
            if !is_dead {
                // It may have got there: not repeated.
                break;
            }
        }
        self.counts.calls_lost += 1;
        self.callers[number].ended += 1;
        Ok(())
    }

    fn hand_over_call(&mut self, number: usize, instance: usize, mut call: Call, picked: Picked) {
        self.counts.calls += 1;
        // Not when it fails: by then the instance may have a new connection.
        call.tried.push(picked.instance().to_owned());
        let id = self.counts.calls;
        let (wait, fails) = self.fleet[instance].serve(self.now, &mut self.chance);
        let caller = &mut self.callers[number];
        let in_flight = caller.in_flight.entry(instance).or_default();
        *in_flight += 1;
        let under_way = UnderWay {
            call,
            picked,
            fails,
        };
        caller.under_way.insert(id, under_way);
        self.caller_at(number, wait, Doing::Answered(id));
    }

    /// An instance answers, or says that it failed.
    pub(crate) fn call_ended(&mut self, number: usize, id: u64) -> Result<(), String> {
        let now = Duration::from_millis(self.now);
        let caller = &mut self.callers[number];
        let Some(UnderWay {
            mut call,
            picked,
            fails,
        }) = caller.under_way.remove(&id)
        else {
            return Ok(());
        };
        let instance = picked.instance().to_owned();
        call.failed_in = picked.group().to_owned();
        let outcome = if fails {
            Outcome::Failed
        } else {
            Outcome::Answered
        };
        let is_suspicious = caller.core.ended_call(picked, outcome, &mut call.turn, now);
        let ejections = &mut caller.picks[call.service].ejections;
        ejections.ended(&instance, self.now, fails);
        if let Ok(number) = instance.trim_start_matches('i').parse()
            && let Some(in_flight) = caller.in_flight.get_mut(&number)
        {
            *in_flight -= 1;
        }
        if is_suspicious {
            let wait = self.chance.between(0, 3);
            self.caller_at(number, wait, Doing::Judge(call.service));
        }
        if fails && call.is_repeatable {
            self.counts.repeats += 1;
            return self.attempt(number, call, false);
        }
        self.counts.calls_failed += u64::from(fails);
        self.callers[number].ended += 1;
        Ok(())
    }

    pub(crate) fn try_waiting(&mut self, number: usize, service: usize) -> Result<(), String> {
        let all = std::mem::take(&mut self.callers[number].waiting);
        let (now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.service == service);
        self.callers[number].waiting = later;
        for call in now {
            self.attempt(number, call, false)?;
        }
        Ok(())
    }

    fn instance_of(&self, picked: &Picked) -> usize {
        let id = picked.instance();
        id.trim_start_matches('i').parse().expect("i and a number")
    }
}

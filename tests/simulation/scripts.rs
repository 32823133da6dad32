//! Deploy scripts: they read routes, shift them, roll back, tear down, and write down what they were told.

use bytes::Bytes;
use trimtab_registry::command::{
    AdjustInstance, Adjustment, Change, Command, Rollback, RollbackTarget, ServiceShift, Shift,
    Target, Teardown,
};
use trimtab_registry::group::GroupState;
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::outcome::{Outcome, Routed};
use trimtab_registry::policy::RoutePolicy;
use trimtab_registry::rejection::Rejection;
use trimtab_registry::revision::Revision;
use trimtab_registry::route::{Route, Weights};
use trimtab_registry::text::{Actor, Reason, RequestId};
use trimtab_server::consensus::entry::{decode_result, encode_command};

use crate::chance::Chance;
use crate::history::{Answered, Ask, Operation, Told};
use crate::packet::{Answer, Node, Outbox, Reply, Request, RouteRead};
use crate::policies::{capacity, policy, weights};

/// How often a request is repeated, under the same request id.
const ATTEMPTS_MAX: u32 = 4;
const TIMEOUT: u64 = 1_500;
/// How long it waits for one answer about receipts, and for all callers.
const RECEIPTS_TIMEOUT: u64 = 1_300;
const FOLLOWED_FOR: u64 = 4_000;

/// One script.
#[derive(Debug)]
pub(crate) struct Script {
    number: usize,
    pub(crate) replicas: u64,
    services: Vec<ServiceName>,
    calls: u64,
    known: Vec<RouteRead>,
    under_way: Option<UnderWay>,
    pub(crate) following: Option<Following>,
    /// No new requests any more.
    pub(crate) is_over: bool,
    pub(crate) operations: Vec<Operation>,
    /// How long it rests between requests, at most.
    rest: u64,
    rests_until: u64,
}

/// It waits until every caller uses what it has changed, as `switch --wait`
/// does.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) services: Vec<ServiceName>,
    pub(crate) revision: u64,
    pub(crate) call: u64,
    ask_at: u64,
    until: u64,
}

#[derive(Debug)]
struct UnderWay {
    called: u64,
    ask: Option<Ask>,
    request: Request,
    call: u64,
    deadline: u64,
    attempts: u32,
    /// An attempt may still take effect.
    in_doubt: bool,
}

impl Script {
    pub(crate) fn new(number: usize, replicas: u64, services: &[ServiceName], rest: u64) -> Self {
        Self {
            number,
            replicas,
            services: services.to_vec(),
            calls: 0,
            known: Vec::new(),
            under_way: None,
            following: None,
            is_over: false,
            operations: Vec::new(),
            rest,
            rests_until: 0,
        }
    }

    /// Time to ask something, or to give up waiting. `moment` counts
    /// everything that happens.
    pub(crate) fn wake(&mut self, now: u64, moment: u64, chance: &mut Chance, out: &mut Outbox) {
        out.wakes.push(chance.between(20, 400));
        if self.following.is_some() {
            return self.follow(now, chance, out);
        }
        match &mut self.under_way {
            Some(waiting) if waiting.deadline > now => {}
            Some(waiting) => {
                waiting.in_doubt = true;
                self.try_again(now, moment, chance, out);
            }
            None if self.is_over || now < self.rests_until => {}
            None => {
                self.rests_until = now + chance.between(0, self.rest);
                let (ask, request) = self.choose(now, chance);
                self.under_way = Some(UnderWay {
                    called: moment,
                    ask,
                    request,
                    call: 0,
                    deadline: 0,
                    attempts: 0,
                    in_doubt: false,
                });
                self.try_again(now, moment, chance, out);
            }
        }
    }

    fn follow(&mut self, now: u64, chance: &mut Chance, out: &mut Outbox) {
        let Some(following) = self.following.as_mut().filter(|it| now < it.until) else {
            self.following = None;
            return;
        };
        if following.ask_at > now {
            return;
        }
        self.calls += 1;
        following.call = self.calls;
        following.ask_at = now + RECEIPTS_TIMEOUT;
        let request = Request::Receipts {
            services: following.services.clone(),
            revision: following.revision,
        };
        let to = chance.between(1, self.replicas);
        out.call(Node::Script(self.number), to, self.calls, request);
    }

    fn told_receipts(&mut self, now: u64, call: u64, is_complete: bool) {
        if let Some(following) = self.following.as_mut().filter(|it| it.call == call) {
            following.ask_at = now;
            if is_complete {
                self.following = None;
            }
        }
    }

    /// Waits for the callers, now and then.
    fn may_follow(&mut self, now: u64, told: &Answered, chance: &mut Chance) {
        if let Answered::Changed(revision, routes) = told
            && chance.per_mille(600)
        {
            let changed = |it: &&ServiceName| routes.contains_key(&it.to_string());
            self.following = Some(Following {
                services: self.services.iter().filter(changed).cloned().collect(),
                revision: *revision,
                call: 0,
                ask_at: now,
                until: now + FOLLOWED_FOR,
            });
        }
    }

    /// An answer came.
    pub(crate) fn answered(
        &mut self,
        now: u64,
        moment: u64,
        answer: Answer,
        chance: &mut Chance,
        out: &mut Outbox,
    ) {
        if let Reply::Receipts(tally) = answer.reply {
            return self.told_receipts(now, answer.id, tally.is_complete);
        }
        let Some(waiting) = self.under_way.as_mut() else {
            return;
        };
        if waiting.call != answer.id {
            return;
        }
        match answer.reply {
            Reply::Read(reads) => {
                let told = reads.iter().map(|read| {
                    let (revision, route) = (read.revision, read.route.clone());
                    (read.service.to_string(), Told { revision, route })
                });
                let told = Answered::Read(told.collect());
                self.known = reads;
                self.finish(moment, Some(told));
            }
            Reply::Decided { result, .. } => {
                let result = decode_result(&result).expect("a result");
                let told = told(result);
                let settles = matches!(told, Answered::Changed(..)) || !waiting.in_doubt;
                self.may_follow(now, &told, chance);
                self.finish(moment, settles.then_some(told));
            }
            Reply::Unknown => {
                waiting.in_doubt = true;
                self.try_again(now, moment, chance, out);
            }
            // Surely nothing was done: as good a moment to give up as any.
            _ if chance.per_mille(400) => {
                if !waiting.in_doubt {
                    waiting.ask = None;
                }
                self.finish(moment, None);
            }
            _ => self.try_again(now, moment, chance, out),
        }
    }

    fn try_again(&mut self, now: u64, moment: u64, chance: &mut Chance, out: &mut Outbox) {
        let Some(waiting) = self.under_way.as_mut() else {
            return;
        };
        if waiting.attempts >= ATTEMPTS_MAX {
            let nothing_done = !waiting.in_doubt;
            if nothing_done {
                waiting.ask = None;
            }
            return self.finish(moment, None);
        }
        waiting.attempts += 1;
        self.calls += 1;
        waiting.call = self.calls;
        waiting.deadline = now + TIMEOUT;
        let to = chance.between(1, self.replicas);
        let request = waiting.request.clone();
        out.call(Node::Script(self.number), to, self.calls, request);
    }

    fn finish(&mut self, moment: u64, answer: Option<Answered>) {
        let Some(UnderWay { called, ask, .. }) = self.under_way.take() else {
            return;
        };
        let is_read = matches!(ask, Some(Ask::Read(_)));
        let Some(ask) = ask.filter(|_| answer.is_some() || !is_read) else {
            return;
        };
        self.operations.push(Operation {
            called,
            returned: answer.is_some().then_some(moment),
            ask,
            answer,
        });
    }

    fn choose(&mut self, now: u64, chance: &mut Chance) -> (Option<Ask>, Request) {
        let choice = chance.between(0, 99);
        if self.known.is_empty() || choice < 45 {
            let names = self.services.iter().map(ToString::to_string).collect();
            return (Some(Ask::Read(names)), Request::Read(self.services.clone()));
        }
        let change = self.change(now, chance);
        let at = chance.index(self.known.len());
        let (ask, command) = match choice {
            45..80 => self.shift(at, change, chance),
            80..88 => self.rollback(at, change, chance),
            88..95 => self.adjust(at, change, chance),
            _ => self.teardown(at, change, chance),
        };
        let bytes: Bytes = encode_command(&command).expect("encodes");
        (ask, Request::Propose(bytes))
    }

    fn change(&mut self, now: u64, chance: &mut Chance) -> Change {
        self.calls += 1;
        let id = format!("{}-{}", self.number, self.calls);
        Change {
            actor: Actor::parse("a script").expect("short"),
            reason: Reason::default(),
            at_ms: now,
            request_id: RequestId::parse(&id).expect("short"),
            force: chance.per_mille(700),
        }
    }

    fn shift(&self, at: usize, change: Change, chance: &mut Chance) -> (Option<Ask>, Command) {
        let all = chance.per_mille(250);
        let chosen = (self.known.iter().enumerate()).filter(|(number, _)| all || *number == at);
        let mut asked = Vec::new();
        let mut shifts = Vec::new();
        for (_, read) in chosen {
            let expected = chance.per_mille(850).then_some(read.revision);
            let weights = weights(read, chance);
            let policy = match chance.per_mille(500) {
                true => read.policy,
                false => policy(chance),
            };
            let route = in_words(&weights, &policy);
            asked.push((read.service.to_string(), expected, route));
            shifts.push(ServiceShift {
                service: read.service.clone(),
                target: Target::Weights(weights),
                expected: expected.map(Revision),
                min_ready: None,
                policy: Some(policy),
            });
        }
        (
            Some(Ask::Shift(asked)),
            Command::Shift(Shift { shifts, change }),
        )
    }

    fn rollback(&self, at: usize, change: Change, chance: &mut Chance) -> (Option<Ask>, Command) {
        let read = &self.known[at];
        let expected = chance.per_mille(850).then_some(read.revision);
        let target = RollbackTarget {
            service: read.service.clone(),
            to: None,
            expected: expected.map(Revision),
        };
        let targets = vec![target];
        let ask = Ask::Rollback(read.service.to_string(), expected);
        (Some(ask), Command::Rollback(Rollback { targets, change }))
    }

    /// Not in the history: it does not touch the route.
    fn adjust(&self, at: usize, change: Change, chance: &mut Chance) -> (Option<Ask>, Command) {
        let read = &self.known[at];
        let none = || InstanceId::parse("none").expect("an id");
        let instance = match read.instances.is_empty() {
            true => none(),
            false => read.instances[chance.index(read.instances.len())].clone(),
        };
        let adjust = AdjustInstance {
            service: read.service.clone(),
            instance,
            adjustment: Adjustment::Capacity(capacity(chance)),
            expected: None,
            change,
        };
        (None, Command::AdjustInstance(adjust))
    }

    /// Not in the history: it does not touch the route.
    fn teardown(
        &self,
        at: usize,
        mut change: Change,
        chance: &mut Chance,
    ) -> (Option<Ask>, Command) {
        let read = &self.known[at];
        let idle = |(_, state): &&(GroupName, GroupState)| *state == GroupState::Standby;
        let idle: Vec<_> = read.groups.iter().filter(idle).collect();
        let group = match idle.is_empty() {
            true => GroupName::parse("none").expect("a name"),
            false => idle[chance.index(idle.len())].0.clone(),
        };
        change.force = false;
        let teardown = Teardown {
            service: read.service.clone(),
            group,
            expected: None,
            change,
        };
        (None, Command::Teardown(teardown))
    }
}

/// A route as the checker of histories knows it: what callers are asked for,
/// but not the salt, which no script can foresee.
pub(crate) fn what_it_asks(route: &Route) -> String {
    in_words(&route.weights, &route.policy)
}

fn in_words(weights: &Weights, policy: &RoutePolicy) -> String {
    format!("{weights:?} {policy:?}")
}

fn told(result: Result<Outcome, Rejection>) -> Answered {
    match result {
        Ok(Outcome::Shifted(routed) | Outcome::RolledBack(routed)) => told_of(&routed),
        Err(Rejection::RevisionMismatch {
            service, current, ..
        }) => Answered::Mismatch {
            service: service.to_string(),
            current: current.0,
        },
        _ => Answered::Refused,
    }
}

fn told_of(routed: &Routed) -> Answered {
    if routed.changes.is_empty() {
        return Answered::Unchanged;
    }
    let revision = routed.revision.0;
    let routes = routed.changes.iter().map(|change| {
        let route = what_it_asks(&change.after);
        (change.service.to_string(), Told { revision, route })
    });
    Answered::Changed(revision, routes.collect())
}

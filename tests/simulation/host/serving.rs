//! How a replica answers: proposals and reads through the engine, renewals by the leader, views on watch streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{Receiver, channel};
use trimtab_proto::v1::{GoingAway, WatchRequest, WatchResponse, watch_response};
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;
use trimtab_server::consensus::change::Change;
use trimtab_server::consensus::entry::encode_result;
use trimtab_server::consensus::error::{FatalError, ProposeError};
use trimtab_server::consensus::input::{Answer, Input};
use trimtab_server::consensus::membership::cluster_id;
use trimtab_server::grpc::watching::Watching;
use trimtab_server::observation::{Heard, Observation, Receipts};

use super::Host;
use crate::packet::{Call, Confirmed, Node, Observed, Packet, Reply, Request, RouteRead, Tally};
use crate::planted::Planted;
use crate::scripts::what_it_asks;

/// How long the other replicas are waited for.
const GATHER_MS: u64 = 1_000;

/// What the engine was asked, and whom to tell.
pub(super) struct Asked {
    id: u64,
    path: Vec<Node>,
    what: What,
}

enum What {
    Proposal(Receiver<Result<Answer, ProposeError>>),
    Read(Receiver<Result<u64, ProposeError>>, Vec<ServiceName>),
    /// Whether a lease that was not known when it was renewed is none.
    Lost(Receiver<Result<u64, ProposeError>>, u64, LeaseKey),
    Change(Receiver<Result<Option<u64>, ProposeError>>),
}

/// Receipts being gathered from all replicas.
pub(super) struct Gathering {
    id: u64,
    path: Vec<Node>,
    services: Vec<ServiceName>,
    revision: u64,
    since: u64,
    members: Vec<(u64, u64)>,
    waits_for: BTreeSet<u64>,
    observation: Observation,
    is_behind: bool,
}

impl Host {
    /// A request: what of it is for the engine.
    pub(super) fn serve(&mut self, call: Call) -> Option<Input> {
        let Call { id, path, request } = call;
        let here = self.leads();
        let relayed = path.len() > 1;
        let leader = self.leader_id;
        match request {
            Request::Propose(bytes) if here => return Some(self.proposal(id, path, bytes)),
            Request::Read(services) => return self.read(id, path, services),
            Request::Renew { via, key } if here => return self.renew(id, path, via, key),
            Request::Broken { via, key } if here => {
                self.ear.keeper().judge.broken(via, &[key]);
            }
            Request::Receipts { services, revision } => self.gather(id, path, services, revision),
            Request::Observe(services) => {
                let reply = Reply::Observed(self.observe(&services));
                self.done.out.answer(id, path, reply);
            }
            // Whoever asked has given up, and the call with him.
            Request::Change { until, .. } if until < self.now => {}
            Request::Change { change, .. } if here => return Some(self.change(id, path, change)),
            Request::Transfer(to) if here => {
                let (reply, _answer) = channel();
                return Some(Input::HandOver(Some(to), reply));
            }
            Request::WasRemoved(disk_id) => {
                let word = self.word_on(disk_id);
                self.done.out.answer(id, path, Reply::Removed(word));
            }
            request if !relayed && leader != 0 && leader != self.id() => {
                let mut path = path;
                path.push(Node::Replica(self.id()));
                let call = Call { id, path, request };
                let to = Node::Replica(leader);
                self.done.out.sends.push((to, Packet::Call(call)));
            }
            Request::Propose(_) | Request::Change { .. } => {
                self.done.out.answer(id, path, Reply::NotDone);
            }
            Request::Renew { .. } | Request::Broken { .. } | Request::Transfer(_) => {}
        }
        None
    }

    /// As `lease_keeper` does it: what is missing is lost only if a read says
    /// so.
    fn renew(&mut self, id: u64, path: Vec<Node>, via: u64, key: LeaseKey) -> Option<Input> {
        let missing = (self.ear.keeper().judge).renew(via, std::slice::from_ref(&key))?;
        if missing.is_empty() {
            let reply = self.renewed(&key, false);
            self.done.out.answer(id, path, reply);
            return None;
        }
        let (reply, answer) = channel();
        let what = What::Lost(answer, via, key);
        self.asked.push(Asked { id, path, what });
        Some(Input::Read(reply))
    }

    /// As `grpc::members` does it: a leader makes way before its own place is
    /// given away.
    fn change(&mut self, id: u64, path: Vec<Node>, change: Change) -> Input {
        let own = self.id();
        let makes_way = match change {
            Change::Add { .. } => false,
            Change::Promote { replacing, .. } => replacing == Some(own),
            Change::Remove { id, .. } => id == own && self.replica().roles().voters != [own],
        };
        if makes_way {
            self.done.out.answer(id, path, Reply::NotDone);
            let (reply, _answer) = channel();
            return Input::HandOver(None, reply);
        }
        let (reply, answer) = channel();
        let what = What::Change(answer);
        self.asked.push(Asked { id, path, what });
        Input::Change(change, reply)
    }

    fn renewed(&self, key: &LeaseKey, lost: bool) -> Reply {
        let retire = self.is_retiring(key);
        Reply::Renewed { lost, retire }
    }

    fn is_retiring(&self, key: &LeaseKey) -> bool {
        let service = self.engine.registry().service(&key.service);
        service.is_some_and(|service| {
            let instance = service.instance(&key.instance);
            let group = instance.and_then(|instance| service.group(instance.group()));
            group.is_some_and(|group| group.retiring)
        })
    }

    pub(super) fn proposal(&mut self, id: u64, path: Vec<Node>, bytes: Bytes) -> Input {
        let (reply, answer) = channel();
        let what = What::Proposal(answer);
        self.asked.push(Asked { id, path, what });
        Input::Propose(bytes, reply)
    }

    fn read(&mut self, id: u64, path: Vec<Node>, services: Vec<ServiceName>) -> Option<Input> {
        if self.setup.planted == Some(Planted::ReadWithoutBarrier) && self.is_caught_up {
            let reads = self.routes(&services);
            self.done.out.answer(id, path, Reply::Read(reads));
            return None;
        }
        let (reply, answer) = channel();
        let what = What::Read(answer, services);
        self.asked.push(Asked { id, path, what });
        Some(Input::Read(reply))
    }

    /// Tells those whose answers are there.
    pub(super) fn answer_asked(&mut self) -> Result<(), FatalError> {
        for mut asked in std::mem::take(&mut self.asked) {
            let reply = match &mut asked.what {
                What::Proposal(answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Ok(Ok(Answer { index, result })) => {
                        let result = encode_result(&result)
                            .map_err(|error| FatalError::Raft(error.to_string()))?;
                        Some(Reply::Decided { index, result })
                    }
                    Ok(Err(ProposeError::Unknown { .. })) => Some(match self.setup.planted {
                        Some(Planted::UnknownIsFailed) => Reply::NotDone,
                        _ => Reply::Unknown,
                    }),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => Some(Reply::NotDone),
                },
                What::Read(answer, services) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Ok(Ok(_)) => Some(Reply::Read(self.routes(services))),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => Some(Reply::NotDone),
                },
                What::Change(answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Ok(Ok(index)) => Some(Reply::Changed(index)),
                    Ok(Err(ProposeError::Unknown { .. })) => Some(Reply::Unknown),
                    Ok(Err(ProposeError::Members(_))) => Some(Reply::Refused),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => Some(Reply::NotDone),
                },
                What::Lost(answer, via, key) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    Ok(Ok(_)) => {
                        let renewed = self
                            .ear
                            .keeper()
                            .judge
                            .renew(*via, std::slice::from_ref(key));
                        // Without an answer it is asked again.
                        let Some(missing) = renewed else { continue };
                        Some(self.renewed(key, !missing.is_empty()))
                    }
                    Ok(Err(_)) | Err(TryRecvError::Closed) => continue,
                },
            };
            match reply {
                None => self.asked.push(asked),
                Some(reply) => self.done.out.answer(asked.id, asked.path, reply),
            }
        }
        Ok(())
    }

    fn routes(&self, services: &[ServiceName]) -> Vec<RouteRead> {
        let found = services.iter().filter_map(|name| {
            let service = self.engine.registry().service(name)?;
            let groups = service
                .groups()
                .filter_map(|group| Some((group.name.clone(), service.group_state(&group.name)?)));
            Some(RouteRead {
                service: name.clone(),
                revision: service.route_revision().0,
                route: what_it_asks(service.route()?),
                policy: service.route()?.policy,
                instances: service.instances().map(|it| it.id().clone()).collect(),
                groups: groups.collect(),
            })
        });
        found.collect()
    }

    /// A caller opens a watch stream.
    pub(crate) fn open_stream(&mut self, stream: u64) {
        let serves_all = self.setup.planted == Some(Planted::ServesBeforeCaughtUp);
        if !self.is_caught_up && !serves_all || self.stopping {
            self.done.flows.push((stream, None));
            return;
        }
        let views = Arc::clone(&self.ear.views);
        let cluster = cluster_id(&self.setup.founders);
        let watching = Watching::new(self.id(), cluster, views, Arc::clone(&self.watchers));
        self.streams.insert(stream, watching);
        // What it asks is not polled for otherwise.
        self.news.0.store(true, Ordering::Relaxed);
    }

    /// A caller asks something on its stream.
    pub(crate) fn ask_on_stream(&mut self, stream: u64, request: WatchRequest) {
        let age = Duration::from_millis(self.now - self.started);
        let Some(watching) = self.streams.get_mut(&stream) else {
            return;
        };
        match watching.take(age, request) {
            Ok(None) => {}
            Ok(Some(kind)) => self.say(stream, Some(kind)),
            Err(_) => self.end_stream(stream),
        }
        self.news.0.store(true, Ordering::Relaxed);
        self.tell_news();
    }

    /// The replica ends a stream.
    fn end_stream(&mut self, stream: u64) {
        self.streams.remove(&stream);
        self.done.flows.push((stream, None));
    }

    /// A caller's stream is gone.
    pub(crate) fn drop_stream(&mut self, stream: u64) {
        if let Some(mut watching) = self.streams.remove(&stream) {
            watching.broke(self.uptime());
        }
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now - self.started)
    }

    /// Whether a stream is open here, and counts.
    pub(crate) fn has_stream(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn say_goodbye(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for stream in streams {
            self.say(
                stream,
                Some(watch_response::Kind::GoingAway(GoingAway::default())),
            );
            self.streams.remove(&stream);
        }
    }

    pub(super) fn say_cut_off(&mut self, cut_off: bool) {
        if self.cut_off == cut_off {
            return;
        }
        self.cut_off = cut_off;
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for stream in streams {
            self.say(stream, None);
        }
    }

    fn say(&mut self, stream: u64, kind: Option<watch_response::Kind>) {
        let possibly_stale = self.cut_off;
        let response = WatchResponse {
            kind,
            possibly_stale,
        };
        self.done.flows.push((stream, Some(response)));
    }

    /// Whatever is new on the streams.
    pub(super) fn tell_news(&mut self) {
        while self.news.0.swap(false, Ordering::Relaxed) {
            let context = Context::from_waker(&self.waker);
            let mut said = Vec::new();
            for (stream, watching) in &mut self.streams {
                while let Poll::Ready(news) = watching.poll_news(&context) {
                    said.push((*stream, news.arrived(self.cut_off)));
                }
            }
            for (stream, arrived) in said {
                let arrived = arrived.expect("what production encodes can be decoded");
                self.done.flows.push((stream, Some(arrived)));
            }
        }
    }

    fn observe(&self, services: &[ServiceName]) -> Observed {
        Observed {
            from: self.id(),
            confirmed: self.confirmations(services),
            back_for: self.was_down.then_some(self.now - self.started),
            members: self.member_ids().collect(),
        }
    }

    fn member_ids(&self) -> impl Iterator<Item = u64> + '_ {
        let members = self.engine.replica().membership().iter();
        members.map(|(id, _)| id)
    }

    fn confirmations(&self, services: &[ServiceName]) -> Vec<Confirmed> {
        let mut all = Vec::new();
        for service in services {
            for it in self.watchers.confirmations(self.uptime(), service) {
                all.push(Confirmed {
                    service: service.clone(),
                    watcher_id: it.watcher_id,
                    revision: it.revision,
                });
            }
        }
        all
    }

    fn gather(&mut self, id: u64, path: Vec<Node>, services: Vec<ServiceName>, revision: u64) {
        self.last_id += 1;
        let number = self.last_id;
        let others = self.others().into_iter();
        let waits_for: BTreeSet<u64> = match self.setup.planted {
            Some(Planted::ReceiptsOfOneReplica) => BTreeSet::new(),
            _ => others.collect(),
        };
        for other in &waits_for {
            let request = Request::Observe(services.clone());
            let me = Node::Replica(self.id());
            self.done.out.call(me, *other, number, request);
        }
        let own = self.observe(&services);
        let left = self.note_departures();
        let members = self.engine.replica().membership().iter();
        let asked = self.member_ids().collect();
        self.gathering.insert(
            number,
            Gathering {
                id,
                path,
                services,
                revision,
                since: self.now,
                members: members.map(|(id, it)| (id, it.disk_id)).collect(),
                waits_for,
                is_behind: self.engine.replica().applied() < revision,
                observation: Observation {
                    left,
                    asked,
                    ..Observation::default()
                },
            },
        );
        self.observed(number, own);
    }

    /// As `keep_contact` and gathering do it.
    pub(super) fn note_departures(&mut self) -> BTreeMap<u64, Duration> {
        let others = self.others().into_iter().collect();
        let now = self.uptime();
        self.departures.note(now, others)
    }

    /// Another replica told of its watchers.
    pub(super) fn observed(&mut self, number: u64, observed: Observed) {
        let Some(gathering) = self.gathering.get_mut(&number) else {
            return;
        };
        let from = observed.from;
        if let Some(back_for) = observed.back_for {
            let back_for = Duration::from_millis(back_for);
            gathering.observation.back.insert(from, back_for);
        }
        gathering.observation.members.extend(observed.members);
        for it in observed.confirmed {
            let heard = Heard {
                name: it.watcher_id.clone(),
                watcher_id: it.watcher_id,
                replica: from,
                revision: it.revision,
            };
            gathering.observation.hear(&it.service, heard);
        }
        gathering.waits_for.remove(&from);
        if gathering.waits_for.is_empty() {
            self.tell_receipts(number);
        }
    }

    fn tell_receipts(&mut self, number: u64) {
        let Some(gathering) = self.gathering.remove(&number) else {
            return;
        };
        let mut observation = gathering.observation;
        for silent in &gathering.waits_for {
            observation.unreachable.insert(*silent, Duration::ZERO);
        }
        let receipts = Receipts {
            is_behind: gathering.is_behind,
            ..observation.receipts(&gathering.services, gathering.revision)
        };
        let tally = Tally {
            since: gathering.since,
            members: gathering.members,
            is_complete: receipts.complete(),
        };
        let reply = Reply::Receipts(tally);
        self.done.out.answer(gathering.id, gathering.path, reply);
    }

    pub(super) fn end_gathering(&mut self) {
        let late: Vec<u64> = (self.gathering.iter())
            .filter(|(_, it)| it.since + GATHER_MS <= self.now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.tell_receipts(number);
        }
    }
}

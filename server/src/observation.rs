//! What all replicas know of their watchers, gathered and merged into one picture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};
use trimtab_proto::internal::v1::{ObserveRequest, ObserveResponse};
use trimtab_proto::v1::Brake;
use trimtab_registry::name::{GroupName, ServiceName};

use crate::peers::Peers;
use crate::watchers::{LOAD_WINDOW, Load, Watchers};

/// How long a replica may be unreachable before its watchers are taken to be
/// elsewhere. A client notices within 4 seconds that a connection is dead
/// though nobody closed it (`KEEPALIVE_INTERVAL` in its `cluster.rs`), and has
/// as long to find another replica.
pub const WATCHERS_MOVE_WITHIN: Duration = Duration::from_secs(8);

/// How long a replica waits for the receipts of its watchers before it tells
/// how far they are: seldom for those who count them, soon for those who look.
pub const WAIT_FOR_RECEIPTS: Duration = Duration::from_millis(100);

/// How often a replica asks the others whether they are there.
pub const CONTACT_INTERVAL: Duration = Duration::from_secs(1);

/// One watcher's word on one service, and the replica that heard it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heard {
    /// The watcher's own id.
    pub watcher_id: String,
    /// What an operator would call it.
    pub name: String,
    /// The replica it watches through.
    pub replica: u64,
    /// The newest revision it has confirmed; 0 for none.
    pub revision: u64,
}

/// The picture of some services, over all replicas that answered.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Watchers by service and id, each counted once.
    pub watchers: BTreeMap<ServiceName, BTreeMap<String, Heard>>,
    /// Calls by service and group.
    pub loads: BTreeMap<ServiceName, BTreeMap<GroupName, Load>>,
    /// Replicas that did not answer, with the time since they last did.
    pub unreachable: BTreeMap<u64, Duration>,
    /// Replicas that forgot their watchers, because they were down, with the
    /// time since they are back.
    pub back: BTreeMap<u64, Duration>,
    /// Replicas that were members, with the time since they are none.
    pub left: BTreeMap<u64, Duration>,
    /// Members by the word of a replica that answered.
    pub members: BTreeSet<u64>,
    /// Those whose watchers were asked for.
    pub asked: BTreeSet<u64>,
    /// Removals that the others hold back, as they told.
    pub brakes: Vec<Brake>,
}

impl Observation {
    /// Adds what one replica heard. A watcher that two of them heard counts
    /// once, with its newest word.
    pub fn hear(&mut self, service: &ServiceName, heard: Heard) {
        let watchers = self.watchers.entry(service.clone()).or_default();
        match watchers.get_mut(&heard.watcher_id) {
            Some(known) if known.revision >= heard.revision => {}
            _ => {
                watchers.insert(heard.watcher_id.clone(), heard);
            }
        }
    }

    fn load(&mut self, service: &ServiceName, group: GroupName, load: Load) {
        let groups = self.loads.entry(service.clone()).or_default();
        let merged = groups.get(&group).copied().unwrap_or_default().merge(load);
        groups.insert(group, merged);
    }

    /// The watchers of a service.
    pub fn watchers_of(&self, service: &ServiceName) -> impl Iterator<Item = &Heard> {
        self.watchers
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Who has confirmed `revision` for each of `services`.
    pub fn receipts(&self, services: &[ServiceName], revision: u64) -> Receipts {
        let mut receipts = Receipts {
            unreachable: self.unreachable.keys().copied().collect(),
            left: self.left.keys().copied().collect(),
            uncertain: self.uncertain_replicas(),
            unknown: self.unknown_replicas(),
            ..Receipts::default()
        };
        for service in services {
            for heard in self.watchers_of(service) {
                receipts.watchers += 1;
                if heard.revision < revision {
                    receipts.laggards.push((service.clone(), heard.clone()));
                }
            }
        }
        receipts
    }

    /// Replicas that another one knows as members, and that were not asked.
    fn unknown_replicas(&self) -> Vec<u64> {
        let unknown = self.members.difference(&self.asked);
        let unknown = unknown.filter(|id| !self.left.contains_key(id));
        unknown.copied().collect()
    }

    /// Replicas whose watchers may be with nobody yet: they do not answer, have
    /// only just come back and know of none, or were removed a moment ago.
    fn uncertain_replicas(&self) -> Vec<u64> {
        let recent = (self.unreachable.iter().chain(&self.back).chain(&self.left))
            .filter(|(_, since)| **since < WATCHERS_MOVE_WITHIN);
        recent.map(|(replica, _)| *replica).collect()
    }
}

/// Who has confirmed a revision.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Receipts {
    /// Watchers, each counted once per service.
    pub watchers: usize,
    /// Those that have not confirmed it.
    pub laggards: Vec<(ServiceName, Heard)>,
    /// Replicas that did not answer.
    pub unreachable: Vec<u64>,
    /// Those that were removed of late.
    pub left: Vec<u64>,
    /// Those that went silent, came back or were removed so recently that their watchers
    /// may not be with another replica yet.
    pub uncertain: Vec<u64>,
    /// Members that whoever gathered did not know yet.
    pub unknown: Vec<u64>,
    /// Whoever gathered had not applied the revision: there may be replicas
    /// that it did not know of.
    pub is_behind: bool,
}

impl Receipts {
    /// Every live watcher has confirmed.
    pub fn complete(&self) -> bool {
        self.laggards.is_empty()
            && self.uncertain.is_empty()
            && self.unknown.is_empty()
            && !self.is_behind
    }

    /// Watchers that have confirmed.
    pub fn confirmed(&self) -> usize {
        self.watchers - self.laggards.len()
    }

    /// What the numbers leave out, in words.
    pub fn warnings(&self) -> Vec<String> {
        let unreachable = self.unreachable.iter().map(|replica| {
            if self.uncertain.contains(replica) {
                format!("replica {replica} does not answer: its callers are not counted until they are back through another replica")
            } else {
                format!("replica {replica} has not answered for {} s or more: callers that can reach only it are not counted", WATCHERS_MOVE_WITHIN.as_secs())
            }
        });
        let answered = |replica: &&u64| !self.unreachable.contains(replica);
        let back = self.uncertain.iter().filter(answered).map(|replica| {
            let what = match self.left.contains(replica) {
                true => "was removed a moment ago",
                false => "has only just come back",
            };
            format!("replica {replica} {what}: its callers may not be counted yet")
        });
        let unknown = self.unknown.iter().map(|replica| {
            format!("replica {replica} has only just been added: its callers are not counted yet")
        });
        let behind = self
            .is_behind
            .then(|| "the replica that was asked has not heard of the change yet".to_owned());
        unreachable
            .chain(back)
            .chain(unknown)
            .chain(behind)
            .collect()
    }
}

/// Asks the other replicas.
#[derive(Debug)]
pub struct Observer {
    id: u64,
    started: Instant,
    was_down: bool,
    watchers: Arc<Watchers>,
    peers: Peers,
    answered: Mutex<HashMap<u64, Instant>>,
    departures: Mutex<Departures>,
}

/// Who is a member no more.
#[derive(Debug, Default)]
pub struct Departures {
    members: BTreeSet<u64>,
    left: BTreeMap<u64, Duration>,
}

impl Departures {
    /// The others are these at `now`; who left lately, and how long ago.
    pub fn note(&mut self, now: Duration, members: BTreeSet<u64>) -> BTreeMap<u64, Duration> {
        let gone: Vec<u64> = self.members.difference(&members).copied().collect();
        self.left.extend(gone.into_iter().map(|id| (id, now)));
        self.left.retain(|id, since| {
            !members.contains(id) && now.saturating_sub(*since) < WATCHERS_MOVE_WITHIN
        });
        self.members = members;
        let ages = self.left.iter();
        ages.map(|(id, since)| (*id, now.saturating_sub(*since)))
            .collect()
    }
}

impl Observer {
    /// An observer on replica `id`, which ran before this start if it
    /// `was_down`.
    pub fn new(
        id: u64,
        started: Instant,
        was_down: bool,
        watchers: Arc<Watchers>,
        peers: Peers,
    ) -> Observer {
        Observer {
            id,
            started,
            was_down,
            watchers,
            peers,
            answered: Mutex::new(HashMap::new()),
            departures: Mutex::default(),
        }
    }

    /// What this replica itself knows.
    pub fn local(&self, services: &[ServiceName]) -> Observation {
        let mut observation = Observation::default();
        let now = self.started.elapsed();
        if self.was_down {
            observation.back.insert(self.id, now);
        }
        for service in services {
            for confirmation in self.watchers.confirmations(now, service) {
                observation.hear(
                    service,
                    Heard {
                        watcher_id: confirmation.watcher_id,
                        name: confirmation.name,
                        replica: self.id,
                        revision: confirmation.revision,
                    },
                );
            }
            for (group, load) in self.watchers.loads(now, service) {
                observation.load(service, group, load);
            }
        }
        observation
    }

    /// What all replicas know that answer within the peers' own time limit.
    pub async fn gather(&self, services: &[ServiceName]) -> Observation {
        self.gather_when(services, 0).await
    }

    /// The same once every replica's watchers have confirmed `revision`, or
    /// [`WAIT_FOR_RECEIPTS`] later.
    pub async fn gather_when(&self, services: &[ServiceName], revision: u64) -> Observation {
        let request = ObserveRequest {
            services: services.iter().map(ToString::to_string).collect(),
            when_confirmed: revision,
            ..ObserveRequest::default()
        };
        let others = self.peers.ids();
        let left = self.note_members(&others);
        let answers = join_all(
            others
                .iter()
                .map(|id| self.peers.observe(*id, request.clone())),
        );
        let ((), answers) = join(self.confirmed(services, revision), answers).await;
        let mut observation = self.local(services);
        observation.left = left;
        observation.asked = others.iter().copied().chain([self.id]).collect();
        for (replica, answer) in others.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    self.note_answer(replica);
                    merge(&mut observation, replica, answer);
                }
                Err(_) => {
                    observation
                        .unreachable
                        .insert(replica, self.silence(replica));
                }
            }
        }
        observation
    }

    /// Waits until the watchers of this replica have confirmed `revision`, but
    /// not for long.
    pub async fn confirmed(&self, services: &[ServiceName], revision: u64) {
        let mut changes = self.watchers.changes();
        let confirmed = async {
            while !self.watchers.all_confirmed(services, revision) {
                // Fails with this observer alone.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(WAIT_FOR_RECEIPTS, confirmed).await;
    }

    /// All members known here.
    pub fn members(&self) -> Vec<u64> {
        let mut members = self.peers.ids();
        members.push(self.id);
        members
    }

    /// The span over which calls are counted: shorter just after the start.
    pub fn window(&self) -> Duration {
        self.started.elapsed().min(LOAD_WINDOW)
    }

    /// The others are these; who was one of them until a moment ago.
    fn note_members(&self, others: &[u64]) -> BTreeMap<u64, Duration> {
        let mut departures = (self.departures.lock()).unwrap_or_else(PoisonError::into_inner);
        departures.note(self.started.elapsed(), others.iter().copied().collect())
    }

    fn note_answer(&self, replica: u64) {
        self.lock().insert(replica, Instant::now());
    }

    fn silence(&self, replica: u64) -> Duration {
        self.lock()
            .get(&replica)
            .copied()
            .unwrap_or(self.started)
            .elapsed()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
        self.answered
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Adds what another replica said. What breaks a rule, which one of this
/// version would not say, is left out.
fn merge(observation: &mut Observation, replica: u64, answer: ObserveResponse) {
    if let Some(back_for) = answer.back_for {
        // What is not a time was not said by a replica of ours: no time at all.
        let back_for = trimtab_proto::duration::parse(&back_for).unwrap_or_default();
        observation.back.insert(replica, back_for);
    }
    for watcher in answer.watchers {
        let Ok(service) = ServiceName::parse(&watcher.service) else {
            continue;
        };
        observation.hear(
            &service,
            Heard {
                watcher_id: watcher.watcher_id,
                name: watcher.name,
                replica,
                revision: watcher.revision,
            },
        );
    }
    observation.brakes.extend(answer.brakes);
    observation.members.extend(answer.members);
    for reported in answer.loads {
        let (Ok(service), Ok(group)) = (
            ServiceName::parse(&reported.service),
            GroupName::parse(&reported.group),
        ) else {
            continue;
        };
        if let Ok(load) = crate::convert::load(&reported) {
            observation.load(&service, group, load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> ServiceName {
        ServiceName::parse("catalog").expect("valid")
    }

    fn heard(watcher: &str, replica: u64, revision: u64) -> Heard {
        Heard {
            watcher_id: watcher.to_owned(),
            name: watcher.to_owned(),
            replica,
            revision,
        }
    }

    #[test]
    fn a_watcher_that_moved_counts_once_with_its_newest_word() {
        let mut observation = Observation::default();
        observation.hear(&catalog(), heard("w1", 1, 9));
        observation.hear(&catalog(), heard("w1", 2, 4));
        observation.hear(&catalog(), heard("w2", 2, 4));
        let receipts = observation.receipts(&[catalog()], 9);
        assert_eq!((receipts.watchers, receipts.confirmed()), (2, 1));
        assert_eq!(receipts.laggards, vec![(catalog(), heard("w2", 2, 4))]);
        assert!(!receipts.complete());
        assert!(observation.receipts(&[catalog()], 4).complete());
    }

    #[test]
    fn the_callers_of_a_replica_that_only_others_know_are_waited_for() {
        let mut observation = Observation {
            asked: BTreeSet::from([1, 2]),
            ..Observation::default()
        };
        observation.hear(&catalog(), heard("w1", 1, 9));
        let answer = ObserveResponse {
            members: vec![1, 2, 3],
            ..ObserveResponse::default()
        };
        merge(&mut observation, 2, answer);
        let receipts = observation.receipts(&[catalog()], 9);
        assert!(!receipts.complete());
        assert!(receipts.warnings()[0].contains("replica 3 has only just been added"));
        // One that was removed is known by those who have not heard of it.
        observation.left.insert(3, WATCHERS_MOVE_WITHIN);
        assert!(observation.receipts(&[catalog()], 9).complete());
        observation.left.clear();
        observation.asked.insert(3);
        assert!(observation.receipts(&[catalog()], 9).complete());
    }

    #[test]
    fn the_callers_of_a_removed_replica_are_waited_for_until_they_must_be_elsewhere() {
        let at = Duration::from_secs;
        let members = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let mut departures = Departures::default();
        assert!(departures.note(at(1), members(&[2, 3])).is_empty());
        let mut observation = Observation {
            left: departures.note(at(10), members(&[2])),
            ..Observation::default()
        };
        let receipts = observation.receipts(&[catalog()], 1);
        assert!(!receipts.complete());
        assert!(receipts.warnings()[0].contains("replica 3 was removed"));
        observation.left = departures.note(at(10) + WATCHERS_MOVE_WITHIN, members(&[2]));
        assert!(observation.receipts(&[catalog()], 1).complete());
        // Taken in again, it is asked like any other.
        departures.note(at(30), members(&[2, 3]));
        departures.note(at(31), members(&[2]));
        assert!(departures.note(at(32), members(&[2, 3])).is_empty());
    }

    #[test]
    fn a_silent_replica_is_waited_for_until_its_watchers_must_be_elsewhere() {
        let mut observation = Observation::default();
        observation.hear(&catalog(), heard("w1", 1, 9));
        observation.unreachable.insert(2, Duration::from_secs(1));
        let receipts = observation.receipts(&[catalog()], 9);
        assert!(!receipts.complete());
        assert!(receipts.warnings()[0].contains("replica 2 does not answer"));

        observation.unreachable.insert(2, WATCHERS_MOVE_WITHIN);
        let receipts = observation.receipts(&[catalog()], 9);
        assert!(receipts.complete());
        assert_eq!(receipts.warnings().len(), 1);
    }

    #[test]
    fn a_replica_that_came_back_is_waited_for_until_its_watchers_must_be_too() {
        let mut observation = Observation::default();
        observation.hear(&catalog(), heard("w1", 1, 9));
        let answer = |seconds| ObserveResponse {
            back_for: Some(crate::convert::duration(Duration::from_secs(seconds))),
            ..ObserveResponse::default()
        };
        merge(&mut observation, 2, answer(1));
        let receipts = observation.receipts(&[catalog()], 9);
        assert!(!receipts.complete());
        assert!(receipts.warnings()[0].contains("replica 2 has only just come back"));

        merge(&mut observation, 2, answer(WATCHERS_MOVE_WITHIN.as_secs()));
        let receipts = observation.receipts(&[catalog()], 9);
        assert!(receipts.complete());
        assert!(receipts.warnings().is_empty());
    }
}

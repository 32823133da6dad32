//! A deploy script: reads the route, shifts it, rolls it back, and writes down what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use trimtab_client::Error;
use trimtab_client::cluster::Cluster;
use trimtab_client::operator::Operator;
use trimtab_client::operator::change::{
    ChangeOptions, RollbackTarget, Route, ServiceShift, ShiftOutcome, ShiftTarget,
    WHOLE_BASIS_POINTS,
};
use trimtab_tests::history::{Answered, Ask, Operation, Routes, Told};

use crate::clock;
use crate::parts::{SERVICE, told_to_finish};
use crate::record::{Event, Recorder};

/// How long word of every caller is awaited.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) endpoints: String,
}

/// A script at work.
struct Work {
    script: Script,
    operator: Operator,
    /// The revision of the route as it was last seen.
    known: Option<u64>,
}

impl Script {
    pub(super) async fn play(self) {
        let cluster = Cluster::parse(&self.endpoints).expect("valid endpoints");
        let operator = Operator::new(cluster.starting_at(rand::random_range(0..9)));
        let mut work = Work {
            script: self,
            operator,
            known: None,
        };
        let over = told_to_finish();
        tokio::pin!(over);
        loop {
            // What is under way is finished: what was asked is written down.
            work.ask().await;
            let pause = rand::random_range(20..150);
            tokio::select! {
                () = &mut over => return,
                () = sleep(Duration::from_millis(pause)) => {}
            }
        }
    }
}

// === impl Work ===

impl Work {
    async fn ask(&mut self) {
        let chance = rand::random_range(0..100);
        match self.known {
            None => self.read().await,
            Some(_) if chance < 35 => self.read().await,
            Some(known) if chance < 90 => self.shift((chance < 80).then_some(known)).await,
            Some(known) => self.roll_back((chance < 98).then_some(known)).await,
        }
    }

    async fn read(&mut self) {
        let called = clock::now();
        let view = self.operator.resolve(SERVICE, true).await;
        let ask = Ask::Read(vec![SERVICE.to_owned()]);
        let answer = view.map(|view| {
            self.known = Some(view.route_revision);
            Answered::Read(told(view.route_revision, &view.route))
        });
        self.note(called, ask, answer);
    }

    async fn shift(&mut self, expected: Option<u64>) {
        let weights = self.weights();
        let mut shift = ServiceShift::new(SERVICE, ShiftTarget::Weights(weights.clone()));
        shift.expected_route_revision = expected;
        let ask = Ask::Shift(vec![(SERVICE.to_owned(), expected, text(&weights))]);
        let called = clock::now();
        let outcome = self.operator.shift(&[shift], &self.options()).await;
        self.note_change(called, ask, outcome).await;
    }

    async fn roll_back(&mut self, expected: Option<u64>) {
        let target = RollbackTarget {
            service: SERVICE.to_owned(),
            to_revision: None,
            expected_route_revision: expected,
        };
        let ask = Ask::Rollback(SERVICE.to_owned(), expected);
        let called = clock::now();
        let outcome = self.operator.rollback(&[target], &self.options()).await;
        self.note_change(called, ask, outcome).await;
    }

    fn options(&self) -> ChangeOptions {
        ChangeOptions {
            actor: self.script.name.clone(),
            // Whether instances are ready just now is not what is tried here.
            force: true,
            ..ChangeOptions::default()
        }
    }

    /// Everything to one group, or something to two.
    fn weights(&self) -> BTreeMap<String, u32> {
        let mut chance = rand::rng();
        let groups = &self.script.groups;
        let mut any = || groups[chance.random_range(0..groups.len())].clone();
        let (one, other) = (any(), any());
        if one == other {
            return BTreeMap::from([(one, WHOLE_BASIS_POINTS)]);
        }
        let share = share(&mut chance);
        BTreeMap::from([(one, share), (other, WHOLE_BASIS_POINTS - share)])
    }

    async fn note_change(&mut self, called: u64, ask: Ask, outcome: Result<ShiftOutcome, Error>) {
        let changed = outcome
            .as_ref()
            .ok()
            .filter(|outcome| !outcome.changes.is_empty());
        let revision = changed.map(|outcome| outcome.revision);
        // Whoever expects a revision must not expect one for ever.
        self.known = revision;
        self.note(called, ask, answered(outcome));
        if let Some(revision) = revision.filter(|_| rand::random_bool(0.5)) {
            self.confirm(revision).await;
        }
    }

    fn note(&self, called: u64, ask: Ask, answer: Result<Answered, Error>) {
        let returned = clock::now();
        let is_read = matches!(ask, Ask::Read(_));
        let known = match answer {
            Ok(answer) => Some(answer),
            // By its own word nothing was done.
            Err(error) if is_read || matches!(error, Error::Unavailable { .. }) => {
                let reason = error.to_string();
                return Recorder.note(&Event::NotDone {
                    called,
                    returned,
                    reason,
                });
            }
            Err(_) => None,
        };
        Recorder.note(&Event::Asked(Operation {
            called,
            returned: known.is_some().then_some(returned),
            ask,
            answer: known,
        }));
    }

    /// Waits a while for the word that all callers use `revision`.
    async fn confirm(&self, revision: u64) {
        let mut receipts = self.operator.receipts(&[SERVICE.to_owned()], revision);
        let confirmed = async {
            while let Ok(Some(progress)) = receipts.next().await {
                if progress.complete {
                    return true;
                }
            }
            false
        };
        if timeout(CONFIRMED_WITHIN, confirmed).await == Ok(true) {
            let at = clock::now();
            Recorder.note(&Event::Confirmed { at, revision });
        }
    }
}

// === private parts ===

fn share(chance: &mut impl Rng) -> u32 {
    chance.random_range(1..WHOLE_BASIS_POINTS)
}

/// Refusals are answers; every other error is not.
fn answered(outcome: Result<ShiftOutcome, Error>) -> Result<Answered, Error> {
    match outcome {
        Ok(outcome) => Ok(match outcome.changes.first() {
            Some(change) => {
                Answered::Changed(outcome.revision, told(outcome.revision, &change.after))
            }
            None => Answered::Unchanged,
        }),
        Err(Error::Refused(reason)) => Ok(refusal(&reason)),
        Err(error) => Err(error),
    }
}

/// Of what revision the route was, only the sentence tells.
fn refusal(reason: &str) -> Answered {
    let current = reason.split_once("is at revision ").and_then(|(_, rest)| {
        let (number, _) = rest.split_once(',')?;
        number.parse().ok()
    });
    match current {
        Some(current) => Answered::Mismatch {
            service: SERVICE.to_owned(),
            current,
        },
        None => Answered::Refused,
    }
}

fn told(revision: u64, route: &Route) -> Routes {
    let route = text(&route.weights);
    Routes::from([(SERVICE.to_owned(), Told { revision, route })])
}

/// A route in words.
pub(crate) fn text(weights: &BTreeMap<String, u32>) -> String {
    format!("{weights:?}")
}

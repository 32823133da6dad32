//! What must be true of everything that was written down.

mod calls;
mod routes;
mod views;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use trimtab_tests::checker::{Verdict, check as check_order};
use trimtab_tests::history::{Answered, Model, Operation, Routes, Told};

use crate::parts::{SERVICE, route_text};
use crate::record::Event;

/// Of each kind of broken promise so many are told.
const TOLD_MAX: usize = 5;

/// A scenario as it was told.
#[derive(Debug)]
pub(crate) struct History {
    /// Since when all instances were registered.
    pub(crate) begun: u64,
    /// The route then.
    pub(crate) start: Told,
    /// A last look at the route, the same on all replicas.
    pub(crate) end: Operation,
    /// Replicas that nothing happened to.
    pub(crate) steady: Vec<u64>,
    /// Replicas that lost touch with the others, but nobody else did.
    pub(crate) answering: Vec<u64>,
    pub(crate) callers: BTreeMap<String, Vec<Event>>,
    pub(crate) scripts: BTreeMap<String, Vec<Event>>,
    pub(crate) reader: Vec<Event>,
    /// What `trimtab history` said in the end.
    pub(crate) routes: Value,
    pub(crate) living: Vec<String>,
    /// When each was killed.
    pub(crate) killed: BTreeMap<String, u64>,
    /// Microseconds from the death of an instance to its removal.
    pub(crate) gone_within: u64,
}

/// How much was checked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) calls: usize,
    pub(crate) changes: usize,
    pub(crate) unanswered: usize,
    pub(crate) not_done: usize,
    pub(crate) route_reads: usize,
    pub(crate) confirmations: usize,
    pub(crate) views: usize,
    pub(crate) reads: usize,
}

/// Promises that were found broken, in words.
#[derive(Debug, Default)]
struct Broken(BTreeMap<&'static str, Vec<String>>);

/// Looks for every broken promise.
///
/// # Panics
/// When there is one.
pub(crate) fn check(history: &History) -> Counts {
    let (broken, counts) = look(history);
    assert!(broken.0.is_empty(), "{broken}");
    counts
}

/// The names of those that are broken.
pub(crate) fn broken_promises(history: &History) -> Vec<&'static str> {
    look(history).0.0.into_keys().collect()
}

fn look(history: &History) -> (Broken, Counts) {
    let mut broken = Broken::default();
    let mut counts = Counts::default();
    order(history, &mut broken, &mut counts);
    routes::check(history, &mut broken);
    calls::check(history, &mut broken, &mut counts);
    views::check(history, &mut broken, &mut counts);
    (broken, counts)
}

/// The route of a view as `trimtab --output json` shows it.
pub(crate) fn route(view: &Value) -> Option<Told> {
    Some(Told {
        revision: view["route_revision"].as_u64()?,
        route: weights(&view["route"])?,
    })
}

fn weights(route: &Value) -> Option<String> {
    let weights = serde_json::from_value(route["weights"].clone()).ok()?;
    Some(route_text(&weights))
}

/// One registry could have answered the scripts so, at these times.
fn order(history: &History, broken: &mut Broken, counts: &mut Counts) {
    let mut operations = Vec::new();
    for event in history.scripts.values().flatten() {
        match event {
            Event::Asked(operation) => operations.push(operation.clone()),
            Event::NotDone { .. } => counts.not_done += 1,
            Event::Confirmed { .. } => counts.confirmations += 1,
            _ => {}
        }
    }
    for operation in &operations {
        match operation.answer {
            Some(Answered::Changed(..)) => counts.changes += 1,
            Some(Answered::Read(_)) => counts.route_reads += 1,
            None => counts.unanswered += 1,
            _ => {}
        }
    }
    operations.push(history.end.clone());
    operations.sort_by_key(|operation| operation.called);
    let start = Model::new(&Routes::from([(SERVICE.to_owned(), history.start.clone())]));
    match check_order(&start, &operations) {
        Verdict::Linearizable => {}
        verdict => {
            let all: Vec<String> = operations.iter().map(|one| format!("{one:?}")).collect();
            broken.tell(
                "the order of route changes",
                format!("{verdict:?}:\n{}", all.join("\n")),
            );
        }
    }
}

// === impl Broken ===

impl Broken {
    fn tell(&mut self, promise: &'static str, what: String) {
        self.0.entry(promise).or_default().push(what);
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (promise, cases) in &self.0 {
            writeln!(f, "broken {} times: {promise}", cases.len())?;
            for case in cases.iter().take(TOLD_MAX) {
                writeln!(f, "  {case}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {} changes ({} unanswered, {} not done), {} route reads, {} confirmations, {} views, {} reads",
            self.calls,
            self.changes,
            self.unanswered,
            self.not_done,
            self.route_reads,
            self.confirmations,
            self.views,
            self.reads
        )
    }
}

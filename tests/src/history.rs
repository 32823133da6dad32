//! What operators asked of routes and were told, and the simplest registry that could tell the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One service's route, as its caller wrote it down.
pub type Routes = BTreeMap<String, Told>;

/// What was told of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The revision at which the route took effect.
    pub revision: u64,
    /// The route, in any form in which equal routes are equal.
    pub route: String,
}

/// What was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Services by name.
    Read(Vec<String>),
    /// Services, the revision expected, the new route.
    Shift(Vec<(String, Option<u64>, String)>),
    /// A service and the revision expected.
    Rollback(String, Option<u64>),
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answered {
    /// What was read.
    Read(Routes),
    /// These routes are new, all at this revision.
    Changed(u64, Routes),
    /// The routes were so already.
    Unchanged,
    /// Refused because the route of a service was of another revision.
    Mismatch {
        /// The service.
        service: String,
        /// The revision of its route.
        current: u64,
    },
    /// Refused for what the model does not know: readiness, groups.
    Refused,
}

/// One operation. Without an answer it may have taken effect, at any time
/// after it was called, or not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation {
    /// When, on a clock that all operations of a history share.
    pub called: u64,
    /// When the answer came.
    pub returned: Option<u64>,
    /// What was asked.
    pub ask: Ask,
    /// What was answered.
    pub answer: Option<Answered>,
}

/// A revision as far as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Revision {
    Known(u64),
    /// A change without an answer made it: it is later than this one.
    After(u64),
}

impl Revision {
    /// The same revision once it is known to be `found`, if it can be.
    fn is(&self, found: u64) -> Option<Revision> {
        let fits = match self {
            Self::Known(known) => *known == found,
            Self::After(earlier) => found > *earlier,
        };
        fits.then_some(Self::Known(found))
    }

    fn at_least(&self) -> u64 {
        match self {
            Self::Known(known) => *known,
            Self::After(earlier) => earlier + 1,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Modelled {
    revision: Revision,
    /// The route of today last; before it what rollbacks go back to.
    routes: Vec<String>,
}

/// Routes, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model(BTreeMap<String, Modelled>);

impl Model {
    /// Before the first operation.
    pub fn new(routes: &Routes) -> Self {
        let modelled = |told: &Told| Modelled {
            revision: Revision::Known(told.revision),
            routes: vec![told.route.clone()],
        };
        let all = routes.iter();
        Self(
            all.map(|(name, told)| (name.clone(), modelled(told)))
                .collect(),
        )
    }

    /// The state after an operation with its answer; `None` when it cannot
    /// have been answered so in this state. Without an answer: the state if
    /// it took effect.
    pub fn step(&self, operation: &Operation) -> Option<Model> {
        let mut next = self.clone();
        match (&operation.ask, &operation.answer) {
            (Ask::Read(_), Some(Answered::Read(routes))) => {
                for (name, told) in routes {
                    let service = next.0.get_mut(name)?;
                    service.revision = service.revision.is(told.revision)?;
                    (service.routes.last() == Some(&told.route)).then_some(())?;
                }
            }
            (_, Some(Answered::Mismatch { service, current })) => {
                let expected = operation.expected(service)?;
                (expected != *current).then_some(())?;
                let service = next.0.get_mut(service)?;
                service.revision = service.revision.is(*current)?;
            }
            // A service's revision is compared before anything else of it is
            // looked at, but one after another.
            (_, Some(Answered::Refused)) => {
                let first = operation.services().first().copied()?;
                next.expect(operation, first)?;
            }
            (Ask::Shift(shifts), Some(Answered::Unchanged)) => {
                next.expect_all(operation)?;
                for (name, _, route) in shifts {
                    (next.0.get(name)?.routes.last() == Some(route)).then_some(())?;
                }
            }
            (Ask::Rollback(..), Some(Answered::Unchanged)) => next.expect_all(operation)?,
            (_, Some(Answered::Changed(revision, routes))) => {
                next.change(operation)?;
                for (name, told) in routes {
                    let service = next.0.get_mut(name)?;
                    (service.routes.last() == Some(&told.route)).then_some(())?;
                    service.revision = service.revision.is(*revision)?;
                }
            }
            (_, None) => next.change(operation)?,
            _ => return None,
        }
        Some(next)
    }

    fn expect_all(&mut self, operation: &Operation) -> Option<()> {
        let mut services = operation.services().into_iter();
        services.try_for_each(|name| self.expect(operation, name))
    }

    fn expect(&mut self, operation: &Operation, name: &str) -> Option<()> {
        if let Some(expected) = operation.expected(name) {
            let service = self.0.get_mut(name)?;
            service.revision = service.revision.is(expected)?;
        }
        Some(())
    }

    fn change(&mut self, operation: &Operation) -> Option<()> {
        self.expect_all(operation)?;
        match &operation.ask {
            Ask::Read(_) => {}
            Ask::Shift(shifts) => {
                for (name, _, route) in shifts {
                    let service = self.0.get_mut(name)?;
                    if service.routes.last() != Some(route) {
                        service.routes.push(route.clone());
                        service.revision = Revision::After(service.revision.at_least());
                    }
                }
            }
            Ask::Rollback(name, _) => {
                let service = self.0.get_mut(name)?;
                (service.routes.len() > 1).then_some(())?;
                service.routes.pop();
                service.revision = Revision::After(service.revision.at_least());
            }
        }
        Some(())
    }
}

impl Operation {
    /// Whether it was to change something.
    pub fn is_change(&self) -> bool {
        !matches!(self.ask, Ask::Read(_))
    }

    fn services(&self) -> Vec<&String> {
        match &self.ask {
            Ask::Read(names) => names.iter().collect(),
            Ask::Shift(shifts) => shifts.iter().map(|(name, ..)| name).collect(),
            Ask::Rollback(name, _) => vec![name],
        }
    }

    fn expected(&self, service: &str) -> Option<u64> {
        match &self.ask {
            Ask::Read(_) => None,
            Ask::Shift(shifts) => {
                let asked = shifts.iter().find(|(name, ..)| name == service);
                asked.and_then(|(_, expected, _)| *expected)
            }
            Ask::Rollback(_, expected) => *expected,
        }
    }
}

//! Calls of a simulated caller: which instance takes one, and what it came to.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::Caller;
use super::link::Link;
pub use crate::endpoint::Outcome;
use crate::endpoint::{Endpoint, Terms};
use crate::sticky::{Affinity, Bucket, StickyKey};
use crate::ticket::{Ticket, pick};

/// A call between attempts.
#[derive(Debug, Default)]
pub struct Turn {
    ticket: Option<Ticket>,
    tried: Vec<Arc<Endpoint<Link>>>,
    affinity: Affinity,
}

/// A call on its way to an instance.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint<Link>>,
    terms: Terms,
}

impl Turn {
    /// Of a call that is tied to others, by its key or by the bucket that it
    /// came with.
    pub fn tied(key: Option<StickyKey>, bucket: Option<Bucket>) -> Self {
        Self {
            affinity: Affinity { bucket, key },
            ..Self::default()
        }
    }
}

impl Caller {
    /// One attempt of a call. `None`: it waits for an instance, or for the
    /// first view.
    pub fn pick(
        &self,
        service: &str,
        turn: &mut Turn,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<Picked> {
        let line = self.lines.get(service)?;
        let now = self.origin + now;
        let (picker, affinity) = (&line.picker, &turn.affinity);
        let picked = pick(picker, &mut turn.ticket, &turn.tried, affinity, rng);
        let (endpoint, bucket) = picked?;
        let terms = picker.terms(now, bucket);
        endpoint.link.vitals.call_begins();
        endpoint.load.started(now);
        Some(Picked {
            endpoint: Arc::clone(endpoint),
            terms,
        })
    }

    /// A call ended; `turn` is ready for another attempt, should there be one.
    /// Whether it is time for a judgement.
    pub fn ended_call(
        &self,
        picked: Picked,
        outcome: Outcome,
        turn: &mut Turn,
        now: Duration,
    ) -> bool {
        let now = self.origin + now;
        let endpoint = picked.endpoint;
        let vitals = &endpoint.link.vitals;
        vitals.call_ends();
        let latency = now.saturating_duration_since(picked.terms.started);
        let moment = picked.terms.moment.after(latency);
        let failed = outcome != Outcome::Answered;
        match failed {
            false => vitals.answered(moment, latency),
            true => vitals.failed(moment, latency),
        }
        let is_suspicious = endpoint.link.record.note(outcome);
        endpoint.load.ended(now, latency, failed);
        if failed {
            turn.ticket = Some(Ticket::again(&endpoint, !turn.tried.is_empty()));
            turn.tried.push(endpoint);
        }
        is_suspicious
    }

    /// What calls are expected to take at each of two instances, as a pick
    /// compares them; `None` unless both are known.
    pub fn latencies(&self, service: &str, one: &str, other: &str) -> Option<(f32, f32)> {
        let lineup = &self.lines.get(service)?.lineup;
        let of = |id: &str| Some(lineup.endpoint(id)?.link.vitals.load().latency);
        of(one)?.compared(of(other)?)
    }
}

impl Picked {
    /// The release the instance runs.
    pub fn group(&self) -> &str {
        &self.endpoint.group
    }

    /// Unique within the service.
    pub fn instance(&self) -> &str {
        &self.endpoint.id
    }

    /// The revision of the view by which it was chosen.
    pub fn revision(&self) -> u64 {
        self.terms.revision
    }
}

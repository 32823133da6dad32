//! An instance as calls see it: what it is, its connection, and one call to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Link;
use crate::coverage::LinkState;
use crate::latency::Moment;
use crate::load::GroupLoad;
use crate::meter::InstanceMeter;
use crate::patience::was_let_down;
use crate::record::{Record, Standing};
use crate::sticky::Bucket;
use crate::view::InstanceStatus;
use crate::vitals::Vitals;

/// The connection to an instance, as picking needs to know it.
pub(crate) trait Connection {
    /// `host:port`.
    fn address(&self) -> &Arc<str>;
    /// The numbers that a pick reads.
    fn vitals(&self) -> &Arc<Vitals>;
    /// What is known of it now.
    fn state(&self) -> LinkState {
        self.vitals().link()
    }
    /// What calls to it came to.
    fn record(&self) -> &Record;
    /// Whether it is left out for failing calls.
    fn is_ejected(&self) -> bool {
        self.record().standing() == Standing::Ejected
    }
    /// There is reason to believe that a connection can be made now.
    fn retry_now(&self);
    /// Takes no more calls, lets those in flight end, then closes.
    fn close(&self);
}

/// What the view says of an instance, with the connection to it. Replaced when
/// the description changes; the connection stays.
#[derive(Debug)]
pub(crate) struct Endpoint<L = Link> {
    pub(crate) id: Arc<str>,
    /// A hash of the id: the same in every process.
    pub(crate) rank: u64,
    pub(crate) group: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) status: InstanceStatus,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
    pub(crate) link: Arc<L>,
    pub(crate) load: Arc<GroupLoad>,
    pub(crate) meter: Option<InstanceMeter>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that does not put the blame on the instance.
    Answered,
    /// No answer, or one that says the instance is at fault.
    Failed,
    /// The connection broke. It says so itself: that is not held against the
    /// instance beyond the connection.
    Lost,
    /// An answer that says that there were too many calls: an error, but no
    /// word on how the instance is.
    Declined,
    /// The caller did not say, or heard from another first.
    Abandoned,
    /// The caller lost interest while it waited for an answer.
    GivenUp,
    /// It never left: counted nowhere.
    Unsent,
}

/// One call in flight. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Ongoing {
    endpoint: Arc<Endpoint>,
    terms: Terms,
    outcome: Outcome,
    /// Its latency is noted.
    was_answered: bool,
}

/// How an instance was chosen for a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The view by which it was.
    pub(crate) revision: u64,
    pub(crate) started: Instant,
    /// The same, as latencies are dated.
    pub(crate) moment: Moment,
    /// That decided the group.
    pub(crate) bucket: Option<Bucket>,
}

impl Ongoing {
    pub(crate) fn start(endpoint: Arc<Endpoint>, terms: Terms) -> Self {
        endpoint.link.vitals().call_begins();
        endpoint.load.started(terms.started);
        Self {
            endpoint,
            terms,
            outcome: Outcome::Abandoned,
            was_answered: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn revision(&self) -> u64 {
        self.terms.revision
    }

    /// What the call says of whom it is for.
    pub(crate) fn bucket(&self) -> Option<Bucket> {
        self.terms.bucket
    }

    /// The answer has begun, and not by saying that the instance is at fault.
    /// How long it goes on from here depends on what was asked for.
    pub(crate) fn answered(&mut self, now: Instant) {
        let latency = now.saturating_duration_since(self.terms.started);
        let moment = self.terms.moment.after(latency);
        self.endpoint.link.vitals().answered(moment, latency);
        self.was_answered = true;
    }

    pub(crate) fn started(&self) -> Instant {
        self.terms.started
    }

    /// What it ends with if nobody says otherwise.
    pub(crate) fn presume(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// What it says of the instance that it ended so after so long.
    fn outcome_after(&self, waited: Duration) -> Outcome {
        if self.outcome != Outcome::GivenUp || self.was_answered {
            return self.outcome;
        }
        let link = &self.endpoint.link;
        let fails_already = link.record().failures_in_a_row() > 0;
        match was_let_down(waited, link.vitals().last_latency(), fails_already) {
            true => Outcome::Failed,
            false => Outcome::GivenUp,
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let vitals = self.endpoint.link.vitals();
        vitals.call_ends();
        if self.outcome != Outcome::Unsent {
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.terms.started);
            let moment = self.terms.moment.after(latency);
            self.endpoint.link.note(self.outcome_after(latency));
            match self.outcome {
                _ if self.was_answered => {}
                Outcome::Answered => vitals.answered(moment, latency),
                Outcome::Failed | Outcome::Lost | Outcome::Declined => {
                    vitals.failed(moment, latency);
                }
                Outcome::Abandoned | Outcome::GivenUp | Outcome::Unsent => {
                    vitals.waited_for(moment, latency);
                }
            }
            let failed = matches!(
                self.outcome,
                Outcome::Failed | Outcome::Lost | Outcome::Declined
            );
            self.endpoint.load.ended(now, latency, failed);
            self.endpoint.load.meter.ended(self.outcome, latency);
            if let Some(meter) = &self.endpoint.meter {
                meter.ended(self.outcome);
            }
        }
    }
}

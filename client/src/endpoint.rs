//! An instance as calls see it: what it is, its connection, and one call to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::Link;
use crate::load::GroupLoad;
use crate::picker::{LinkState, Target};
use crate::view::InstanceStatus;

/// The connection to an instance, as picking needs to know it.
pub(crate) trait Connection {
    /// `host:port`.
    fn address(&self) -> &Arc<str>;
    /// What is known of it now.
    fn state(&self) -> LinkState;
    /// Calls it has from this process.
    fn in_flight(&self) -> u32;
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
    pub(crate) group: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) status: InstanceStatus,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
    pub(crate) link: Arc<L>,
    pub(crate) load: Arc<GroupLoad>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that does not put the blame on the instance.
    Answered,
    /// No answer, or one that says the instance is at fault.
    Failed,
    /// An answer that says that there were too many calls: an error, but no
    /// word on how the instance is.
    Declined,
    /// The caller lost interest, or did not say.
    Abandoned,
    /// It never left: counted nowhere.
    Unsent,
}

/// One call in flight. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Ongoing {
    endpoint: Arc<Endpoint>,
    /// The view by which the instance was chosen.
    revision: u64,
    started: Instant,
    outcome: Outcome,
}

impl<L: Connection> Target for Arc<Endpoint<L>> {
    fn is_connected(&self) -> bool {
        self.link.state() == LinkState::Up
    }

    fn in_flight(&self) -> u32 {
        self.link.in_flight()
    }
}

impl Ongoing {
    pub(crate) fn start(endpoint: Arc<Endpoint>, revision: u64) -> Self {
        let started = Instant::now();
        endpoint.link.call_begins();
        endpoint.load.started(started);
        Self {
            endpoint,
            revision,
            started,
            outcome: Outcome::Abandoned,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What it ends with if nobody says otherwise.
    pub(crate) fn presume(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.endpoint.link.call_ends();
        if self.outcome != Outcome::Unsent {
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.started);
            let failed = matches!(self.outcome, Outcome::Failed | Outcome::Declined);
            self.endpoint.load.ended(now, latency, failed);
        }
    }
}

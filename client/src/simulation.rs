//! A caller taken apart, for the simulation in `tests/simulation`: what production runs, without sockets, clock and chance.
//!
//! Not part of what this crate promises to anyone, hence hidden. It is not
//! behind a feature: every build of the workspace's tests would then compile
//! this crate a second time, and would not test the crate that is shipped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use trimtab_proto::v1 as wire;

use crate::conversation::{Conversation, Ended};
use crate::course::Course;
pub use crate::coverage::LinkState;
use crate::endpoint::{Connection, Endpoint, Terms};
use crate::error::Error;
use crate::lineup::Lineup;
use crate::picker::Picker;
use crate::record::Record;
use crate::sticky::Affinity;
use crate::subscription::{Known, Source, Subscription, Subscriptions};
use crate::ticket::{Ticket, pick};
use crate::vitals::Vitals;
use crate::watcher::{Standpoint, Watcher};

/// Everything of one calling process that decides.
#[derive(Debug)]
pub struct Caller {
    watcher: Watcher,
    subscriptions: Arc<Subscriptions>,
    course: Course,
    replicas: usize,
    position: usize,
    conversation: Option<Conversation>,
    lines: BTreeMap<String, Line>,
    /// What all times are counted from.
    origin: Instant,
    /// The last time that was told.
    latest: Instant,
}

/// One service it calls.
#[derive(Debug)]
struct Line {
    subscription: Subscription,
    lineup: Lineup<Link>,
    picker: Arc<Picker<Arc<Endpoint<Link>>>>,
    wishes: Arc<Mutex<Vec<Wish>>>,
}

/// What is to be done about a connection, by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Connect, and go on trying.
    Open(Arc<str>),
    /// Try now rather than later, if it is down.
    Retry(Arc<str>),
    /// Let it end.
    Close(Arc<str>),
}

/// A connection that the simulation keeps.
#[derive(Debug)]
struct Link {
    address: Arc<str>,
    vitals: Arc<Vitals>,
    record: Record,
    wishes: Arc<Mutex<Vec<Wish>>>,
}

/// A call between attempts.
#[derive(Debug, Default)]
pub struct Turn {
    ticket: Option<Ticket>,
    tried: Vec<Arc<Endpoint<Link>>>,
}

/// A call on its way to an instance.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint<Link>>,
    terms: Terms,
}

impl Caller {
    /// A process that calls these services and knows so many replicas.
    ///
    /// # Errors
    /// When the id or a name is not valid.
    pub fn new(id: &str, services: &[&str], replicas: usize) -> Result<Self, Error> {
        let watcher = Watcher {
            id: id.to_owned(),
            name: id.to_owned(),
            zone: String::new(),
            report_interval: None,
            instance_metrics: false,
        };
        watcher.check()?;
        let subscriptions = Arc::new(Subscriptions::default());
        let origin = Instant::now();
        let standpoint = Standpoint {
            caller: id.into(),
            zone: "".into(),
            origin,
            instance_metrics: false,
        };
        let mut lines = BTreeMap::new();
        for service in services {
            let subscription = subscriptions.subscribe(service)?;
            let line = Line {
                lineup: Lineup::new(Arc::clone(subscription.service()), standpoint.clone()),
                subscription,
                picker: Arc::new(Picker::empty(origin)),
                wishes: Arc::default(),
            };
            lines.insert((*service).to_owned(), line);
        }
        Ok(Self {
            watcher,
            subscriptions,
            course: Course::new(replicas),
            replicas: replicas.max(1),
            position: 0,
            conversation: None,
            lines,
            origin,
            latest: origin,
        })
    }

    /// Begins with this one of its replicas.
    pub fn start_at(&mut self, position: usize) {
        self.position = position % self.replicas;
    }

    /// Opens a watch stream; the position of the replica it goes to.
    pub fn open(&mut self) -> usize {
        let takes_stale = self.course.takes_stale();
        let conversation = Conversation::new(&self.watcher, &self.subscriptions, takes_stale);
        self.conversation = Some(conversation);
        self.position
    }

    /// Whether it has a stream.
    pub fn is_open(&self) -> bool {
        self.conversation.is_some()
    }

    /// What to send next on the stream.
    pub fn next_request(&mut self) -> Option<wire::WatchRequest> {
        self.conversation.as_mut()?.next_request()
    }

    /// Takes what arrived on the stream, which has been open for so long. How
    /// often to report load, when it says.
    ///
    /// # Errors
    /// When it leaves the replica: after how long it tries the next one.
    pub fn hear(
        &mut self,
        open_for: Duration,
        answer: wire::WatchResponse,
        rng: &mut impl Rng,
    ) -> Result<Option<Duration>, Duration> {
        let Some(conversation) = &mut self.conversation else {
            return Ok(None);
        };
        conversation
            .hear(open_for, answer, rng)
            .map_err(|ended| self.ended(&ended, rng))
    }

    /// When it wants to look whether it has waited long enough, counted from
    /// the stream's opening.
    pub fn due(&self) -> Option<Duration> {
        self.conversation.as_ref()?.due()
    }

    /// Looks whether it has waited long enough; as [`Caller::hear`].
    ///
    /// # Errors
    /// When it leaves the replica: after how long it tries the next one.
    pub fn look(&mut self, open_for: Duration, rng: &mut impl Rng) -> Result<(), Duration> {
        let conversation = self.conversation.as_ref();
        match conversation.and_then(|conversation| conversation.overdue(open_for)) {
            Some(ended) => Err(self.ended(&ended, rng)),
            None => Ok(()),
        }
    }

    /// The stream broke: after how long it tries the next replica.
    pub fn broke(&mut self, rng: &mut impl Rng) -> Duration {
        self.ended(&Ended::Broken("it broke".to_owned()), rng)
    }

    fn ended(&mut self, ended: &Ended, rng: &mut impl Rng) -> Duration {
        let conversation = self.conversation.take();
        let was_welcome = conversation.is_some_and(|it| it.was_welcome());
        self.position = (self.position + 1) % self.replicas;
        let wait = self.course.ended(ended, was_welcome, rng);
        wait.unwrap_or_default()
    }

    /// Reports load, as of this time.
    pub fn report(&mut self, now: Duration) {
        let now = self.origin + now;
        if let Some(conversation) = &mut self.conversation
            && conversation.was_welcome()
        {
            conversation.report(now);
        }
    }

    /// The newest that was heard of a service: its revision, and the checksum
    /// of the view if there is one.
    pub fn known(&self, service: &str) -> (u64, Option<u64>) {
        let Some(line) = self.lines.get(service) else {
            return (0, None);
        };
        let known = line.subscription.known();
        let known = known.borrow();
        let checksum = match &*known {
            Known::View { checksum, .. } => Some(*checksum),
            Known::Absent { .. } | Known::Nothing => None,
        };
        (known.revision(), checksum)
    }

    /// The revision that calls follow.
    pub fn used(&self, service: &str) -> u64 {
        self.lines
            .get(service)
            .map_or(0, |line| line.picker.revision())
    }

    /// Has calls follow what was heard of a service.
    pub fn follow(&mut self, service: &str, now: Duration, rng: &mut impl Rng) -> Vec<Wish> {
        let now = self.origin + now;
        self.latest = now;
        let Some(line) = self.lines.get_mut(service) else {
            return Vec::new();
        };
        let view = line.subscription.known().borrow().view();
        if let Some(view) = view {
            let wishes = &line.wishes;
            let loads = line.subscription.loads();
            line.lineup.follow(view, loads, now, |address| {
                wished(wishes).push(Wish::Open(Arc::clone(address)));
                Arc::new(Link::new(address, wishes))
            });
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
        std::mem::take(&mut wished(&line.wishes))
    }

    /// Lets go of instances that a view took away, where it is time to; when
    /// to ask again.
    pub fn let_go(
        &mut self,
        service: &str,
        now: Duration,
        rng: &mut impl Rng,
    ) -> (Vec<Wish>, Option<Duration>) {
        let now = self.origin + now;
        let Some(line) = self.lines.get_mut(service) else {
            return (Vec::new(), None);
        };
        let wishes = &line.wishes;
        let open = |address: &Arc<str>| Arc::new(Link::new(address, wishes));
        let loads = line.subscription.loads();
        if line.lineup.let_go(loads, now, open) {
            line.picker = Arc::new(line.lineup.picker(now, rng));
        }
        let until = line.lineup.held_until();
        let until = until.map(|until| until.saturating_duration_since(self.origin));
        (std::mem::take(&mut wished(&line.wishes)), until)
    }

    /// Says that calls follow a revision, as it is said after the last call
    /// that was begun by an older one.
    pub fn confirm(&mut self, service: &str, revision: u64) {
        if let Some(line) = self.lines.get(service) {
            line.subscription.confirm(revision, Source::Registry);
        }
        if let Some(conversation) = &mut self.conversation {
            // Something is followed, so it is not idle.
            let _ = conversation.followed_changed();
        }
    }

    /// A connection came up or went down; calls take notice unless told not to.
    pub fn connected(
        &mut self,
        service: &str,
        address: &str,
        state: LinkState,
        takes_notice: bool,
        rng: &mut impl Rng,
    ) {
        let Some(line) = self.lines.get_mut(service) else {
            return;
        };
        for link in line.lineup.connections() {
            if *link.address == *address {
                link.vitals.went(state);
            }
        }
        if takes_notice {
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
    }

    /// A planted bug: takes what comes next for the first it hears of a service.
    pub fn forget(&mut self, service: &str) {
        if let Some(followed) = self.subscriptions.get(service) {
            followed.known.send_replace(Known::Nothing);
        }
    }

    /// A planted bug: begins the order of groups anew.
    pub fn forget_order(&mut self, service: &str, rng: &mut impl Rng) {
        if let Some(line) = self.lines.get_mut(service) {
            line.lineup.forget_order();
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
    }

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
        let (picker, affinity) = (&line.picker, Affinity::default());
        let picked = pick(picker, &mut turn.ticket, &turn.tried, &affinity, rng);
        let (endpoint, bucket) = picked?;
        let terms = picker.terms(now, bucket);
        endpoint.link.vitals.call_begins();
        endpoint.load.started(now);
        Some(Picked {
            endpoint: Arc::clone(endpoint),
            terms,
        })
    }

    /// A call ended. When it failed, `turn` is ready for another attempt.
    pub fn ended_call(&self, picked: Picked, failed: bool, turn: &mut Turn, now: Duration) {
        let now = self.origin + now;
        let endpoint = picked.endpoint;
        let vitals = &endpoint.link.vitals;
        vitals.call_ends();
        let latency = now.saturating_duration_since(picked.terms.started);
        let moment = picked.terms.moment.after(latency);
        match failed {
            false => vitals.answered(moment, latency),
            true => vitals.failed(moment, latency),
        }
        endpoint.load.ended(now, latency, failed);
        if failed {
            turn.ticket = Some(Ticket::again(&endpoint, !turn.tried.is_empty()));
            turn.tried.push(endpoint);
        }
    }
}

impl Turn {
    /// Whether the call was sent somewhere before.
    pub fn is_repeat(&self) -> bool {
        !self.tried.is_empty()
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

impl Link {
    fn new(address: &Arc<str>, wishes: &Arc<Mutex<Vec<Wish>>>) -> Self {
        Self {
            address: Arc::clone(address),
            vitals: Arc::new(Vitals::new()),
            record: Record::default(),
            wishes: Arc::clone(wishes),
        }
    }
}

impl Connection for Link {
    fn address(&self) -> &Arc<str> {
        &self.address
    }

    fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    fn record(&self) -> &Record {
        &self.record
    }

    fn retry_now(&self) {
        if self.state() == LinkState::Down {
            wished(&self.wishes).push(Wish::Retry(Arc::clone(&self.address)));
        }
    }

    fn close(&self) {
        self.vitals.went(LinkState::Down);
        wished(&self.wishes).push(Wish::Close(Arc::clone(&self.address)));
    }
}

fn wished(wishes: &Mutex<Vec<Wish>>) -> std::sync::MutexGuard<'_, Vec<Wish>> {
    wishes.lock().unwrap_or_else(PoisonError::into_inner)
}

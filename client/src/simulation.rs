//! A caller taken apart, for the simulation in `tests/simulation`: what production runs, without sockets, clock and chance.
//!
//! Not part of what this crate promises to anyone, hence hidden. It is not
//! behind a feature: every build of the workspace's tests would then compile
//! this crate a second time, and would not test the crate that is shipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use trimtab_proto::v1 as wire;

use crate::conversation::{Conversation, Ended};
use crate::course::Course;
pub use crate::coverage::LinkState;
use crate::delta::unchecked;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::lineup::Lineup;
use crate::picker::Picker;
pub use crate::record::Standing;
use crate::subscription::{Known, Source, Subscription, Subscriptions};
use crate::watcher::{Standpoint, Watcher};

mod calls;
pub mod held;
mod link;

pub use calls::{Outcome, Picked, Turn};
pub use link::Wish;
use link::{Link, Wishes, wished};

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
    wishes: Wishes,
    /// Connections changed since the picker was built.
    has_news: bool,
}

impl Caller {
    /// A process in `zone`, or nowhere if that is empty, that calls these
    /// services and knows so many replicas.
    ///
    /// # Errors
    /// When the id or a name is not valid.
    pub fn new(id: &str, zone: &str, services: &[&str], replicas: usize) -> Result<Self, Error> {
        let watcher = Watcher {
            id: id.to_owned(),
            name: id.to_owned(),
            zone: zone.to_owned(),
            report_interval: None,
            instance_metrics: false,
        };
        watcher.check()?;
        let subscriptions = Arc::new(Subscriptions::default());
        let origin = Instant::now();
        let standpoint = Standpoint {
            caller: id.into(),
            zone: zone.into(),
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
                has_news: false,
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

    /// The newest that was heard of a service: its revision, and the digest of
    /// the view if there is one.
    pub fn known(&self, service: &str) -> (u64, Option<u64>) {
        let Some(line) = self.lines.get(service) else {
            return (0, None);
        };
        let known = line.subscription.known();
        let known = known.borrow();
        let digest = match &*known {
            Known::View { base, .. } => Some(base.digest),
            Known::Absent { .. } | Known::Nothing => None,
        };
        (known.revision(), digest)
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
            let open = |address: &Arc<str>| Link::open(address, wishes);
            line.lineup.follow(view, loads, now, open);
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
        std::mem::take(&mut wished(&line.wishes))
    }

    /// Does what time, connections or failures of calls ask for: lets go of
    /// instances that a view took away, fills a subset up, judges instances,
    /// takes a step of a warm-up. Calls take notice unless told not to; when
    /// to ask again.
    pub fn look_after(
        &mut self,
        service: &str,
        now: Duration,
        takes_notice: bool,
        rng: &mut impl Rng,
    ) -> (Vec<Wish>, Option<Duration>) {
        let now = self.origin + now;
        self.latest = now;
        let Some(line) = self.lines.get_mut(service) else {
            return (Vec::new(), None);
        };
        let wishes = &line.wishes;
        let open = |address: &Arc<str>| Link::open(address, wishes);
        let loads = line.subscription.loads();
        let looked_after = line.lineup.look_after(loads, now, open, rng);
        let has_news = std::mem::take(&mut line.has_news) || looked_after;
        if has_news && takes_notice {
            line.picker = Arc::new(line.lineup.picker(now, rng));
        }
        let due = line.lineup.due(now).saturating_duration_since(self.origin);
        (std::mem::take(&mut wished(&line.wishes)), Some(due))
    }

    /// How each instance stands that it has a connection for.
    pub fn standings(&self, service: &str) -> Vec<(Arc<str>, Standing)> {
        let lines = self.lines.get(service).into_iter();
        let endpoints = lines.flat_map(|line| line.lineup.endpoints());
        endpoints
            .map(|it| (Arc::clone(&it.id), it.link.record.standing()))
            .collect()
    }

    /// What calls give each group, in basis points.
    pub fn weights(&self, service: &str) -> &[(Arc<str>, u32)] {
        let line = self.lines.get(service);
        line.map_or(&[], |line| line.lineup.weights())
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

    /// A connection came up or went down. Calls take notice at the next
    /// [`Caller::look_after`], or [`Caller::take_notice`].
    pub fn connected(&mut self, service: &str, address: &str, state: LinkState) {
        let Some(line) = self.lines.get_mut(service) else {
            return;
        };
        line.has_news = true;
        for link in line.lineup.connections() {
            if *link.address == *address {
                link.vitals.went(state);
            }
        }
    }

    /// A planted bug: calls take notice of connections, and nothing else is
    /// done about them.
    pub fn take_notice(&mut self, service: &str, rng: &mut impl Rng) {
        if let Some(line) = self.lines.get_mut(service) {
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
    }

    /// A planted bug: takes what comes next for the first it hears of a service.
    pub fn forget(&mut self, service: &str) {
        if let Some(followed) = self.subscriptions.get(service) {
            followed.known.send_replace(Known::Nothing);
        }
    }

    /// A planted bug: has a delta fit what is held, whatever it was made for.
    pub fn make_fit(&self, delta: &mut wire::ViewDelta) {
        let Some(line) = self.lines.get(&delta.service) else {
            return;
        };
        let known = line.subscription.known();
        if let Known::View { view, base, .. } = &*known.borrow()
            && let Ok((_, fitted)) = unchecked(view, base, delta)
        {
            delta.from_revision = view.revision;
            delta.digest = fitted.digest;
        }
    }

    /// A planted bug: begins the order of groups anew.
    pub fn forget_order(&mut self, service: &str, rng: &mut impl Rng) {
        if let Some(line) = self.lines.get_mut(service) {
            line.lineup.forget_order();
            line.picker = Arc::new(line.lineup.picker(self.latest, rng));
        }
    }
}

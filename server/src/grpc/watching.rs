//! One watch stream from the replica's side: takes a caller's requests and says what is news, without a socket or a clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Status;
use trimtab_proto::v1::{
    Absent, Hello, LoadReports, Subscribe, Unchanged, WatchRequest, WatchResponse, Welcome,
    watch_request, watch_response,
};
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::rejection::Invalid;

use super::status::of_invalid;
use crate::convert;
use crate::views::bell::Bell;
use crate::views::published::{Published, PublishedView};
use crate::views::{Subscription, Views};
use crate::watchers::{ConnectionId, Watchers};

/// Services one stream may follow: far more than a process calls.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Groups in one load report: what a caller of many services has.
pub const LOADS_PER_REPORT_MAX: usize = 1_024;
/// How often callers are asked to report their load.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

const WATCHER_NAME_BYTES_MAX: usize = 128;

/// `possibly_stale` of a `WatchResponse`, set.
const STALE_FIELD: [u8; 2] = [5 << 3, 1];

/// What one stream follows, and what its caller holds of it.
#[derive(Debug)]
pub struct Watching {
    replica: u64,
    cluster: u64,
    views: Arc<Views>,
    watchers: Arc<Watchers>,
    bell: Arc<Bell>,
    lines: HashMap<ServiceName, Line>,
    connection: Option<ConnectionId>,
}

/// One service that is followed.
#[derive(Debug)]
struct Line {
    subscription: Subscription,
    takes_deltas: bool,
    /// What the caller held when it subscribed, until the first answer.
    held: Option<Subscribe>,
    /// The revision of the view that the caller was left with.
    told: Option<u64>,
}

/// Something to tell a caller.
#[derive(Clone, Debug)]
pub enum News {
    /// An answer that many get: encoded once, in a gRPC frame.
    Shared(Bytes),
    /// An answer to this caller alone.
    Own(Box<watch_response::Kind>),
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.watchers.disconnect(connection);
        }
    }
}

impl Watching {
    /// A stream that has just been opened at this replica of this cluster.
    pub fn new(replica: u64, cluster: u64, views: Arc<Views>, watchers: Arc<Watchers>) -> Watching {
        Watching {
            replica,
            cluster,
            views,
            watchers,
            bell: Arc::default(),
            lines: HashMap::new(),
            connection: None,
        }
    }

    /// Wakes whoever polls this stream.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// The stream is no more, and the caller did not end it.
    pub fn broke(&mut self, now: Duration) {
        if let Some(connection) = self.connection.take() {
            self.watchers.broke(now, connection);
        }
    }

    /// The next thing to tell the caller. Services take turns in the order in
    /// which they changed, so that none waits behind a busy one.
    pub fn poll_news(&mut self, context: &Context<'_>) -> Poll<News> {
        self.bell.listen(context);
        while let Some(service) = self.bell.pop() {
            let line = self.lines.get_mut(&service);
            if let Some(news) = line.and_then(|line| line.look(&service)) {
                return Poll::Ready(news);
            }
        }
        Poll::Pending
    }

    /// Takes in one request; some have an answer of their own.
    ///
    /// # Errors
    /// What the stream ends with: a request breaks a rule of the protocol.
    pub fn take(
        &mut self,
        now: Duration,
        request: WatchRequest,
    ) -> Result<Option<watch_response::Kind>, Status> {
        let Some(connection) = self.connection else {
            return match request.kind {
                Some(watch_request::Kind::Hello(hello)) => self.welcome(hello).map(Some),
                _ => Err(of_invalid(Invalid::new(
                    "kind",
                    "",
                    "must be hello in the first message of a watch stream",
                ))),
            };
        };
        match request.kind {
            Some(watch_request::Kind::Subscribe(subscribe)) => {
                self.subscribe(connection, subscribe)?;
            }
            Some(watch_request::Kind::Unsubscribe(unsubscribe)) => {
                let service = ServiceName::parse(&unsubscribe.service).map_err(of_invalid)?;
                self.lines.remove(&service);
                self.bell.forget(&service);
                self.watchers.unsubscribe(connection, &service);
            }
            Some(watch_request::Kind::Receipt(receipt)) => {
                let service = ServiceName::parse(&receipt.service).map_err(of_invalid)?;
                self.watchers
                    .confirm(connection, &service, receipt.revision);
            }
            Some(watch_request::Kind::LoadReports(reports)) => self.report(now, &reports)?,
            Some(watch_request::Kind::Hello(_)) => {
                return Err(of_invalid(Invalid::new(
                    "kind",
                    "hello",
                    "must be sent once",
                )));
            }
            // A kind that a newer caller knows: nothing this replica could do.
            None => {}
        }
        Ok(None)
    }

    fn welcome(&mut self, hello: Hello) -> Result<watch_response::Kind, Status> {
        // The same rule as for instances: what names a process.
        InstanceId::parse(&hello.watcher_id)
            .map_err(|invalid| of_invalid(invalid.at("hello.watcher_id")))?;
        if hello.name.len() > WATCHER_NAME_BYTES_MAX {
            return Err(of_invalid(Invalid::new(
                "hello.name",
                hello.name,
                "must be at most 128 bytes",
            )));
        }
        self.connection = Some(self.watchers.connect(hello.watcher_id, hello.name));
        Ok(watch_response::Kind::Welcome(Welcome {
            replica_id: self.replica,
            report_interval: Some(convert::duration(REPORT_INTERVAL)),
            cluster_id: self.cluster,
        }))
    }

    fn subscribe(&mut self, connection: ConnectionId, asked: Subscribe) -> Result<(), Status> {
        let service = ServiceName::parse(&asked.service).map_err(of_invalid)?;
        if !self.lines.contains_key(&service) && self.lines.len() >= SUBSCRIPTIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "a watch stream follows at most {SUBSCRIPTIONS_MAX} services; open another one"
            )));
        }
        self.watchers.subscribe(connection, service.clone());
        match self.lines.get_mut(&service) {
            Some(line) => line.begin(asked),
            None => {
                let subscription = self.views.subscribe(&service, &self.bell);
                let line = Line {
                    subscription,
                    takes_deltas: asked.takes_deltas,
                    held: Some(asked),
                    told: None,
                };
                self.lines.insert(service, line);
            }
        }
        Ok(())
    }

    fn report(&self, now: Duration, reports: &LoadReports) -> Result<(), Status> {
        if reports.loads.len() > LOADS_PER_REPORT_MAX {
            return Err(of_invalid(Invalid::new(
                "load_reports.loads",
                reports.loads.len(),
                "must have at most 1,024 entries",
            )));
        }
        for reported in &reports.loads {
            let service = ServiceName::parse(&reported.service).map_err(of_invalid)?;
            let group = GroupName::parse(&reported.group).map_err(of_invalid)?;
            // What is not followed or not there is not counted: so nobody can
            // make this replica remember names without bound.
            let known = self.lines.contains_key(&service)
                && has_group(&self.views.latest(&service), &group);
            if known {
                let load = convert::load(reported).map_err(of_invalid)?;
                self.watchers.report(now, &service, &group, load);
            }
        }
        Ok(())
    }
}

impl Line {
    /// The caller asks anew for what it follows already.
    fn begin(&mut self, asked: Subscribe) {
        self.takes_deltas = asked.takes_deltas;
        self.held = Some(asked);
        self.told = None;
        self.subscription.remind();
    }

    /// What to say of a service's new state; nothing when this replica is
    /// behind what the caller already holds.
    fn look(&mut self, service: &ServiceName) -> Option<News> {
        let published = self.subscription.look();
        let revision = published.revision();
        if let Some(held) = &self.held {
            if revision < held.known_revision {
                return None;
            }
            let held = self.held.take()?;
            if published.present().is_some_and(|it| is_held(it, &held)) {
                self.told = Some(revision);
                let unchanged = watch_response::Kind::Unchanged(Unchanged {
                    service: service.to_string(),
                    revision,
                });
                return Some(News::own(unchanged));
            }
            // Should it hold another view of that revision, the digest says so.
            self.told = Some(held.known_revision).filter(|known| *known > 0);
        }
        let Some(present) = published.present() else {
            self.told = None;
            return Some(News::own(watch_response::Kind::Absent(Absent {
                service: service.to_string(),
                revision,
            })));
        };
        let told = self.told.replace(revision);
        let delta = told
            .filter(|_| self.takes_deltas)
            .and_then(|told| present.delta_since(told));
        Some(News::Shared(
            delta.unwrap_or_else(|| present.encoded().frame.clone()),
        ))
    }
}

/// Whether this is the view that the caller holds.
fn is_held(present: &PublishedView, held: &Subscribe) -> bool {
    present.view.revision.0 == held.known_revision
        && match held.known_digest {
            0 => present.encoded().checksum == held.known_checksum,
            digest => present.digest() == digest,
        }
}

// === impl News ===

impl News {
    /// To this caller alone.
    pub(super) fn own(kind: watch_response::Kind) -> News {
        News::Own(Box::new(kind))
    }

    /// As it is sent.
    pub fn framed(self, possibly_stale: bool) -> Bytes {
        match self {
            News::Shared(frame) if !possibly_stale => frame,
            News::Shared(frame) => convert::frame_with(&frame, &STALE_FIELD),
            News::Own(kind) => convert::frame(&WatchResponse {
                kind: Some(*kind),
                possibly_stale,
            }),
        }
    }

    /// As it arrives; `None` when it does not.
    pub fn arrived(self, possibly_stale: bool) -> Option<WatchResponse> {
        let frame = self.framed(possibly_stale);
        WatchResponse::decode(frame.slice(convert::FRAME_HEAD_BYTES..)).ok()
    }
}

fn has_group(published: &Published, group: &GroupName) -> bool {
    published.present().is_some_and(|present| {
        let groups = &present.view.groups;
        groups.binary_search_by(|(name, _)| name.cmp(group)).is_ok()
    })
}

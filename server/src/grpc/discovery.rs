//! `trimtab.v1.Discovery`: lookups, watches and the list of services.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1::discovery_server::Discovery;
use trimtab_proto::v1::{
    GoingAway, ListServicesRequest, ListServicesResponse, ResolveRequest, ResolveResponse,
    ServiceSummary, Unchanged, WatchRequest, WatchResponse, resolve_response, watch_response,
};
use trimtab_registry::instance::Status as InstanceStatus;
use trimtab_registry::name::ServiceName;
use trimtab_registry::rejection::{Missing, Rejection};

use super::context::Context;
use super::status::{of_invalid, of_propose_error, of_rejection};
use super::watching::{Watching, view_update};
use crate::convert;

/// Services in one page of the list.
pub const SERVICES_PER_PAGE_MAX: u32 = 1_000;

/// Callers that a replica welcomes and answers without holding up others: well
/// below what one core does.
const WELCOMES_PER_SECOND: u64 = 5_000;

/// A few callers leave as those of a replica that died do.
const LEAVE_WITHIN_MIN: Duration = Duration::from_millis(100);

/// Replicas take callers to be elsewhere after eight seconds
/// (`WATCHERS_MOVE_WITHIN`): this leaves them time to find another.
const LEAVE_WITHIN_MAX: Duration = Duration::from_secs(3);

/// The service.
#[derive(Debug)]
pub struct DiscoveryService {
    context: Context,
}

impl DiscoveryService {
    /// Answers from the rooms of one replica.
    pub fn new(context: Context) -> DiscoveryService {
        DiscoveryService { context }
    }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let request = request.into_inner();
        let service = ServiceName::parse(&request.service).map_err(of_invalid)?;
        self.context.require_caught_up()?;
        self.context.require_settled()?;
        if request.linearizable {
            let barrier = self.context.handle.read_barrier().await;
            barrier.map_err(of_propose_error)?;
        }
        let published = self.context.views.latest(&service);
        let Some(present) = published.present() else {
            return Err(of_rejection(Rejection::NotFound(Missing::Service(service))));
        };
        let revision = published.revision();
        let result = if request.known_revision == revision && revision > 0 {
            resolve_response::Result::Unchanged(Unchanged {
                service: request.service,
                revision,
            })
        } else {
            resolve_response::Result::View(view_update(present))
        };
        Ok(Response::new(ResolveResponse {
            result: Some(result),
            possibly_stale: self.context.possibly_stale(),
        }))
    }

    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<WatchStream>, Status> {
        self.context.require_caught_up()?;
        self.context.require_settled()?;
        let session = Session::new(self.context.clone(), request.into_inner());
        let responses = stream::unfold(session, |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let request = request.into_inner();
        self.context.require_caught_up()?;
        let limit = match request.limit {
            0 => SERVICES_PER_PAGE_MAX,
            limit => limit.min(SERVICES_PER_PAGE_MAX),
        } as usize;
        let (services, more) = self
            .context
            .handle
            .query(move |registry| {
                let mut rest = registry.services_after(&request.after);
                let page: Vec<ServiceSummary> = rest.by_ref().take(limit).map(summary).collect();
                (page, rest.next().is_some())
            })
            .await
            .map_err(of_propose_error)?;
        Ok(Response::new(ListServicesResponse {
            services,
            more,
            possibly_stale: self.context.possibly_stale(),
        }))
    }
}

/// Spreads so many callers over a moment, so that the replicas that are left
/// can welcome them.
fn goodbye(watchers: usize) -> GoingAway {
    let millis = watchers as u64 * 1_000 / WELCOMES_PER_SECOND;
    let within = Duration::from_millis(millis).clamp(LEAVE_WITHIN_MIN, LEAVE_WITHIN_MAX);
    GoingAway {
        reconnect_within: Some(convert::duration(within)),
    }
}

fn summary(service: &trimtab_registry::service::Service) -> ServiceSummary {
    let ready = service
        .instances()
        .filter(|instance| instance.status() == InstanceStatus::Ready);
    ServiceSummary {
        service: service.name().to_string(),
        revision: service.revision().0,
        groups: service.groups().len() as u32,
        ready: ready.count() as u32,
        instances: service.instances().len() as u32,
    }
}

/// One open watch stream. Owned by the response: when the caller is gone it
/// is dropped, and with it all that it held.
struct Session {
    context: Context,
    requests: Streaming<WatchRequest>,
    watching: Watching,
    cut_off: watch::Receiver<bool>,
    /// There is nothing more to say.
    ended: bool,
    /// The caller ended the stream.
    left: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.left {
            self.watching.broke(self.context.started.elapsed());
        }
    }
}

impl Session {
    fn new(context: Context, requests: Streaming<WatchRequest>) -> Session {
        let views = Arc::clone(&context.views);
        let watchers = Arc::clone(&context.watchers);
        Session {
            watching: Watching::new(context.id, context.handle.cluster_id(), views, watchers),
            cut_off: context.cut_off.clone(),
            context,
            requests,
            ended: false,
            left: false,
        }
    }

    /// The next answer; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        if self.ended {
            return None;
        }
        let stop = self.context.stop.clone();
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    let goodbye = goodbye(self.context.watchers.count());
                    Some(Ok(Some(watch_response::Kind::GoingAway(goodbye))))
                }
                Ok(()) = self.cut_off.changed() => Some(Ok(None)),
                request = self.requests.message() => match request {
                    Ok(None) => {
                        self.left = true;
                        return None;
                    }
                    Err(_) => return None,
                    Ok(Some(request)) => {
                        let taken = self.watching.take(self.context.started.elapsed(), request);
                        taken.transpose().map(|kind| kind.map(Some))
                    }
                },
                kind = poll_fn(|context| self.watching.poll_news(context)) => Some(Ok(Some(kind))),
            };
            match answer {
                None => {}
                Some(Ok(kind)) => {
                    return Some(Ok(WatchResponse {
                        kind,
                        possibly_stale: *self.cut_off.borrow_and_update(),
                    }));
                }
                Some(Err(status)) => {
                    self.ended = true;
                    return Some(Err(status));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_callers_are_spread_and_none_is_kept_for_long() {
        let within = |watchers| goodbye(watchers).reconnect_within;
        let millis = |millis| Some(convert::duration(Duration::from_millis(millis)));
        assert_eq!(within(0), millis(100));
        assert_eq!(within(5_000), millis(1_000));
        assert_eq!(within(1_000_000), millis(3_000));
    }
}

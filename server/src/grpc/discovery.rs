//! `trimtab.v1.Discovery`: lookups, watches and the list of services.
//!
//! The service is written by hand: the generated one would copy each view into
//! a buffer for each reader.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Wakes, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use trimtab_proto::v1::discovery_server::SERVICE_NAME;
use trimtab_proto::v1::{
    ListServicesRequest, ListServicesResponse, ResolveRequest, ResolveResponse, ServiceSummary,
    Unchanged, resolve_response,
};
use trimtab_registry::instance::Status as InstanceStatus;
use trimtab_registry::name::ServiceName;
use trimtab_registry::rejection::{Missing, Rejection};

use super::bodies::{Messages, Single, response};
use super::context::Context;
use super::status::{of_invalid, of_propose_error, of_rejection};
use super::watch_session::Session;
use crate::convert;

/// Services in one page of the list.
pub const SERVICES_PER_PAGE_MAX: u32 = 1_000;

/// `possibly_stale` of a `ResolveResponse`, set.
const STALE_FIELD: [u8; 2] = [3 << 3, 1];

/// The service.
#[derive(Clone, Debug)]
pub struct DiscoveryService {
    context: Context,
    /// The longest request, in bytes.
    request_bytes_max: usize,
}

impl DiscoveryService {
    /// Answers from the rooms of one replica.
    pub fn new(context: Context, request_bytes_max: usize) -> DiscoveryService {
        DiscoveryService {
            context,
            request_bytes_max,
        }
    }

    async fn resolve(self, body: Body) -> Result<Bytes, Status> {
        let request: ResolveRequest = Messages::new(body, self.request_bytes_max).only().await?;
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
        let possibly_stale = self.context.possibly_stale();
        if request.known_revision == revision && revision > 0 {
            let unchanged = Unchanged {
                service: request.service,
                revision,
            };
            return Ok(convert::frame(&ResolveResponse {
                result: Some(resolve_response::Result::Unchanged(unchanged)),
                possibly_stale,
            }));
        }
        let frame = &present.encoded().frame;
        Ok(match possibly_stale {
            false => frame.clone(),
            true => convert::frame_with(frame, &STALE_FIELD),
        })
    }

    fn watch(self, body: Body) -> Result<Response<Body>, Status> {
        self.context.require_caught_up()?;
        self.context.require_settled()?;
        let session = Session::new(self.context, body, self.request_bytes_max);
        Ok(response(session))
    }

    async fn list_services(self, body: Body) -> Result<Bytes, Status> {
        let request: ListServicesRequest =
            Messages::new(body, self.request_bytes_max).only().await?;
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
        Ok(convert::frame(&ListServicesResponse {
            services,
            more,
            possibly_stale: self.context.possibly_stale(),
        }))
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let method = head.uri.path().rsplit('/').next();
        let answered = match method {
            Some("Resolve") => self.resolve(body).await,
            Some("Watch") => return self.watch(body).unwrap_or_else(Status::into_http),
            Some("ListServices") => self.list_services(body).await,
            _ => Err(Status::unimplemented(format!(
                "there is no {}",
                head.uri.path()
            ))),
        };
        match answered {
            Ok(frame) => response(Single::new(frame)),
            Err(status) => status.into_http(),
        }
    }
}

impl NamedService for DiscoveryService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for DiscoveryService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Wakes<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
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

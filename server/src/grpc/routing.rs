//! `trimtab.v1.Routing`: who gets which share, and how that came about.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use trimtab_proto::v1::routing_server::Routing;
use trimtab_proto::v1::{
    AdjustInstanceRequest, AdjustInstanceResponse, DescribeRequest, DescribeResponse,
    GetRouteRequest, GetRouteResponse, HistoryRequest, HistoryResponse, ReceiptsRequest,
    ReceiptsResponse, RollbackRequest, RollbackResponse, ShiftRequest, ShiftResponse,
    TeardownRequest, TeardownResponse,
};
use trimtab_registry::command::{Command, SERVICES_PER_CHANGE_MAX, Teardown};
use trimtab_registry::name::ServiceName;
use trimtab_registry::outcome::{Outcome, Routed};
use trimtab_registry::rejection::{Invalid, Missing, Rejection};
use trimtab_registry::view::ServiceView;

use super::brakes;
use super::context::Context;
use super::describe::describe;
use super::receipts;
use super::status::{of_invalid, of_propose_error, of_rejection, unexpected_outcome};
use crate::convert;

/// How long no caller may have called a group before it is torn down, unless
/// the request says otherwise.
pub const QUIET_DEFAULT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Debug)]
pub struct RoutingService {
    context: Context,
}

impl RoutingService {
    /// Works on the rooms of one replica.
    pub fn new(context: Context) -> RoutingService {
        RoutingService { context }
    }

    /// Carries out a command, or only judges it.
    async fn decide(&self, command: Command, dry_run: bool) -> Result<Outcome, Status> {
        let decided = if dry_run {
            self.context.handle.plan(command).await
        } else {
            self.context.handle.propose(command).await
        };
        decided.map_err(of_propose_error)
    }

    /// The newest view of a service that any acknowledged write has made.
    async fn current(&self, service: &ServiceName) -> Result<ServiceView, Status> {
        let barrier = self.context.handle.read_barrier().await;
        barrier.map_err(of_propose_error)?;
        self.applied(service)
    }

    /// The view of a service as this replica has it.
    fn applied(&self, service: &ServiceName) -> Result<ServiceView, Status> {
        let published = self.context.views.latest(service);
        match published.present() {
            Some(present) => Ok(present.view.clone()),
            None => Err(of_rejection(Rejection::NotFound(Missing::Service(
                service.clone(),
            )))),
        }
    }

    /// Refuses to let a group go while callers may still use it, and pins the
    /// teardown to the route that was looked at. Nothing of this is in the
    /// log: who watches and calls is known to the replicas, not to the state.
    async fn check_unused(&self, asked: &mut Teardown, quiet: Duration) -> Result<(), Status> {
        let view = self.current(&asked.service).await?;
        let route_revision = *asked.expected.get_or_insert(view.route_revision);
        if asked.change.force {
            return Ok(());
        }
        let services = std::slice::from_ref(&asked.service);
        let observation = self.context.observer.gather(services).await;
        let receipts = observation.receipts(services, route_revision.0);
        let (service, group) = (&asked.service, &asked.group);
        if let Some((_, laggard)) = receipts.laggards.first() {
            return Err(Status::failed_precondition(format!(
                "{} of {} watchers of service {service} have not confirmed its route of revision {route_revision}, \
                 so they may still call group {group}: among them {} ({}) on replica {}, which is at {}; \
                 wait for them, or use force",
                receipts.laggards.len(),
                receipts.watchers,
                laggard.watcher_id,
                laggard.name,
                laggard.replica,
                laggard.revision,
            )));
        }
        if let Some(replica) = receipts.uncertain.first() {
            return Err(Status::failed_precondition(format!(
                "replica {replica} does not answer or has only just come back, so its watchers of service {service} may \
                 still call group {group}; ask again in a few seconds, or use force"
            )));
        }
        let load = observation
            .loads
            .get(service)
            .and_then(|loads| loads.get(group));
        match load.and_then(|load| load.last_call_age) {
            Some(age) if age < quiet => Err(Status::failed_precondition(format!(
                "group {group} of service {service} was called {:.1} s ago, and must be quiet for {:.1} s; \
                 wait, lower quiet, or use force",
                age.as_secs_f64(),
                quiet.as_secs_f64(),
            ))),
            _ => Ok(()),
        }
    }
}

fn routed(routed: &Routed) -> (u64, Vec<trimtab_proto::v1::RouteChange>) {
    let changes = routed.changes.iter();
    (
        routed.revision.0,
        changes.map(|change| convert::change(change)).collect(),
    )
}

type ReceiptsStream = Pin<Box<dyn Stream<Item = Result<ReceiptsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Routing for RoutingService {
    async fn shift(
        &self,
        request: Request<ShiftRequest>,
    ) -> Result<Response<ShiftResponse>, Status> {
        let request = request.into_inner();
        let dry_run = is_dry_run(request.options.as_ref());
        let command = convert::shift(request, self.context.now_ms()).map_err(of_invalid)?;
        match self.decide(Command::Shift(command), dry_run).await? {
            Outcome::Shifted(outcome) => {
                let (revision, changes) = routed(&outcome);
                Ok(Response::new(ShiftResponse {
                    revision,
                    changes,
                    warnings: outcome.warnings,
                }))
            }
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        let request = request.into_inner();
        let dry_run = is_dry_run(request.options.as_ref());
        let command = convert::rollback(request, self.context.now_ms()).map_err(of_invalid)?;
        match self.decide(Command::Rollback(command), dry_run).await? {
            Outcome::RolledBack(outcome) => {
                let (revision, changes) = routed(&outcome);
                Ok(Response::new(RollbackResponse {
                    revision,
                    changes,
                    warnings: outcome.warnings,
                }))
            }
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn teardown(
        &self,
        request: Request<TeardownRequest>,
    ) -> Result<Response<TeardownResponse>, Status> {
        let request = request.into_inner();
        let dry_run = is_dry_run(request.options.as_ref());
        let quiet = match request.quiet {
            None => QUIET_DEFAULT,
            Some(quiet) => trimtab_proto::duration::parse(&quiet).ok_or_else(|| {
                let seconds = format_args!("{} s", quiet.seconds);
                of_invalid(Invalid::new("quiet", seconds, "must not be negative"))
            })?,
        };
        let mut command = convert::teardown(request, self.context.now_ms()).map_err(of_invalid)?;
        // What the log would refuse anyway is refused first, with its reason.
        self.decide(Command::Teardown(command.clone()), true)
            .await?;
        self.check_unused(&mut command, quiet).await?;
        match self.decide(Command::Teardown(command), dry_run).await? {
            Outcome::TornDown {
                revision,
                instances,
                warnings,
            } => Ok(Response::new(TeardownResponse {
                revision: revision.0,
                instances,
                warnings,
            })),
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn adjust_instance(
        &self,
        request: Request<AdjustInstanceRequest>,
    ) -> Result<Response<AdjustInstanceResponse>, Status> {
        let request = request.into_inner();
        let dry_run = is_dry_run(request.options.as_ref());
        let command = convert::adjust(request, self.context.now_ms()).map_err(of_invalid)?;
        match self
            .decide(Command::AdjustInstance(command), dry_run)
            .await?
        {
            Outcome::Adjusted {
                revision,
                instance,
                warnings,
            } => Ok(Response::new(AdjustInstanceResponse {
                revision: revision.0,
                instance: Some(convert::instance(&instance)),
                warnings,
            })),
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn get_route(
        &self,
        request: Request<GetRouteRequest>,
    ) -> Result<Response<GetRouteResponse>, Status> {
        let service = ServiceName::parse(&request.get_ref().service).map_err(of_invalid)?;
        self.context.require_caught_up()?;
        let view = self.applied(&service)?;
        Ok(Response::new(GetRouteResponse {
            route: Some(convert::route(&view.route)),
            route_revision: view.route_revision.0,
        }))
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        let request = request.into_inner();
        let service = ServiceName::parse(&request.service).map_err(of_invalid)?;
        self.context.require_caught_up()?;
        let limit = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let asked = service.clone();
        let changes = self
            .context
            .handle
            .query(move |registry| {
                let service = registry.service(&asked)?;
                let mut changes: Vec<_> = service.history().cloned().collect();
                changes.sort_by_key(|change| std::cmp::Reverse(change.revision));
                changes.truncate(limit);
                Some(changes)
            })
            .await
            .map_err(of_propose_error)?
            .ok_or_else(|| of_rejection(Rejection::NotFound(Missing::Service(service))))?;
        Ok(Response::new(HistoryResponse {
            changes: changes
                .iter()
                .map(|change| convert::change(change))
                .collect(),
        }))
    }

    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let service = ServiceName::parse(&request.get_ref().service).map_err(of_invalid)?;
        self.context.require_caught_up()?;
        let view = self.applied(&service)?;
        let services = std::slice::from_ref(&service);
        let observation = self.context.observer.gather(services).await;
        let mut alarms = Vec::new();
        let possibly_stale = self.context.possibly_stale();
        if possibly_stale {
            alarms.push(format!(
                "replica {} hears of no leader: this may be old, and nothing can be changed",
                self.context.id
            ));
        }
        let mut brakes = brakes::own_of(&self.context, services);
        brakes.extend_from_slice(&observation.brakes);
        alarms.extend(brakes.iter().map(|brake| brake.reason.clone()));
        let window = self.context.observer.window();
        Ok(Response::new(DescribeResponse {
            possibly_stale,
            brakes,
            ..describe(&view, &observation, window, alarms)
        }))
    }

    type ReceiptsStream = ReceiptsStream;

    async fn receipts(
        &self,
        request: Request<ReceiptsRequest>,
    ) -> Result<Response<ReceiptsStream>, Status> {
        let request = request.into_inner();
        if request.services.is_empty() || request.services.len() > SERVICES_PER_CHANGE_MAX {
            return Err(of_invalid(Invalid::new(
                "services",
                request.services.len(),
                "must be 1 to 64",
            )));
        }
        let services = request.services.iter().map(|name| ServiceName::parse(name));
        let services: Vec<ServiceName> = services.collect::<Result<_, _>>().map_err(of_invalid)?;
        let followed = receipts::follow(self.context.clone(), services, request.revision);
        Ok(Response::new(Box::pin(followed)))
    }
}

fn is_dry_run(options: Option<&trimtab_proto::v1::ChangeOptions>) -> bool {
    options.is_some_and(|options| options.dry_run)
}

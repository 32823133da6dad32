//! The operator's calls: one method for each thing to ask.

use std::time::Duration;

use prost::Message;
use trimtab_proto::v1 as wire;

use crate::cluster::{Cluster, DEFAULT_DEADLINE, Repeat};
use crate::error::Error;
use crate::operator::change::{
    AdjustmentOutcome, ChangeOptions, InstanceAdjustment, RollbackTarget, RouteChange,
    ServiceShift, ShiftOutcome, Teardown, TeardownOutcome,
};
use crate::operator::cluster_status::ClusterStatus;
use crate::operator::convert;
use crate::operator::receipts::Receipts;
use crate::operator::route::CurrentRoute;
use crate::operator::service_status::{ServiceList, ServiceStatus, ServiceView};
use crate::operator::snapshot::{self, SnapshotDownload};
use crate::operator::stubs::{cluster, discovery, routing};
use crate::operator::watch::ServiceWatch;

/// Names asked for in one page: the most the registry gives.
const PAGE_SERVICES: u32 = 1_000;

/// Pages read at most: 100,000 services, the most a registry holds, and as
/// many again for names that come while reading.
const PAGES_MAX: usize = 200;

/// The operator's side of a registry. Cheap to clone.
///
/// Every method asks one replica and goes on to the next while the registry
/// is unavailable, until the deadline. Changes are repeated under one request
/// id, so that a lost answer does no harm.
///
/// # Errors
/// All methods: [`Error::Invalid`] names field, value and rule;
/// [`Error::NotFound`]; [`Error::Refused`] when a guard or an expected
/// revision said no, with the numbers; [`Error::Unavailable`] when no replica
/// took the request in time. Nothing changed in any of these cases. Only after
/// [`Error::UnknownOutcome`] a change may have been made: repeat it under the
/// same [`request_id`](ChangeOptions::request_id).
#[derive(Debug, Clone)]
pub struct Operator {
    pub(super) cluster: Cluster,
    pub(super) deadline: Duration,
}

impl Operator {
    /// An operator of this registry, with [`DEFAULT_DEADLINE`] for each
    /// request.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// Looks for a replica that can take a request for so long.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    // === changes ===

    /// Changes the routes of one or several services, all or none, at one
    /// revision.
    pub async fn shift(
        &self,
        shifts: &[ServiceShift],
        options: &ChangeOptions,
    ) -> Result<ShiftOutcome, Error> {
        let request = wire::ShiftRequest {
            shifts: shifts.iter().map(convert::shift_to_wire).collect(),
            options: Some(named(options)),
        };
        let answer = self
            .cluster
            .call("Shift", Repeat::Safe, self.deadline, |channel| {
                let request = request.clone();
                async move { routing(channel).shift(request).await }
            })
            .await?;
        Ok(convert::shift_outcome(
            answer.revision,
            answer.changes,
            answer.warnings,
            options.dry_run,
        ))
    }

    /// Restores earlier routes, exactly; all or none.
    pub async fn rollback(
        &self,
        targets: &[RollbackTarget],
        options: &ChangeOptions,
    ) -> Result<ShiftOutcome, Error> {
        let request = wire::RollbackRequest {
            targets: targets.iter().map(convert::rollback_to_wire).collect(),
            options: Some(named(options)),
        };
        let answer = self
            .cluster
            .call("Rollback", Repeat::Safe, self.deadline, |channel| {
                let request = request.clone();
                async move { routing(channel).rollback(request).await }
            })
            .await?;
        Ok(convert::shift_outcome(
            answer.revision,
            answer.changes,
            answer.warnings,
            options.dry_run,
        ))
    }

    /// Tells the instances of a group to retire.
    pub async fn teardown(
        &self,
        teardown: &Teardown,
        options: &ChangeOptions,
    ) -> Result<TeardownOutcome, Error> {
        let request = convert::teardown_to_wire(teardown, named(options))?;
        let answer = self
            .cluster
            .call("Teardown", Repeat::Safe, self.deadline, |channel| {
                let request = request.clone();
                async move { routing(channel).teardown(request).await }
            })
            .await?;
        Ok(TeardownOutcome {
            revision: answer.revision,
            dry_run: options.dry_run,
            instances: answer.instances,
            warnings: answer.warnings,
        })
    }

    /// Sets on one instance what it does not say of itself.
    pub async fn adjust_instance(
        &self,
        adjustment: &InstanceAdjustment,
        options: &ChangeOptions,
    ) -> Result<AdjustmentOutcome, Error> {
        let request = convert::adjustment_to_wire(adjustment, named(options));
        let answer = self
            .cluster
            .call("AdjustInstance", Repeat::Safe, self.deadline, |channel| {
                let request = request.clone();
                async move { routing(channel).adjust_instance(request).await }
            })
            .await?;
        Ok(convert::adjustment_outcome(answer, options.dry_run))
    }

    /// Follows who uses a revision of these services, until all do.
    pub fn receipts(&self, services: &[String], revision: u64) -> Receipts {
        Receipts::new(
            self.cluster.clone(),
            self.deadline,
            services.to_vec(),
            revision,
        )
    }

    // === questions ===

    /// Groups, instances, intended and observed shares of a service.
    pub async fn describe(&self, service: &str) -> Result<ServiceStatus, Error> {
        let answer = self
            .cluster
            .call("Describe", Repeat::Read, self.deadline, |channel| {
                let request = wire::DescribeRequest {
                    service: service.to_owned(),
                };
                async move { routing(channel).describe(request).await }
            })
            .await?;
        Ok(convert::service_status(answer))
    }

    /// The changes of a service's route, newest first; all that is kept when
    /// there is no limit.
    pub async fn history(
        &self,
        service: &str,
        limit: Option<u32>,
    ) -> Result<Vec<RouteChange>, Error> {
        let answer = self
            .cluster
            .call("History", Repeat::Read, self.deadline, |channel| {
                let request = wire::HistoryRequest {
                    service: service.to_owned(),
                    limit: limit.unwrap_or(0),
                };
                async move { routing(channel).history(request).await }
            })
            .await?;
        Ok(convert::route_changes(answer.changes))
    }

    /// The route of a service and its revision.
    pub async fn route(&self, service: &str) -> Result<CurrentRoute, Error> {
        let answer = self
            .cluster
            .call("GetRoute", Repeat::Read, self.deadline, |channel| {
                let request = wire::GetRouteRequest {
                    service: service.to_owned(),
                };
                async move { routing(channel).get_route(request).await }
            })
            .await?;
        Ok(convert::current_route(service, answer))
    }

    /// All services, sorted by name.
    pub async fn list_services(&self) -> Result<ServiceList, Error> {
        let mut list = ServiceList {
            services: Vec::new(),
            possibly_stale: false,
        };
        for _ in 0..PAGES_MAX {
            let after = list.services.last().map(|last| last.service.clone());
            let page = self.service_page(after.unwrap_or_default()).await?;
            list.possibly_stale |= page.possibly_stale;
            let more = page.more && !page.services.is_empty();
            list.services
                .extend(page.services.into_iter().map(convert::service_summary));
            if !more {
                break;
            }
        }
        Ok(list)
    }

    async fn service_page(&self, after: String) -> Result<wire::ListServicesResponse, Error> {
        self.cluster
            .call("ListServices", Repeat::Read, self.deadline, |channel| {
                let request = wire::ListServicesRequest {
                    after: after.clone(),
                    limit: PAGE_SERVICES,
                };
                async move { discovery(channel).list_services(request).await }
            })
            .await
    }

    /// Everything a caller is told about a service. With `linearizable` every
    /// change acknowledged before is seen, and a registry without quorum does
    /// not answer.
    pub async fn resolve(&self, service: &str, linearizable: bool) -> Result<ServiceView, Error> {
        let answer = self
            .cluster
            .call("Resolve", Repeat::Read, self.deadline, |channel| {
                let request = wire::ResolveRequest {
                    service: service.to_owned(),
                    linearizable,
                    known_revision: 0,
                };
                async move { discovery(channel).resolve(request).await }
            })
            .await?;
        let malformed = || Error::Malformed(format!("view of {service}"));
        let Some(wire::resolve_response::Result::View(update)) = answer.result else {
            return Err(malformed());
        };
        if trimtab_proto::checksum(&update.view) != update.checksum {
            return Err(malformed());
        }
        let view = wire::View::decode(update.view).map_err(|_| malformed())?;
        Ok(convert::service_view(view, answer.possibly_stale))
    }

    /// Follows what callers are told about a service. `name` is how laggard
    /// lists call the watcher.
    pub fn watch(&self, service: &str, name: &str) -> ServiceWatch {
        ServiceWatch::new(
            self.cluster.clone(),
            self.deadline,
            service.to_owned(),
            name.to_owned(),
        )
    }

    /// Every replica of the registry as it sees itself.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        let answer = self
            .cluster
            .call(
                "Status",
                Repeat::Read,
                self.deadline,
                |channel| async move { cluster(channel).status(wire::StatusRequest {}).await },
            )
            .await?;
        Ok(convert::cluster_status(answer))
    }

    /// The whole state as the bytes of a snapshot file, from the first replica
    /// that can vouch for it; with `allow_stale`, from the first that answers:
    /// the file says whether a quorum confirmed it.
    pub async fn save_snapshot(&self, allow_stale: bool) -> Result<SnapshotDownload, Error> {
        let request = wire::SaveSnapshotRequest { allow_stale };
        let parts = self
            .cluster
            .call(
                snapshot::REQUEST,
                Repeat::Read,
                self.deadline,
                |channel| async move { cluster(channel).save_snapshot(request).await },
            )
            .await?;
        Ok(SnapshotDownload::new(parts))
    }
}

// === private parts ===

/// The options as they travel, under an id that all repetitions share.
fn named(options: &ChangeOptions) -> wire::ChangeOptions {
    let request_id = options
        .request_id
        .clone()
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    convert::options_to_wire(options, request_id)
}

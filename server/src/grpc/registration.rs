//! `trimtab.v1.Registration`: instances come, renew and leave.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1::registration_server::Registration;
use trimtab_proto::v1::{
    DeregisterRequest, DeregisterResponse, LeaseRef, RegisterRequest, RegisterResponse,
    RenewRequest, RenewResponse, SetStatusRequest, SetStatusResponse,
};
use trimtab_registry::command::{Command, Deregister};
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Invalid;

use super::context::Context;
use super::status::{of_invalid, of_propose_error, unexpected_outcome};
use crate::convert;
use crate::renewals::StreamId;

/// Leases in one renewal: what one process can be expected to hold.
pub const LEASES_PER_RENEWAL_MAX: usize = 10_000;

/// Renewals an instance may miss before its lease is over: it renews three
/// times within a TTL.
const RENEWALS_PER_TTL: u32 = 3;

/// The service.
#[derive(Debug)]
pub struct RegistrationService {
    context: Context,
}

impl RegistrationService {
    /// Works on the rooms of one replica.
    pub fn new(context: Context) -> RegistrationService {
        RegistrationService { context }
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Status> {
        let outcome = self.context.handle.propose(command).await;
        outcome.map_err(of_propose_error)
    }
}

type RenewStream = Pin<Box<dyn Stream<Item = Result<RenewResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let command = convert::register(request.into_inner(), self.context.now_ms());
        let command = command.map_err(of_invalid)?;
        let ttl = std::time::Duration::from_millis(command.ttl.as_millis());
        match self.propose(Command::Register(command)).await? {
            Outcome::Registered { revision, lease } => Ok(Response::new(RegisterResponse {
                revision: revision.0,
                lease: lease.0,
                ttl: Some(convert::duration(ttl)),
                renew_interval: Some(convert::duration(ttl / RENEWALS_PER_TTL)),
            })),
            other => Err(unexpected_outcome(&other)),
        }
    }

    type RenewStream = RenewStream;

    async fn renew(
        &self,
        request: Request<Streaming<RenewRequest>>,
    ) -> Result<Response<RenewStream>, Status> {
        let session = Session::new(self.context.clone(), request.into_inner());
        let responses = stream::unfold(session, |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn set_status(
        &self,
        request: Request<SetStatusRequest>,
    ) -> Result<Response<SetStatusResponse>, Status> {
        let command = convert::set_status(request.get_ref()).map_err(of_invalid)?;
        match self.propose(Command::SetStatus(command)).await? {
            Outcome::StatusSet { revision } => Ok(Response::new(SetStatusResponse {
                revision: revision.0,
            })),
            other => Err(unexpected_outcome(&other)),
        }
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        let Some(lease) = request.into_inner().lease else {
            return Err(of_invalid(Invalid::new("lease", "", "must be set")));
        };
        let lease = convert::lease_key(&lease).map_err(of_invalid)?;
        let command = Command::Deregister(Deregister { lease });
        match self.propose(command).await? {
            Outcome::Deregistered { revision, .. } => Ok(Response::new(DeregisterResponse {
                revision: revision.0,
            })),
            other => Err(unexpected_outcome(&other)),
        }
    }
}

/// One open renewal stream. Dropped when its process is gone; then the
/// leases it renewed are reported, unless it was this replica that left.
struct Session {
    context: Context,
    requests: Streaming<RenewRequest>,
    id: StreamId,
    /// Each lease by itself and how the wire names it.
    leases: HashMap<LeaseKey, LeaseRef>,
    told_to_retire: HashSet<LeaseKey>,
    retirements: watch::Receiver<u64>,
    ended: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        let leases = self.leases.drain().map(|(key, _)| key).collect();
        let broken = !self.ended && !self.context.stop.is_cancelled();
        self.context.renewals.close_stream(self.id, leases, broken);
    }
}

impl Session {
    fn new(context: Context, requests: Streaming<RenewRequest>) -> Session {
        Session {
            id: context.renewals.open_stream(),
            retirements: context.renewals.retirements(),
            context,
            requests,
            leases: HashMap::new(),
            told_to_retire: HashSet::new(),
            ended: false,
        }
    }

    /// The next answer; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Result<RenewResponse, Status>> {
        if self.ended {
            return None;
        }
        let stop = self.context.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    return Some(Ok(RenewResponse { going_away: true, ..RenewResponse::default() }));
                }
                request = self.requests.message() => {
                    let Ok(Some(request)) = request else { return None };
                    let answer = self.renew(request).await;
                    self.ended = answer.is_err();
                    return Some(answer);
                }
                Ok(()) = self.retirements.changed() => {
                    let retire = self.newly_retiring();
                    if !retire.is_empty() {
                        return Some(Ok(RenewResponse { retire, ..RenewResponse::default() }));
                    }
                }
            }
        }
    }

    async fn renew(&mut self, request: RenewRequest) -> Result<RenewResponse, Status> {
        if request.leases.len() > LEASES_PER_RENEWAL_MAX {
            return Err(of_invalid(Invalid::new(
                "leases",
                request.leases.len(),
                "must have at most 10,000 entries; split the renewal",
            )));
        }
        let mut keys = Vec::with_capacity(request.leases.len());
        for lease in request.leases {
            let key = convert::lease_key(&lease).map_err(of_invalid)?;
            keys.push(key.clone());
            self.leases.insert(key, lease);
        }
        if self.leases.len() > LEASES_PER_RENEWAL_MAX {
            return Err(Status::resource_exhausted(format!(
                "a renewal stream holds at most {LEASES_PER_RENEWAL_MAX} leases; open another one"
            )));
        }
        let handle = self.context.handle.clone();
        let renewals = &self.context.renewals;
        let renewed = renewals.renew(&handle, self.id, keys).await;
        let lost = renewed
            .map_err(|error| Status::unavailable(error.to_string()))?
            .into_iter()
            .filter_map(|key| {
                self.told_to_retire.remove(&key);
                self.leases.remove(&key)
            })
            .collect();
        Ok(RenewResponse {
            lost,
            retire: self.newly_retiring(),
            going_away: false,
        })
    }

    /// Leases of groups that are torn down, each told once.
    fn newly_retiring(&mut self) -> Vec<LeaseRef> {
        let retiring = self.context.renewals.retiring(self.leases.keys());
        retiring
            .into_iter()
            .filter(|key| self.told_to_retire.insert(key.clone()))
            .filter_map(|key| self.leases.get(&key).cloned())
            .collect()
    }
}

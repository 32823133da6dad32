//! `trimtab.v1.Registration`: instances come, renew and leave.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1::register_many_result::Result as Said;
use trimtab_proto::v1::registration_server::Registration;
use trimtab_proto::v1::{
    DeregisterRequest, DeregisterResponse, RegisterManyRequest, RegisterManyResponse,
    RegisterManyResult, RegisterRefusal, RegisterRequest, RegisterResponse, RenewRequest,
    RenewResponse, SetStatusRequest, SetStatusResponse,
};
use trimtab_registry::command::{Command, Deregister};
use trimtab_registry::instance::Ttl;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::Invalid;

use super::context::Context;
use super::session::Session;
use super::status::{of_invalid, of_propose_error, unexpected_outcome};
use crate::consensus::handle::many::COMMANDS_MAX;
use crate::convert;

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

    /// Before anything is made of a request.
    fn room_for(&self, changes: usize) -> Result<(), Status> {
        let room = self.context.handle.room_for(changes);
        room.map_err(of_propose_error)
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Status> {
        let outcome = self.context.handle.propose(command).await;
        outcome.map_err(of_propose_error)
    }
}

fn registered(ttl: Ttl, outcome: &Outcome) -> Result<RegisterResponse, Status> {
    let Outcome::Registered { revision, lease } = outcome else {
        return Err(unexpected_outcome(outcome));
    };
    let ttl = Duration::from_millis(ttl.as_millis());
    Ok(RegisterResponse {
        revision: revision.0,
        lease: lease.0,
        ttl: Some(convert::duration(ttl)),
        renew_interval: Some(convert::duration(ttl / RENEWALS_PER_TTL)),
    })
}

fn refused(status: Status) -> Said {
    Said::Refused(RegisterRefusal {
        code: status.code() as u32,
        message: status.message().to_owned(),
    })
}

type RenewStream = Pin<Box<dyn Stream<Item = Result<RenewResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        self.room_for(1)?;
        let command = convert::register(request.into_inner(), self.context.now_ms());
        let command = command.map_err(of_invalid)?;
        let ttl = command.ttl;
        let outcome = self.propose(Command::Register(command)).await?;
        registered(ttl, &outcome).map(Response::new)
    }

    async fn register_many(
        &self,
        request: Request<RegisterManyRequest>,
    ) -> Result<Response<RegisterManyResponse>, Status> {
        let requests = request.into_inner().requests;
        if requests.is_empty() || requests.len() > COMMANDS_MAX {
            let rule = "must have 1 to 1,000 entries; split the call";
            return Err(of_invalid(Invalid::new("requests", requests.len(), rule)));
        }
        self.room_for(requests.len())?;
        let at_ms = self.context.now_ms();
        let mut commands = Vec::with_capacity(requests.len());
        // The TTL of each that is valid, and what is wrong with the others.
        let mut checked = Vec::with_capacity(requests.len());
        for request in requests {
            let command = convert::register(request, at_ms).map_err(of_invalid);
            checked.push(command.map(|command| {
                let ttl = command.ttl;
                commands.push(Command::Register(command));
                ttl
            }));
        }
        let outcomes = match commands.is_empty() {
            true => Vec::new(),
            false => {
                (self.context.handle.propose_many(&commands).await).map_err(of_propose_error)?
            }
        };
        let mut outcomes = outcomes.into_iter();
        let results = checked.into_iter().map(|checked| {
            let unanswered = || Status::unknown("the log does not say what became of it");
            let result = checked.and_then(|ttl| {
                let outcome = outcomes.next().ok_or_else(unanswered)?;
                registered(ttl, &outcome.map_err(of_propose_error)?)
            });
            RegisterManyResult {
                result: Some(result.map_or_else(refused, Said::Registered)),
            }
        });
        let results = results.collect();
        Ok(Response::new(RegisterManyResponse { results }))
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

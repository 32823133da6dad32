//! `trimtab.v1.Registration` of a fake registry.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1 as wire;
use wire::register_many_result::Result as Said;
use wire::registration_server::Registration;

use crate::testing::discovery::Answers;
use crate::testing::state::Shared;

/// One answer to each request.
const UNSENT_MAX: usize = 16;

/// The service.
#[derive(Debug)]
pub(super) struct FakeRegistrations(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Registration for FakeRegistrations {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        let registered = self.0.tell(|state| state.register(request));
        registered.map(Response::new)
    }

    async fn register_many(
        &self,
        request: Request<wire::RegisterManyRequest>,
    ) -> Result<Response<wire::RegisterManyResponse>, Status> {
        let requests = request.into_inner().requests;
        let results = requests.into_iter().map(|request| {
            let registered = self.0.tell(|state| state.register(request));
            let result = registered.map_or_else(refused, Said::Registered);
            wire::RegisterManyResult {
                result: Some(result),
            }
        });
        let results = results.collect();
        Ok(Response::new(wire::RegisterManyResponse { results }))
    }

    type RenewStream = Answers<wire::RenewResponse>;

    async fn renew(
        &self,
        request: Request<Streaming<wire::RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(UNSENT_MAX);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let response = shared.tell(|state| state.renew(request));
                if sender.send(Ok(response)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn set_status(
        &self,
        request: Request<wire::SetStatusRequest>,
    ) -> Result<Response<wire::SetStatusResponse>, Status> {
        let request = request.into_inner();
        let set = self.0.tell(|state| state.set_status(&request));
        set.map(Response::new)
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        let request = request.into_inner();
        let revision = self.0.tell(|state| state.deregister(&request));
        Ok(Response::new(wire::DeregisterResponse { revision }))
    }
}

fn refused(status: Status) -> Said {
    Said::Refused(wire::RegisterRefusal {
        code: status.code() as u32,
        message: status.message().to_owned(),
    })
}

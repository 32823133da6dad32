//! `trimtab.v1.Routing` of a fake registry: who confirmed what, and nothing else.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trimtab_proto::v1 as wire;
use wire::routing_server::Routing;

use crate::testing::discovery::Answers;
use crate::testing::state::Shared;

/// The newest answer counts.
const UNSENT_MAX: usize = 4;

/// The service.
#[derive(Debug)]
pub(super) struct FakeRouting(pub(super) Arc<Shared>);

macro_rules! routing_with_receipts_alone {
    ($($name:ident: $request:ident => $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Routing for FakeRouting {
            type ReceiptsStream = Answers<wire::ReceiptsResponse>;

            async fn receipts(
                &self,
                request: Request<wire::ReceiptsRequest>,
            ) -> Result<Response<Self::ReceiptsStream>, Status> {
                let request = request.into_inner();
                let (sender, receiver) = mpsc::channel(UNSENT_MAX);
                tokio::spawn(follow(Arc::clone(&self.0), request, sender));
                Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
            }

            $(async fn $name(
                &self,
                _: Request<wire::$request>,
            ) -> Result<Response<wire::$response>, Status> {
                Err(Status::unimplemented(
                    "a fake registry changes what the test says: use its methods",
                ))
            })*
        }
    };
}

routing_with_receipts_alone! {
    shift: ShiftRequest => ShiftResponse,
    rollback: RollbackRequest => RollbackResponse,
    teardown: TeardownRequest => TeardownResponse,
    adjust_instance: AdjustInstanceRequest => AdjustInstanceResponse,
    get_route: GetRouteRequest => GetRouteResponse,
    history: HistoryRequest => HistoryResponse,
    describe: DescribeRequest => DescribeResponse,
}

/// Says who has confirmed, until all have or nobody listens.
async fn follow(
    shared: Arc<Shared>,
    request: wire::ReceiptsRequest,
    sender: mpsc::Sender<Result<wire::ReceiptsResponse, Status>>,
) {
    let mut told = shared.told.subscribe();
    loop {
        let progress = shared.state().progress(&request.services, request.revision);
        let is_complete = progress.complete;
        if sender.send(Ok(progress)).await.is_err() || is_complete {
            return;
        }
        tokio::select! {
            () = sender.closed() => return,
            changed = told.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

//! The null server's part of `trimtab.v1.Routing`: a shift reaches every watch, and receipts are counted.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use trimtab_proto::v1::routing_server::{Routing, RoutingServer};
use trimtab_proto::v1::{
    AdjustInstanceRequest, AdjustInstanceResponse, DescribeRequest, DescribeResponse,
    GetRouteRequest, GetRouteResponse, HistoryRequest, HistoryResponse, ReceiptsRequest,
    ReceiptsResponse, RollbackRequest, RollbackResponse, ShiftRequest, ShiftResponse,
    TeardownRequest, TeardownResponse,
};

use super::server::Null;

/// How often the receipts are counted while someone waits for them: well below what a fan-out takes.
const COUNT_EVERY: Duration = Duration::from_micros(500);

/// The service as the server takes it.
pub(super) fn server(null: Null) -> RoutingServer<Null> {
    RoutingServer::new(null)
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the null server does nothing"))
}

#[tonic::async_trait]
impl Routing for Null {
    async fn shift(
        &self,
        _request: Request<ShiftRequest>,
    ) -> Result<Response<ShiftResponse>, Status> {
        self.receipts.store(0, Relaxed);
        let mut revision = 0;
        self.changes.send_modify(|changes| {
            *changes += 1;
            revision = *changes;
        });
        Ok(Response::new(ShiftResponse {
            revision,
            ..ShiftResponse::default()
        }))
    }

    type ReceiptsStream = Pin<Box<dyn Stream<Item = Result<ReceiptsResponse, Status>> + Send>>;

    async fn receipts(
        &self,
        _request: Request<ReceiptsRequest>,
    ) -> Result<Response<Self::ReceiptsStream>, Status> {
        let (receipts, watchers) = (self.receipts.clone(), self.watchers.clone());
        let complete = stream::once(async move {
            while receipts.load(Relaxed) < watchers.load(Relaxed) {
                tokio::time::sleep(COUNT_EVERY).await;
            }
            Ok(ReceiptsResponse {
                complete: true,
                ..ReceiptsResponse::default()
            })
        });
        Ok(Response::new(Box::pin(complete)))
    }

    async fn rollback(
        &self,
        _request: Request<RollbackRequest>,
    ) -> Result<Response<RollbackResponse>, Status> {
        not_here()
    }

    async fn teardown(
        &self,
        _request: Request<TeardownRequest>,
    ) -> Result<Response<TeardownResponse>, Status> {
        not_here()
    }

    async fn adjust_instance(
        &self,
        _request: Request<AdjustInstanceRequest>,
    ) -> Result<Response<AdjustInstanceResponse>, Status> {
        not_here()
    }

    async fn get_route(
        &self,
        _request: Request<GetRouteRequest>,
    ) -> Result<Response<GetRouteResponse>, Status> {
        not_here()
    }

    async fn history(
        &self,
        _request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        not_here()
    }

    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        not_here()
    }
}

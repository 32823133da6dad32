//! Whether an answer puts the blame on the instance.

use http::response::Parts;
use http::{HeaderMap, StatusCode, header};
use tonic::Code;

/// Where gRPC says how a call ended.
const GRPC_STATUS: &str = "grpc-status";

/// Whether this is the instance's fault rather than the request's.
pub(crate) fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The status in trailers, or in the headers of an answer without a body.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// Whether the answer says in its trailers how the call ended.
pub(crate) fn is_grpc(head: &Parts) -> bool {
    head.headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the head alone already says that the instance is at fault.
pub(crate) fn is_faulty_http(status: StatusCode) -> bool {
    status.is_server_error()
}

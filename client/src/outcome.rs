//! Whether an answer puts the blame on the instance.

use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use tonic::Code;

use crate::deadline::Limit;
use crate::endpoint::Outcome;

/// Where gRPC says how a call ended.
const GRPC_STATUS: &str = "grpc-status";

/// What a gRPC status says of the instance, in a call with this limit.
pub(crate) fn outcome_of(code: Code, limit: Option<Limit>) -> Outcome {
    match code {
        // Servers say so that end a call by its deadline, tonic's among them.
        Code::Cancelled if limit.is_some_and(|limit| limit.is_reached()) => Outcome::Failed,
        // The instance's fault rather than the request's.
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Failed,
        // May be a limit that the caller ran into.
        Code::ResourceExhausted => Outcome::Declined,
        _ => Outcome::Answered,
    }
}

/// The status in trailers, or in the headers of an answer without a body.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// Whether it is a message of gRPC. An answer says in its trailers then how the
/// call ended.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// How the call ended, where the head alone says so.
pub(crate) fn decided_by_head(
    head: &Parts,
    grpc: bool,
    is_whole: bool,
    limit: Option<Limit>,
) -> Option<Outcome> {
    if head.status.is_server_error() {
        return Some(Outcome::Failed);
    }
    if let Some(code) = grpc_code(&head.headers) {
        return Some(outcome_of(code, limit));
    }
    if head.status == StatusCode::TOO_MANY_REQUESTS {
        return Some(Outcome::Declined);
    }
    match (is_whole, grpc) {
        (false, _) => None,
        // It ends without a status.
        (true, true) => Some(Outcome::Failed),
        (true, false) => Some(Outcome::Answered),
    }
}

/// Whether a status blames the instance in such a way that another may do
/// better.
///
/// Not so: DEADLINE_EXCEEDED, as the time is gone; RESOURCE_EXHAUSTED, as a
/// repeat is what the sender asks not to get; ABORTED, as there is more to
/// repeat than this call; and whatever blames the request.
pub(crate) fn blames(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss
    )
}

/// Whether the head of an answer already blames the instance so.
pub(crate) fn blames_instance<B>(response: &Response<B>) -> bool {
    match grpc_code(response.headers()) {
        Some(code) => blames(code),
        None => matches!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, grpc: Option<Code>) -> Response<()> {
        let mut response = Response::builder().status(status);
        if let Some(code) = grpc {
            response = response.header(GRPC_STATUS, code as i32);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn answers_that_blame_the_instance_are_worth_a_repeat() {
        for code in [
            Code::Unavailable,
            Code::Internal,
            Code::Unknown,
            Code::DataLoss,
        ] {
            assert!(blames_instance(&answer(200, Some(code))), "{code:?}");
        }
        for code in [
            Code::Ok,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Aborted,
            Code::InvalidArgument,
            Code::NotFound,
            Code::Unimplemented,
        ] {
            assert!(!blames_instance(&answer(200, Some(code))), "{code:?}");
        }
        let worth = [500, 502, 503, 504];
        for status in 200..600 {
            assert_eq!(
                blames_instance(&answer(status, None)),
                worth.contains(&status)
            );
        }
    }

    #[test]
    fn heads_decide_where_they_can() {
        let decided = |status, code, grpc, is_whole| {
            let (head, ()) = answer(status, code).into_parts();
            decided_by_head(&head, grpc, is_whole, None)
        };
        assert_eq!(decided(200, None, true, false), None);
        assert_eq!(decided(200, None, true, true), Some(Outcome::Failed));
        assert_eq!(decided(200, None, false, true), Some(Outcome::Answered));
        assert_eq!(decided(429, None, false, false), Some(Outcome::Declined));
        assert_eq!(decided(503, None, false, false), Some(Outcome::Failed));
        let not_found = decided(200, Some(Code::NotFound), true, true);
        assert_eq!(not_found, Some(Outcome::Answered));
    }
}

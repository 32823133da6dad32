//! Details of a status that cannot be read are taken out of what a peer says, as tonic panics over them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::{self, Channel};
use tower::Service;

/// Bytes that explain a status of gRPC, in base64.
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// A channel to a replica over which no details come that cannot be read.
#[derive(Debug, Clone)]
pub struct Line(Channel);

/// An answer that comes over a [`Line`].
#[derive(Debug)]
pub struct LineBody(Body);

/// Without them the status is as the peer gave it.
///
/// tonic 0.14 expects that they can be read, in whichever task waits for the
/// answer (grpc/grpc-rust, pull request 2618).
pub(crate) fn drop_unreadable(headers: &mut HeaderMap) {
    if headers.contains_key(&DETAILS) && !are_readable(headers) {
        headers.remove(&DETAILS);
    }
}

/// Whether tonic, which takes the first, can read it.
fn are_readable(headers: &HeaderMap) -> bool {
    let mut details = HeaderMap::new();
    details.extend(headers.get(&DETAILS).cloned().map(|first| (DETAILS, first)));
    let details = MetadataMap::from_headers(details);
    let first = details.get_bin(DETAILS.as_str());
    first.is_none_or(|first| first.to_bytes().is_ok())
}

// === impl Line ===

impl Line {
    pub(crate) fn over(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<LineBody>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            drop_unreadable(answer.headers_mut());
            Ok(answer.map(LineBody))
        })
    }
}

// === impl LineBody ===

impl http_body::Body for LineBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let mut polled = ready!(Pin::new(&mut self.0).poll_frame(cx));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            drop_unreadable(trailers);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether they are left in.
    fn stays(details: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for one in details {
            headers.append(DETAILS, one.parse().unwrap());
        }
        headers.append("grpc-status", "14".parse().unwrap());
        drop_unreadable(&mut headers);
        // This is what must not panic.
        let status = tonic::Status::from_header_map(&headers).unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        headers.contains_key(&DETAILS)
    }

    #[test]
    fn what_can_be_read_stays_and_nothing_else() {
        assert!(!stays(&[]));
        for good in ["", "AAEC", "AAE", "AAE=", "AA", "AA=="] {
            assert!(stays(&[good]), "{good:?}");
        }
        for bad in [
            "!",
            "A",
            "AB",
            "AAEC!",
            "AAEC AAEC",
            "AAEC,AAEC",
            "=",
            "A===",
            "-_-_",
        ] {
            assert!(!stays(&[bad]), "{bad:?}");
        }
        assert!(!stays(&["!", "AAEC"]));
        assert!(stays(&["AAEC", "!"]));
    }
}

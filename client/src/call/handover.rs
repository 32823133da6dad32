//! How the request of a call gets to the connection of the instance that was chosen for it.

use http::uri::{PathAndQuery, Scheme};
use http::{Request, Uri};

use crate::attempt::Failure;
use crate::call::Call;
use crate::endpoint::Ongoing;
use crate::exchange::{Exchange, Unanswered, make_fit};
use crate::outgoing::Outgoing;

impl Call {
    /// Hands the request to the connection of this instance.
    pub(super) fn hand_over(&mut self, ongoing: &Ongoing) -> Result<Exchange, Failure> {
        let closed = || Failure::Unsent("the connection was closed".to_owned());
        let http2 = ongoing.endpoint().link.http2();
        let http2 = http2.as_ref().ok_or_else(closed)?;
        let (request, body) = self.request_to(ongoing).ok_or_else(closed)?;
        match http2.begin(request, body) {
            // Not looked for before: a client of HTTP/2 sends no such thing.
            Err(Unanswered::Unfit(_)) if make_fit(&mut self.head.headers) => {
                self.hand_over(ongoing)
            }
            begun => begun.map_err(|error| Failure::of(&error)),
        }
    }

    /// The request as this instance gets it. `None` when it has no address, or
    /// the body is no longer known from its beginning.
    fn request_to(&self, ongoing: &Ongoing) -> Option<(Request<()>, Outgoing)> {
        let body = self.body.attempt()?;
        let mut request = Request::new(());
        let mut uri = self.head.uri.clone().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(ongoing.endpoint().link.authority()?.clone());
        uri.path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.method_mut() = self.head.method.clone();
        *request.version_mut() = self.head.version;
        // Extensions were for this crate, and stay.
        let headers = request.headers_mut();
        headers.clone_from(&self.head.headers);
        if let Some(limit) = &self.limit {
            limit.write(headers, self.grpc, ongoing.started());
        }
        if let Some(bucket) = ongoing.bucket() {
            bucket.write_to(headers);
        }
        Some((request, body))
    }
}

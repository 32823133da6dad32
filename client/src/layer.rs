//! A tower layer for HTTP clients: `http://catalog.trimtab/…` goes to an instance of `catalog`.
//!
//! It goes around any client that takes [`http::Request`]s and connects to the
//! authority of their URI, such as hyper-util's or reqwest's, over any version
//! of HTTP. The client keeps its own connections; this crate chooses, and
//! learns from the answers.
//!
//! ```no_run
//! # use trimtab_client::Client;
//! use trimtab_client::layer::ResolveLayer;
//! use tower::{Layer, Service, ServiceExt};
//!
//! # async fn caller<S>(client: Client, http: S) -> Result<(), tower::BoxError>
//! # where
//! #     S: Service<http::Request<String>, Response = http::Response<String>>
//! #         + Clone + Send + 'static,
//! #     S::Error: Into<tower::BoxError> + Send,
//! #     S::Future: Send,
//! # {
//! let http = ResolveLayer::new(client).layer(http);
//! let request = http::Request::get("http://catalog.trimtab/items/7").body(String::new())?;
//! let response = http.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri};
use tower::{BoxError, Layer, Service};

use crate::balancer::{Balancer, Picked};
use crate::call::PickInfo;
use crate::client::{Client, ServiceBuilder};
use crate::error::Error;
use crate::make_balancer::Configure;
use crate::sticky::Affinity;

/// What the hosts of services end with, unless told otherwise.
const SUFFIX: &str = "trimtab";

/// Puts a [`Resolve`] around an HTTP client.
#[derive(Clone)]
pub struct ResolveLayer {
    names: Arc<Names>,
}

/// An HTTP client whose requests to services go to instances that a
/// [`Balancer`] chose; other requests pass as they are.
///
/// A request stays where others with its key are, as with a balancer, if it has
/// a [`StickyKey`](crate::sticky::StickyKey) or a
/// [`Bucket`](crate::sticky::Bucket) in its extensions, or a bucket in its
/// headers. The response has a [`PickInfo`] in its extensions.
///
/// A status of 500 and above, and any error of the client, count as failures of
/// the instance; after an error it is not chosen until it can be connected to.
/// The call counts as in flight until the head of the response is there. Nothing
/// is repeated: put a retrying layer outside, then each attempt chooses anew.
#[derive(Debug, Clone)]
pub struct Resolve<S> {
    names: Arc<Names>,
    inner: S,
}

/// Which hosts are services, and what is called already.
struct Names {
    client: Client,
    suffix: String,
    configure: Configure,
    /// As many as a client may follow.
    balancers: Mutex<HashMap<String, Balancer>>,
}

// === impl ResolveLayer ===

impl ResolveLayer {
    /// Hosts that end with `.trimtab` are services of this client's registry.
    pub fn new(client: Client) -> Self {
        Self::build(client, SUFFIX.to_owned(), Arc::new(|service| service))
    }

    /// Hosts that end with a dot and this are, instead.
    #[must_use]
    pub fn suffix(self, suffix: &str) -> Self {
        let suffix = suffix.trim_start_matches('.').to_ascii_lowercase();
        let configure = Arc::clone(&self.names.configure);
        Self::build(self.names.client.clone(), suffix, configure)
    }

    /// Says how the services are to be called, for example how long to wait for
    /// an instance.
    #[must_use]
    pub fn with(
        self,
        configure: impl Fn(ServiceBuilder) -> ServiceBuilder + Send + Sync + 'static,
    ) -> Self {
        let (client, suffix) = (self.names.client.clone(), self.names.suffix.clone());
        Self::build(client, suffix, Arc::new(configure))
    }

    fn build(client: Client, suffix: String, configure: Configure) -> Self {
        Self {
            names: Arc::new(Names {
                client,
                suffix,
                configure,
                balancers: Mutex::default(),
            }),
        }
    }
}

impl<S> Layer<S> for ResolveLayer {
    type Service = Resolve<S>;

    fn layer(&self, inner: S) -> Resolve<S> {
        Resolve {
            names: Arc::clone(&self.names),
            inner,
        }
    }
}

impl fmt::Debug for ResolveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResolveLayer").field(&self.names).finish()
    }
}

// === impl Resolve ===

impl<S, B, R> Service<Request<B>> for Resolve<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called, not its clone.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let names = Arc::clone(&self.names);
        Box::pin(async move {
            let Some(service) = names.service_of(request.uri()) else {
                return inner.call(request).await.map_err(Into::into);
            };
            let balancer = names.balancer(&service).await?;
            let (mut head, body) = request.into_parts();
            let picked = balancer.pick_with(&Affinity::of(&head)).await?;
            if let Some(bucket) = picked.bucket() {
                bucket.write_to(&mut head.headers);
            }
            head.uri = at(head.uri, picked.address())?;
            match inner.call(Request::from_parts(head, body)).await {
                Ok(response) => Ok(answered(picked, response)),
                Err(error) => {
                    picked.unreachable();
                    Err(error.into())
                }
            }
        })
    }
}

fn answered<R>(picked: Picked, mut response: Response<R>) -> Response<R> {
    response.extensions_mut().insert(PickInfo {
        group: picked.group().into(),
        instance_id: picked.instance_id().into(),
        revision: picked.revision(),
    });
    match response.status() {
        status if status.is_server_error() => picked.failure(),
        // May be a limit that the caller ran into: no word on the instance.
        StatusCode::TOO_MANY_REQUESTS => drop(picked),
        _ => picked.success(),
    }
    response
}

/// The same at another authority.
fn at(uri: Uri, address: &str) -> Result<Uri, BoxError> {
    let mut parts = uri.into_parts();
    parts.authority = Some(address.parse()?);
    parts.scheme.get_or_insert(Scheme::HTTP);
    Ok(Uri::from_parts(parts)?)
}

// === impl Names ===

impl Names {
    /// The service that a host names.
    fn service_of(&self, uri: &Uri) -> Option<String> {
        let host = uri.host()?.to_ascii_lowercase();
        let service = host.strip_suffix(&self.suffix)?.strip_suffix('.')?;
        (!service.is_empty()).then(|| service.to_owned())
    }

    async fn balancer(&self, service: &str) -> Result<Balancer, Error> {
        if let Some(balancer) = self.known().get(service) {
            return Ok(balancer.clone());
        }
        let built = (self.configure)(self.client.service(service)).tcp();
        let balancer = built.build().await?;
        let mut known = self.known();
        Ok(known.entry(service.to_owned()).or_insert(balancer).clone())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Balancer>> {
        self.balancers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("suffix", &self.suffix)
            .finish_non_exhaustive()
    }
}

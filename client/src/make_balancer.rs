//! Balancers by the name of their service, for code that is built on tower's `MakeService`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use crate::balancer::Balancer;
use crate::client::{Client, ServiceBuilder};
use crate::error::Error;

/// How a service is to be called, beyond what is usual.
pub(crate) type Configure = Arc<dyn Fn(ServiceBuilder) -> ServiceBuilder + Send + Sync>;

/// A [`tower::Service`] from the name of a service to its [`Balancer`], and so
/// a `MakeService` of tower. From [`Client::make_balancer`].
///
/// ```no_run
/// # use trimtab_client::Client;
/// use tower::ServiceExt;
///
/// # async fn caller(client: Client) -> Result<(), trimtab_client::Error> {
/// let mut balancers = client.make_balancer().with(|service| service.idempotent(true));
/// let catalog = balancers.oneshot("catalog").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MakeBalancer {
    client: Client,
    configure: Configure,
}

impl MakeBalancer {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            configure: Arc::new(|service| service),
        }
    }

    /// Says how the services are to be called.
    #[must_use]
    pub fn with(
        mut self,
        configure: impl Fn(ServiceBuilder) -> ServiceBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure = Arc::new(configure);
        self
    }
}

impl<T: Into<String>> Service<T> for MakeBalancer {
    type Response = Balancer;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Balancer, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, service: T) -> Self::Future {
        Box::pin((self.configure)(self.client.service(service)).build())
    }
}

impl fmt::Debug for MakeBalancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MakeBalancer")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

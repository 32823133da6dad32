//! What users of tower and of HTTP clients have: a layer that resolves hosts, and balancers by name.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};
use trimtab_client::balancer::ViewSource;
use trimtab_client::call::PickInfo;
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_client::layer::{Resolve, ResolveLayer};
use trimtab_client::sticky::StickyKey;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};

use crate::process::PATIENCE;

/// An HTTP/1 server that answers with its name and the path.
struct Server {
    address: String,
    calls: Arc<AtomicU32>,
    status: Arc<AtomicU16>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Arc::new(AtomicU32::new(0));
        let status = Arc::new(AtomicU16::new(200));
        let (counted, answers) = (Arc::clone(&calls), Arc::clone(&status));
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, answers) = (Arc::clone(&counted), Arc::clone(&answers));
                let service = service_fn(move |request: Request<_>| {
                    let _: &hyper::body::Incoming = request.body();
                    counted.fetch_add(1, Ordering::SeqCst);
                    let said = format!("{name} {}", request.uri().path());
                    let mut response = Response::new(Full::new(Bytes::from(said)));
                    let status = StatusCode::from_u16(answers.load(Ordering::SeqCst));
                    *response.status_mut() = status.unwrap();
                    async { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            calls,
            status,
            running,
        }
    }

    fn instance(&self, id: &str, group: &str) -> FakeInstance {
        FakeInstance::new(id, group, &self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

type Caller = Resolve<Http<HttpConnector, Empty<Bytes>>>;

fn caller(layer: &ResolveLayer) -> Caller {
    layer.layer(Http::builder(TokioExecutor::new()).build_http())
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_host_of_the_registry_is_an_instance_and_any_other_is_itself() {
    let registry = FakeRegistry::start().await.unwrap();
    let (old, new) = (Server::start("old").await, Server::start("new").await);
    let catalog = FakeService::new("catalog")
        .weight("v1", 5_000)
        .weight("v2", 5_000)
        .instance(old.instance("a", "v1"))
        .instance(new.instance("b", "v2"));
    let revision = registry.publish(catalog).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let caller = caller(&ResolveLayer::new(client));
    let mut seen = Vec::new();
    for _ in 0..10 {
        let response = caller
            .clone()
            .oneshot(get("http://Catalog.trimtab/items/7"));
        let response = response.await.unwrap();
        let info: PickInfo = response.extensions().get().cloned().unwrap();
        assert_eq!(info.revision, revision);
        let said = text(response).await;
        let expected = if &*info.group == "v1" {
            "old /items/7"
        } else {
            "new /items/7"
        };
        assert_eq!(said, expected);
        seen.push(said);
    }
    assert_eq!(
        seen.iter().filter(|said| said.starts_with("old")).count(),
        5
    );

    let elsewhere = get(&format!("http://{}/plain", old.address));
    let response = caller.clone().oneshot(elsewhere).await.unwrap();
    assert!(response.extensions().get::<PickInfo>().is_none());
    assert_eq!(text(response).await, "old /plain");

    let unknown = caller
        .oneshot(get("http://nothing.trimtab/"))
        .await
        .unwrap_err();
    let unknown = unknown.downcast_ref::<Error>();
    assert!(matches!(unknown, Some(Error::NotFound(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_key_stays_with_its_group_and_its_bucket_travels() {
    let registry = FakeRegistry::start().await.unwrap();
    let (old, new) = (Server::start("old").await, Server::start("new").await);
    let catalog = FakeService::new("catalog")
        .weight("v1", 5_000)
        .weight("v2", 5_000)
        .instance(old.instance("a", "v1"))
        .instance(new.instance("b", "v2"));
    registry.publish(catalog).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let caller = caller(&ResolveLayer::new(client).suffix(".mesh"));
    for user in ["alice", "bob", "carol", "dave"] {
        let mut groups = Vec::new();
        for _ in 0..6 {
            let mut request = get("http://catalog.mesh/");
            request.extensions_mut().insert(StickyKey::new(user));
            let response = caller.clone().oneshot(request).await.unwrap();
            groups.push(text(response).await);
        }
        groups.dedup();
        assert_eq!(groups.len(), 1, "{user} met {groups:?}");
    }
}

#[tokio::test]
async fn the_layer_learns_from_answers_and_from_their_lack() {
    let registry = FakeRegistry::start().await.unwrap();
    let (dying, healthy) = (Server::start("dying").await, Server::start("healthy").await);
    let catalog = FakeService::new("catalog")
        .weight("v1", 10_000)
        .instance(dying.instance("a", "v1"))
        .instance(healthy.instance("b", "v1"));
    registry.publish(catalog).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let layer = ResolveLayer::new(client).with(|it| it.wait_for_ready(PATIENCE));
    let caller = caller(&layer);
    while dying.calls.load(Ordering::SeqCst) == 0 || healthy.calls.load(Ordering::SeqCst) == 0 {
        caller
            .clone()
            .oneshot(get("http://catalog.trimtab/"))
            .await
            .unwrap();
    }
    healthy.status.store(503, Ordering::SeqCst);
    let reported = registry.until("the failures", |told| told.load("catalog", "v1").errors > 0);
    let calling = async {
        loop {
            caller
                .clone()
                .oneshot(get("http://catalog.trimtab/"))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        told = reported => { told.unwrap(); }
        () = calling => {}
    }
    healthy.status.store(200, Ordering::SeqCst);

    // Nobody listens there any more: an error or two, then never again.
    dying.running.abort();
    let mut failed = 0;
    for _ in 0..200 {
        let answer = caller.clone().oneshot(get("http://catalog.trimtab/")).await;
        failed += u32::from(answer.is_err());
    }
    assert!(failed <= 5, "{failed} of 200 failed");
}

#[tokio::test]
async fn balancers_come_by_name() {
    let registry = FakeRegistry::start().await.unwrap();
    let server = Server::start("it").await;
    for name in ["catalog", "cart"] {
        let service = FakeService::new(name).weight("v1", 10_000);
        let service = service.instance(server.instance(name, "v1"));
        registry.publish(service).unwrap();
    }
    let client = Client::connect(&registry.endpoint()).unwrap();
    let make = client.make_balancer().with(|service| service.tcp());
    for name in ["catalog", "cart"] {
        let balancer = make.clone().oneshot(name).await.unwrap();
        assert_eq!(balancer.source(), Some(ViewSource::Registry));
        assert_eq!(balancer.pick().await.unwrap().instance_id(), name);
    }
    let error = make.oneshot("nothing").await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

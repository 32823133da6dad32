//! What is left when a client is dropped: no task, no connection, no lease that is renewed.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use trimtab_client::client::Client;
use trimtab_client::testing::{FakeInstance, FakeService};
use trimtab_proto::v1 as wire;

use crate::instance::Instance;
use crate::process::{PATIENCE, eventually};
use crate::registry::{Registry, ready, view};
use crate::watching::call;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// The registry and the instances have runtimes of their own, so all tasks of
/// this one are the client's.
#[tokio::test]
async fn no_task_outlives_what_was_dropped() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 3).await;
    let mut instances = ready(&v1);
    // One is never reached, and one address is nonsense.
    instances.push(wire::Instance {
        id: "dead".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        ..instances[0].clone()
    });
    instances.push(wire::Instance {
        id: "nonsense".to_owned(),
        address: "nowhere".to_owned(),
        ..instances[0].clone()
    });
    let groups = [("v1", wire::GroupState::Active)];
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &groups, instances));
    assert_eq!(tasks(), 0);
    for round in 0..3 {
        let client = Client::builder().cache_dir(dir.path());
        let client = client.connect(&registry.endpoint()).unwrap();
        let balancer = client.service("catalog").idempotent(true).await.unwrap();
        let probing = client.service("catalog").tcp().await.unwrap();
        let absent = client.service("nothing").may_be_absent().await.unwrap();
        let registration = client.register("catalog", "v1", "127.0.0.1:1").id("a");
        let registration = registration.start().await.unwrap();
        for _ in 0..20 {
            call(&balancer).await;
            drop(probing.pick().await.unwrap());
        }
        assert!(tasks() > 5, "round {round}: {}", tasks());
        // In any order, and in the midst of calls.
        let in_flight = tokio::spawn({
            let balancer = absent.clone();
            async move { balancer.pick().await }
        });
        in_flight.abort();
        let _ = in_flight.await;
        drop((absent, registration, client, probing, balancer));
        eventually("all tasks end", || tasks() == 0).await;
    }
    let streams = &registry.state.streams;
    eventually("the registry sees all streams end", || {
        streams.load(std::sync::atomic::Ordering::SeqCst) == 0
            && registry
                .state
                .renew_streams
                .load(std::sync::atomic::Ordering::SeqCst)
                == 0
    })
    .await;
}

/// The same while nobody answers.
#[tokio::test]
async fn nor_while_the_registry_is_away() {
    let mut registry = Registry::start().await;
    registry.kill();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let service = client.service("catalog").first_view_within(Duration::ZERO);
    let balancer = service.await.unwrap();
    let registering = client.register("catalog", "v1", "127.0.0.1:1").start();
    let registering = tokio::spawn(registering);
    eventually("it tries", || tasks() > 3).await;
    registering.abort();
    let _ = registering.await;
    drop((balancer, client));
    eventually("all tasks end", || tasks() == 0).await;
}

/// An instance sees its connection end when the last balancer is gone.
#[tokio::test]
async fn no_connection_outlives_what_was_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let registry = trimtab_client::testing::FakeRegistry::start()
        .await
        .unwrap();
    let catalog = FakeService::new("catalog").weight("v1", 10_000);
    let instance = FakeInstance::new("a", "v1", &address);
    registry.publish(catalog.instance(instance)).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let service = client.service("catalog").ping_interval(None);
    let balancer = service.await.unwrap();
    let (mut connection, _) = listener.accept().await.unwrap();
    drop((client, balancer));
    let mut bytes = Vec::new();
    let ended = connection.read_to_end(&mut bytes);
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    assert!(ended.is_ok(), "the connection is still there");
    let gone = registry.until("it is gone", |told| told.watchers.is_empty());
    gone.await.unwrap();
}

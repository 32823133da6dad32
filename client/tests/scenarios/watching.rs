//! How views arrive, and what happens when they do not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_proto::v1 as wire;
use wire::GroupState::Active;
use wire::watch_request::Kind as Ask;

use crate::instance::Instance;
use crate::process::eventually;
use crate::registry::{Registry, ready, view};

pub fn plain(revision: u64, instances: &[Instance]) -> wire::View {
    view(
        revision,
        &[("v1", 10_000)],
        &[("v1", Active)],
        ready(instances),
    )
}

pub async fn call(balancer: &Balancer) {
    let mut catalog = CatalogClient::new(balancer.clone());
    catalog
        .get_item(GetItemRequest { item_id: 1 })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_receipt_is_sent_for_every_view_used_and_not_before() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::builder().name("web-1").watcher_id("w1").zone("z1");
    let client = client.connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    eventually("the first receipt", || {
        registry.state.receipts("catalog") == [10]
    })
    .await;
    assert_eq!(balancer.revision(), 10);
    registry.state.publish(plain(11, &v1));
    eventually("the second receipt", || {
        registry.state.receipts("catalog") == [10, 11]
    })
    .await;
    assert_eq!(balancer.revision(), 11);

    let asked = registry.state.asked.lock().unwrap();
    let Some(Ask::Hello(hello)) = asked.first() else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (&*hello.watcher_id, &*hello.name, &*hello.zone),
        ("w1", "web-1", "z1")
    );
}

#[tokio::test]
async fn a_watch_resumes_by_revision_on_another_replica_and_confirms_there() {
    let mut first = Registry::start().await;
    let second = Registry::replica(None, Arc::clone(&first.state)).await;
    let v1 = Instance::group_of("v1", 1).await;
    first.state.publish(plain(10, &v1));
    let endpoints = format!("{},{}", first.endpoint(), second.endpoint());
    let client = Client::connect(&endpoints).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    eventually("the first receipt", || {
        first.state.receipts("catalog").len() == 1
    })
    .await;

    let mut second = second;
    for round in 1..=2 {
        // Whichever it was on, it loses both in turn.
        first.restart().await;
        second.restart().await;
        eventually("a receipt to the new replica", || {
            first.state.receipts("catalog").len() > round
        })
        .await;
    }
    let subscribes = first.state.subscribes();
    assert_eq!(subscribes[0].known_revision, 0);
    assert!(
        subscribes[1..]
            .iter()
            .all(|s| s.known_revision == 10 && s.known_checksum != 0)
    );

    first.state.publish(plain(11, &v1));
    eventually("the next view", || balancer.revision() == 11).await;
}

#[tokio::test]
async fn a_damaged_view_is_asked_for_again() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(10, &v1));
    registry.state.damage.store(1, Ordering::SeqCst);
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    assert_eq!(balancer.revision(), 10);
    assert_eq!(registry.state.subscribes().len(), 2);
    // It is not dropped before: calls go on, and their caller counts.
    let asked = registry.state.asked.lock().unwrap().clone();
    let dropped = |ask: &Ask| matches!(ask, Ask::Unsubscribe(_));
    assert!(!asked.iter().any(dropped), "{asked:?}");

    // Damaged beyond chance: the stream is given up, the last view is kept.
    registry.state.damage.store(5, Ordering::SeqCst);
    registry.state.publish(plain(11, &v1));
    eventually("it gets through in the end", || balancer.revision() == 11).await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_is_left_for_one_that_is_not() {
    let behind = Registry::start().await;
    let ahead = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    behind.state.publish(plain(10, &v1));
    ahead.state.publish(plain(11, &v1));
    behind.cut_off.store(true, Ordering::SeqCst);
    let endpoints = format!("{},{}", behind.endpoint(), ahead.endpoint());
    for _ in 0..4 {
        let client = Client::connect(&endpoints).unwrap();
        let balancer = client.service("catalog").await.unwrap();
        assert_eq!(balancer.revision(), 11);
    }
    // When all are, what they know is better than nothing.
    ahead.cut_off.store(true, Ordering::SeqCst);
    let client = Client::connect(&endpoints).unwrap();
    assert!(client.service("catalog").await.unwrap().revision() >= 10);
}

#[tokio::test]
async fn traffic_goes_on_without_a_registry() {
    let mut registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 3).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").idempotent(true).await.unwrap();
    call(&balancer).await;
    registry.kill();
    for _ in 0..200 {
        call(&balancer).await;
    }
    // Even an instance may die meanwhile.
    v1[0].kill();
    for _ in 0..200 {
        call(&balancer).await;
    }
    registry.restart().await;
    registry.state.publish(plain(12, &v1[1..]));
    eventually("the watch is back", || balancer.revision() == 12).await;
}

#[tokio::test]
async fn a_revision_never_goes_back() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 2).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    registry.state.publish(plain(9, &v1[..1]));
    registry.state.publish(plain(11, &v1));
    eventually("the newer view", || balancer.revision() == 11).await;
    eventually("its receipt", || {
        registry.state.receipts("catalog").contains(&11)
    })
    .await;
    assert!(!registry.state.receipts("catalog").contains(&9));
}

#[tokio::test]
async fn a_service_that_ended_has_no_instances_but_a_lagging_replica_ends_nothing() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client
        .service("catalog")
        .wait_for_ready(Duration::ZERO)
        .await
        .unwrap();
    eventually("connected", || {
        registry.state.receipts("catalog").contains(&10)
    })
    .await;

    // Another replica that has not heard of the service yet.
    let lagging = Registry::start().await;
    lagging.state.remove("catalog", 3);
    let mut registry = registry;
    let endpoints = format!("{},{}", registry.endpoint(), lagging.endpoint());
    let roaming = Client::connect(&endpoints).unwrap();
    let service = roaming.service("catalog").may_be_absent();
    let roaming_balancer = service.await.unwrap();
    registry.state.publish(plain(11, &v1));
    registry.kill();
    if roaming_balancer.revision() >= 10 {
        eventually("it asked the lagging replica", || {
            lagging
                .state
                .subscribes()
                .iter()
                .any(|s| s.known_revision >= 10)
        })
        .await;
        assert!(roaming_balancer.pick().await.is_ok());
    }

    registry.restart().await;
    registry.state.remove("catalog", 20);
    eventually("the service ended", || balancer.revision() >= 20).await;
    let error = balancer.pick().await.unwrap_err();
    assert!(
        matches!(error, Error::NoInstance { known: 0, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_service_is_not_found_unless_that_is_expected() {
    let registry = Registry::start().await;
    registry.state.remove("catalog", 7);
    let client = Client::connect(&registry.endpoint()).unwrap();
    let error = client.service("catalog").await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text.contains("revision 7")),
        "{error}"
    );
    let early = client.service("catalog").may_be_absent().await.unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(8, &v1));
    call(&early).await;
}

#[tokio::test]
async fn no_registry_at_all_is_told_with_the_endpoints() {
    let mut registry = Registry::start().await;
    registry.kill();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let wait = Duration::from_millis(100);
    let error = client
        .service("catalog")
        .first_view_within(wait)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(error.to_string().contains(&registry.endpoint()), "{error}");
    let later = client
        .service("catalog")
        .first_view_within(Duration::ZERO)
        .await
        .unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(8, &v1));
    registry.restart().await;
    call(&later).await;
}

#[tokio::test]
async fn balancers_of_one_service_share_everything_and_nothing_outlives_them() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let one = client.service("catalog").await.unwrap();
    let two = client.service("catalog").idempotent(true).await.unwrap();
    call(&one).await;
    call(&two).await;
    assert_eq!(registry.state.subscribes().len(), 1);
    assert_eq!(registry.state.streams.load(Ordering::SeqCst), 1);

    drop(client);
    drop(one);
    registry.state.publish(plain(11, &v1));
    eventually("a balancer alone keeps the watch", || two.revision() == 11).await;
    drop(two);
    eventually("the stream ends with the last", || {
        registry.state.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

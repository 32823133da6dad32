//! The fake registry that users test with: it says what it is told to, notes what it hears, and breaks.

use std::time::Duration;

use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_client::policy::Policy;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService, InstanceStatus};

use crate::instance::Instance;
use crate::process::eventually;
use crate::watching::call;

fn fake(instance: &Instance) -> FakeInstance {
    FakeInstance::new(
        &instance.id,
        &instance.group,
        instance.address().to_string(),
    )
}

fn catalog(weights: &[(&str, u32)], instances: &[&[Instance]]) -> FakeService {
    let mut service = FakeService::new("catalog");
    service.set_weights(weights);
    for instance in instances.iter().copied().flatten() {
        service.put(fake(instance));
    }
    service
}

#[tokio::test]
async fn callers_follow_what_is_published_and_say_so() {
    let registry = FakeRegistry::start().await.unwrap();
    let v1 = Instance::group_of("v1", 2).await;
    let v2 = Instance::group_of("v2", 2).await;
    let first = registry
        .publish(catalog(&[("v1", 10_000)], &[&v1, &v2]))
        .unwrap();
    let client = Client::builder().name("web-1").zone("a");
    let client = client.connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    for _ in 0..20 {
        call(&balancer).await;
    }
    let load = |told: &trimtab_client::testing::Told| {
        told.load("catalog", "v1").calls == 20 && told.load("catalog", "v2").calls == 0
    };
    let told = registry.until("the loads", load).await.unwrap();
    assert_eq!(
        (&*told.watchers[0].name, &*told.watchers[0].zone),
        ("web-1", "a")
    );
    assert_eq!(told.confirmed("catalog"), Some(first));

    let second = registry.change("catalog", |it| it.set_weights(&[("v2", 10_000)]));
    let second = second.unwrap();
    let confirmed =
        |told: &trimtab_client::testing::Told| told.confirmed("catalog") == Some(second);
    registry.until("the receipt", confirmed).await.unwrap();
    call(&balancer).await;
    assert_eq!(v2.iter().map(Instance::calls).sum::<u64>(), 1);

    // The old group is a standby: it takes over when the new one is gone.
    registry
        .change("catalog", |it| {
            for instance in &v2 {
                assert!(it.set_status(&instance.id, InstanceStatus::Draining));
            }
        })
        .unwrap();
    eventually("the standby takes over", || balancer.revision() > second).await;
    call(&balancer).await;
    registry.remove("catalog");
    let error = client.service("nothing").await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[tokio::test]
async fn it_refuses_what_no_registry_would_say() {
    let registry = FakeRegistry::start().await.unwrap();
    let error = registry
        .publish(catalog(&[("v1", 9_000)], &[]))
        .unwrap_err();
    assert!(error.to_string().contains("sum to 9000"), "{error}");
    let error = registry.change("catalog", |it| it.set_policy(Policy::default()));
    assert!(matches!(error, Err(Error::NotFound(_))), "{error:?}");
    registry.publish(catalog(&[("v1", 10_000)], &[])).unwrap();
    let error = registry.change("catalog", |it| it.set_weights(&[("v1", 10_001)]));
    assert!(matches!(error, Err(Error::Invalid(_))), "{error:?}");
}

#[tokio::test]
async fn stopped_silent_and_restarted_it_does_not_stop_calls() {
    let mut registry = FakeRegistry::start().await.unwrap();
    let v1 = Instance::group_of("v1", 2).await;
    registry
        .publish(catalog(&[("v1", 10_000)], &[&v1]))
        .unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    registry.set_silent(true);
    let while_silent = registry.change("catalog", |it| it.set_weights(&[("v1", 10_000)]));
    let while_silent = while_silent.unwrap();
    for _ in 0..20 {
        call(&balancer).await;
    }
    assert!(balancer.revision() < while_silent);
    registry.set_silent(false);
    eventually("the news", || balancer.revision() == while_silent).await;

    registry.stop().await;
    for _ in 0..20 {
        call(&balancer).await;
    }
    let gone = registry.until("it is gone", |told| told.watchers.is_empty());
    gone.await.unwrap();
    registry.restart().await.unwrap();
    let back =
        |told: &trimtab_client::testing::Told| told.confirmed("catalog") == Some(while_silent);
    registry
        .until("it is back, and resumes", back)
        .await
        .unwrap();
}

#[tokio::test]
async fn instances_register_renew_lose_their_lease_and_leave() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.renew_every(Duration::from_millis(20));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let instance = client.register("catalog", "v1", "127.0.0.1:1").id("a");
    let instance = instance
        .zone("z")
        .ttl(Duration::from_secs(3))
        .start()
        .await
        .unwrap();
    let renewed = |told: &trimtab_client::testing::Told| {
        let found = told.registration("catalog", "a");
        found.is_some_and(|it| it.renewals > 2)
    };
    let told = registry.until("renewals", renewed).await.unwrap();
    let said = &told.registrations[0];
    assert_eq!((&*said.instance.zone, said.ttl.as_secs()), ("z", 3));
    assert_eq!(said.instance.status, InstanceStatus::Ready);

    registry.expire("catalog", "a");
    registry.until("it registers anew", renewed).await.unwrap();

    // Its own callers see it, and confirm that it drains.
    let balancer = client.service("catalog").await.unwrap();
    registry
        .until("a caller", |told| told.confirmed("catalog") > Some(0))
        .await
        .unwrap();
    assert!(
        instance
            .drain(Duration::from_secs(20))
            .await
            .unwrap()
            .complete
    );
    assert!(registry.told().registrations.is_empty());
    drop(balancer);

    registry.refuse_registrations(Some("the group is being torn down"));
    let refused = client
        .register("catalog", "v1", "127.0.0.1:1")
        .start()
        .await;
    assert!(
        matches!(&refused, Err(Error::Refused(why)) if why.contains("torn down")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn founded_anew_it_is_another_cluster() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut registry = FakeRegistry::start().await.unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    for _ in 0..5 {
        registry
            .publish(catalog(&[("v1", 10_000)], &[&v1]))
            .unwrap();
    }
    let client = || {
        let client = Client::builder().cache_dir(dir.path());
        client.connect(&registry.endpoint()).unwrap()
    };
    let first = client();
    let _catalog = first.service("catalog").await.unwrap();
    eventually("the view is on disk", || {
        std::fs::read_dir(dir.path()).unwrap().count() == 1
    })
    .await;
    drop((first, _catalog));
    let cold = client();
    registry.stop().await;
    let balancer = cold.service("catalog").await.unwrap();
    assert_eq!(balancer.revision(), 5);
    registry.found_anew();
    registry
        .publish(catalog(&[("v1", 10_000)], &[&v1]))
        .unwrap();
    registry.restart().await.unwrap();
    eventually("the new cluster is followed", || balancer.revision() == 1).await;
}

//! A registry that takes away most of what is connected and answers.

use std::time::{Duration, Instant as Time};

use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_proto::v1 as wire;
use wire::GroupState::{Active, Standby};
use wire::InstanceStatus::Draining;

use crate::instance::{Instance, calls};
use crate::process::{PATIENCE, eventually};
use crate::registry::{Registry, ready, view};
use crate::watching::{call, plain};

#[tokio::test]
async fn what_a_view_takes_away_beyond_belief_rests_only_while_enough_are_left() {
    let registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 5).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").idempotent(true).await.unwrap();
    all_called(&balancer, &v1).await;

    // One of five is left: it would melt, so all go on.
    registry.state.publish(plain(11, &v1[..1]));
    eventually("it is followed", || balancer.revision() == 11).await;
    let before = calls(&v1[1..]);
    for _ in 0..50 {
        call(&balancer).await;
    }
    assert!(calls(&v1[1..]) >= before + 25);

    // Three more come: they and the one are enough.
    let mut enough = Vec::new();
    for number in 5..8 {
        enough.push(Instance::start("v1", &format!("v1-{number}")).await);
    }
    enough.push(v1.remove(0));
    registry.state.publish(plain(12, &enough));
    all_called(&balancer, &enough).await;
    let before = calls(&v1);
    for _ in 0..50 {
        call(&balancer).await;
    }
    assert_eq!(calls(&v1), before, "what was taken away rests");

    // They die: those that the registry thinks are gone answer.
    for instance in &mut enough {
        instance.kill();
    }
    for _ in 0..50 {
        call(&balancer).await;
    }
    assert!(calls(&v1) >= before + 50);
    // A process that ends is no last resort.
    for instance in &mut v1 {
        instance.kill();
    }
    let strict = client.service("catalog").wait_for_ready(Duration::ZERO);
    let strict = strict.await.unwrap();
    eventually_none(&strict).await;
}

/// Calls until every instance has been: so all are connected.
async fn all_called(balancer: &Balancer, instances: &[Instance]) {
    let begun = Time::now();
    while !instances.iter().all(|it| it.calls() > 0) {
        call(balancer).await;
        assert!(begun.elapsed() < PATIENCE, "not all were called");
    }
}

/// Waits until nobody can be picked.
async fn eventually_none(balancer: &Balancer) {
    let begun = Time::now();
    loop {
        match balancer.pick().await {
            Err(Error::NoInstance { .. }) => return,
            Err(error) => panic!("{error}"),
            Ok(picked) => drop(picked),
        }
        assert!(begun.elapsed() < PATIENCE, "still picked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_service_that_vanishes_while_it_answers_is_still_called() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 4).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    all_called(&balancer, &v1).await;
    registry.state.remove("catalog", 11);
    eventually("it is heard", || balancer.revision() == 11).await;
    for _ in 0..20 {
        call(&balancer).await;
    }
}

#[tokio::test]
async fn draining_a_switch_and_a_teardown_are_believed() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 4).await;
    let v2 = Instance::group_of("v2", 4).await;
    registry.state.publish(plain(10, &v1));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    all_called(&balancer, &v1).await;
    // A switch whose old group is gone with it.
    let groups = [("v1", Standby), ("v2", Active)];
    let switched = view(11, &[("v2", 10_000)], &groups, ready(&v2));
    registry.state.publish(switched);
    eventually("the switch", || balancer.revision() == 11).await;
    let (_, mut before) = (call(&balancer).await, calls(&v1));
    for _ in 0..20 {
        call(&balancer).await;
    }
    assert_eq!(calls(&v1), before);

    // All of the new one drain, and leave.
    let draining = v2.iter().map(|it| it.described(Draining)).collect();
    registry
        .state
        .publish(view(12, &[("v2", 10_000)], &[("v2", Active)], draining));
    eventually("they drain", || balancer.revision() == 12).await;
    before = calls(&v2);
    registry
        .state
        .publish(view(13, &[("v2", 10_000)], &[("v2", Active)], vec![]));
    eventually("they are gone", || balancer.revision() == 13).await;
    let strict = client.service("catalog").wait_for_ready(Duration::ZERO);
    eventually_none(&strict.await.unwrap()).await;
    assert_eq!(calls(&v2), before);
}

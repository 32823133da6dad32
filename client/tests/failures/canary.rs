//! A release that fails as a whole, while it has a small share: what of it callers feel, and what operators see.

use std::collections::BTreeMap;

use tonic::Code;
use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

use crate::instance::{Fault, Instance};
use crate::survival::retry_safe;
use crate::traffic::get;

/// What the canary gets, in basis points.
const SHARE: u32 = 1_000;

/// Calls before there is a canary.
const BEFORE: u64 = 1;

struct Scene {
    cluster: Cluster,
    old: Vec<Instance>,
    canary: Vec<Instance>,
    client: Client,
}

/// Three instances of an old release, and a canary of so many that fails.
async fn failing_canary(instances: usize, fault: Fault) -> Scene {
    let cluster = Cluster::start(1).await;
    let old = Instance::registered(&cluster, "v1", 3).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    for item_id in 0..BEFORE {
        get(&catalog, item_id).await.unwrap();
    }
    let canary = Instance::registered(&cluster, "v2", instances).await;
    eventually(
        "connections to the canary",
        async || canary.iter().map(Instance::connections).sum::<u64>(),
        |connections| *connections >= instances as u64,
    )
    .await;
    let weights = BTreeMap::from([("v1".to_owned(), 10_000 - SHARE), ("v2".to_owned(), SHARE)]);
    let shift = ServiceShift::new("catalog", ShiftTarget::Weights(weights));
    let operator = cluster.operator();
    let shifted = operator.shift(&[shift], &ChangeOptions::default()).await;
    let revision = shifted.unwrap().revision;
    let balancer = client.service("catalog").await.unwrap();
    eventually(
        "a caller that follows it",
        async || balancer.revision(),
        |used| *used >= revision,
    )
    .await;
    for instance in &canary {
        instance.fail(fault);
    }
    Scene {
        cluster,
        old,
        canary,
        client,
    }
}

fn share_of(balancer: &Balancer, group: &str) -> f64 {
    let explanation = balancer.explain();
    let mut groups = explanation.groups.into_iter();
    groups.find(|it| it.name == group).unwrap().share
}

async fn no_retry_safe_call_fails(instances: usize) {
    let scene = failing_canary(instances, Fault::Errs(Code::Internal)).await;
    let catalog = retry_safe(&scene.client).await;
    for item_id in 0..1_000 {
        let answered_by = get(&catalog, item_id).await.unwrap();
        assert!(answered_by.starts_with("v1"), "{answered_by}");
    }
    // First attempts keep to the shares; repeats come on top.
    let of_canary: u64 = scene.canary.iter().map(Instance::calls).sum();
    let of_old: u64 = scene.old.iter().map(Instance::calls).sum();
    assert_eq!(of_old, 1_000 + BEFORE);
    assert!(of_canary >= 99, "{of_canary}");
    drop(scene.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_retry_safe_call_fails_with_a_canary_of_one_that_fails() {
    no_retry_safe_call_fails(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_retry_safe_call_fails_with_a_canary_of_four_that_fail() {
    no_retry_safe_call_fails(4).await;
}

/// The operator asked for the share and is told what becomes of it: it does not
/// vanish because the only instance is bad.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_instance_of_a_canary_keeps_the_share_that_it_fails() {
    let scene = failing_canary(1, Fault::Errs(Code::Internal)).await;
    let balancer = scene.client.service("catalog").await.unwrap();
    let catalog = CatalogClient::new(balancer.clone());
    let mut failed = 0_i32;
    for item_id in 0..1_000 {
        failed += i32::from(get(&catalog, item_id).await.is_err());
    }
    assert!(
        (99..=101).contains(&failed),
        "{failed} of 1,000 calls failed"
    );
    assert_eq!(scene.canary[0].calls(), failed as u64);
    assert_eq!(share_of(&balancer, "v2"), 10.0);
    let canary = &balancer.explain().groups[1].instances[0];
    assert!(!canary.ejected);
    assert!(canary.failed_in_a_row >= 99, "{canary:?}");
}

//! To whom callers are connected, and when.

use std::num::NonZeroU32;

use trimtab_client::client::Client;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_client::policy::Policy;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;

use crate::instance::{Fault, Instance};
use crate::survival::retry_safe;
use crate::traffic::{Traffic, get};

async fn shift(cluster: &Cluster, shift: ServiceShift) {
    let operator = cluster.operator();
    let shifted = operator.shift(&[shift], &ChangeOptions::default()).await;
    shifted.expect("shifted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_to_a_new_group_finds_a_connection() {
    let cluster = Cluster::start(1).await;
    let _old = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    get(&catalog, 1).await.unwrap();
    let new = Instance::registered(&cluster, "v2", 2).await;
    eventually(
        "connections to a group that gets no calls yet",
        async || new.iter().map(Instance::connections).collect::<Vec<_>>(),
        |connections| *connections == [1, 1],
    )
    .await;
    let target = ShiftTarget::SwitchTo("v2".to_owned());
    shift(&cluster, ServiceShift::new("catalog", target)).await;
    while !get(&catalog, 1).await.unwrap().starts_with("v2") {}
    for item_id in 0..50 {
        get(&catalog, item_id).await.unwrap();
    }
    let connections: Vec<u64> = new.iter().map(Instance::connections).collect();
    assert_eq!(connections, [1, 1], "no call made one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_keeps_to_its_subset_and_replaces_who_is_down() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 8).await;
    let mut subsets = ServiceShift::new("catalog", ShiftTarget::Keep);
    subsets.policy = Some(Policy {
        subset_size: NonZeroU32::new(3),
        ..Policy::default()
    });
    shift(&cluster, subsets).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let traffic = Traffic::start(&retry_safe(&client).await, 4);
    traffic.goes_on(200).await;
    let connected = async || -> Vec<usize> {
        let connected = |n: &usize| instances[*n].is_connected();
        (0..instances.len()).filter(connected).collect()
    };
    let subset = connected().await;
    assert_eq!(subset.len(), 3, "{subset:?}");

    let lost = subset[0];
    instances[lost].fail(Fault::Dead);
    let of_others = |connected: &Vec<usize>| connected.len() == 3 && !connected.contains(&lost);
    let filled = eventually("another in its place", connected, of_others).await;
    assert!(subset[1..].iter().all(|stays| filled.contains(stays)));
    traffic.goes_on(200).await;

    instances[lost].heal();
    eventually("the subset as it was", connected, |now| *now == subset).await;
    let (calls, failures) = traffic.end().await;
    assert!(failures.is_empty(), "of {calls}: {:?}", failures.first());
}

//! Callers over the client crate, real instances, a real registry: shares, deaths, outages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trimtab_client::balancer::{Balancer, Picked};
use trimtab_client::call::PickInfo;
use trimtab_client::client::Client;
use trimtab_client::operator::change::{
    Adjustment, ChangeOptions, InstanceAdjustment, ServiceShift, ShiftTarget,
};
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;
use trimtab_tests::instance::Instance;

/// Starts and registers so many instances of each group, the first group first.
async fn instances(cluster: &Cluster, groups: &[(&str, usize)]) -> Vec<(String, Instance)> {
    let mut started = Vec::new();
    for (group, count) in groups {
        for number in 0..*count {
            let id = format!("{group}-{number}");
            let instance = Instance::start(group, &id);
            cluster
                .register_at(1, "catalog", group, &id, &instance.address())
                .await;
            started.push((id, instance));
        }
    }
    started
}

async fn shift(cluster: &Cluster, weights: &[(&str, u32)]) -> u64 {
    let weights = weights
        .iter()
        .map(|(group, weight)| ((*group).to_owned(), *weight));
    let target = ShiftTarget::Weights(weights.collect());
    let options = ChangeOptions {
        force: true,
        ..ChangeOptions::default()
    };
    let operator = cluster.operator();
    let shifts = [ServiceShift::new("catalog", target)];
    let outcome = operator.shift(&shifts, &options).await.expect("shifted");
    let revision = outcome.revision;
    let mut receipts = operator.receipts(&["catalog".to_owned()], revision);
    loop {
        let progress = receipts.next().await.expect("no error");
        if progress.is_none_or(|progress| progress.complete) {
            return revision;
        }
    }
}

/// Calls answered, by the revision that placed them and the group that answered.
type Counts = BTreeMap<u64, BTreeMap<String, u64>>;

async fn call(client: &mut CatalogClient<Balancer>, counts: &mut Counts) {
    let request = GetItemRequest { item_id: 7 };
    let response = client.get_item(request).await.expect("no call fails");
    let picked = response.extensions().get::<PickInfo>().expect("told");
    assert_eq!(*picked.group, response.get_ref().group);
    let groups = counts.entry(picked.revision).or_default();
    *groups.entry(picked.group.to_string()).or_default() += 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_keeps_the_weights_to_within_one_call_over_any_run() {
    let cluster = Cluster::start(3).await;
    let _instances = instances(&cluster, &[("v1", 5), ("v2", 1), ("v3", 2)]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..3 {
        let client = Client::connect(&cluster.endpoints()).expect("valid");
        let balancer = client.service("catalog").await.expect("known");
        let stop = Arc::clone(&stop);
        callers.push(tokio::spawn(async move {
            let mut client = CatalogClient::new(balancer);
            let mut counts = Counts::new();
            while !stop.load(Ordering::Relaxed) {
                call(&mut client, &mut counts).await;
            }
            counts
        }));
    }
    let mut routes = BTreeMap::new();
    let plans: [&[(&str, u32)]; 5] = [
        &[("v1", 10_000)],
        &[("v1", 9_999), ("v2", 1)],
        &[("v1", 7_000), ("v2", 500), ("v3", 2_500)],
        &[("v2", 3_333), ("v3", 6_667)],
        &[("v3", 10_000)],
    ];
    for weights in plans {
        let revision = shift(&cluster, weights).await;
        routes.insert(revision, weights);
        // A run of some length, whatever the machine does meanwhile.
        let status = async || {
            cluster
                .operator()
                .describe("catalog")
                .await
                .expect("described")
        };
        let total = |groups: &[trimtab_client::operator::service_status::GroupStatus]| {
            groups.iter().map(|group| group.calls).sum::<u64>()
        };
        let before = total(&status().await.groups);
        eventually("more calls", status, |now| total(&now.groups) != before).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let counts = caller.await.expect("no call failed");
        let mut checked = 0;
        for (revision, groups) in counts {
            // Before the first shift: v1 alone, as the first group of the service.
            let first: &[(&str, u32)] = &[("v1", 10_000)];
            let weights = routes.get(&revision).copied().unwrap_or(first);
            let run: u64 = groups.values().sum();
            for group in ["v1", "v2", "v3"] {
                let weight = weights
                    .iter()
                    .find(|(name, _)| *name == group)
                    .map_or(0, |(_, weight)| u64::from(*weight));
                let got = groups.get(group).copied().unwrap_or(0);
                let error = (got * 10_000).abs_diff(run * weight);
                let allowed = if weight == 0 { 0 } else { 10_000 };
                assert!(
                    error <= allowed,
                    "{group} got {got} of {run} calls at weight {weight}"
                );
            }
            checked += run;
        }
        assert!(checked > 100, "only {checked} calls were made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_safe_call_fails_when_instances_are_killed_one_by_one() {
    let cluster = Cluster::start(1).await;
    let mut instances = instances(&cluster, &[("v1", 4)]).await;
    let client = Client::connect(&cluster.endpoints()).expect("valid");
    let balancer = client
        .service("catalog")
        .idempotent(true)
        .await
        .expect("known");
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..8 {
        let (balancer, stop) = (balancer.clone(), Arc::clone(&stop));
        callers.push(tokio::spawn(async move {
            let mut client = CatalogClient::new(balancer);
            let mut counts = Counts::new();
            while !stop.load(Ordering::Relaxed) {
                call(&mut client, &mut counts).await;
            }
        }));
    }
    let (_, survivor) = instances.remove(0);
    for (id, mut instance) in instances {
        eventually(
            &format!("{id} to be called"),
            async || instance.calls(),
            |calls| *calls > 0,
        )
        .await;
        instance.kill();
        let seen = survivor.calls();
        eventually(
            "calls to go on",
            async || survivor.calls(),
            |calls| *calls > seen + 50,
        )
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_goes_on_without_a_registry_and_follows_it_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let _instances = instances(&cluster, &[("v1", 2), ("v2", 2)]).await;
    let client = Client::connect(&cluster.endpoints()).expect("valid");
    let mut caller = CatalogClient::new(client.service("catalog").await.expect("known"));
    for id in cluster.running() {
        cluster.stop(id).await;
    }
    let mut counts = Counts::new();
    for _ in 0..500 {
        call(&mut caller, &mut counts).await;
    }
    let groups: Vec<&String> = counts.values().flat_map(BTreeMap::keys).collect();
    assert_eq!(groups, ["v1"]);

    for id in 1..=3 {
        cluster.start_again(id).await;
    }
    cluster.all_ready().await;
    let status = async || {
        cluster
            .operator()
            .describe("catalog")
            .await
            .expect("described")
    };
    eventually("the caller to be back", status, |status| {
        status.watchers == 1
    })
    .await;
    let revision = shift(&cluster, &[("v2", 10_000)]).await;
    let mut counts = Counts::new();
    for _ in 0..500 {
        call(&mut caller, &mut counts).await;
    }
    let expected = BTreeMap::from([("v2".to_owned(), 500)]);
    assert_eq!(counts, Counts::from([(revision, expected)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_gets_nothing_once_all_have_confirmed() {
    let cluster = Cluster::start(1).await;
    let instances = instances(&cluster, &[("v1", 3)]).await;
    let client = Client::connect(&cluster.endpoints()).expect("valid");
    let balancer = client.service("catalog").await.expect("known");
    let mut caller = CatalogClient::new(balancer.clone());
    let mut counts = Counts::new();
    for _ in 0..60 {
        call(&mut caller, &mut counts).await;
    }
    let operator = cluster.operator();
    let adjust = async |adjustment| {
        let adjustment = InstanceAdjustment {
            service: "catalog".to_owned(),
            instance_id: instances[0].0.clone(),
            adjustment,
            expected_route_revision: None,
        };
        let options = ChangeOptions::default();
        let outcome = operator.adjust_instance(&adjustment, &options).await;
        let revision = outcome.expect("adjusted").revision;
        let mut receipts = operator.receipts(&["catalog".to_owned()], revision);
        while let Some(progress) = receipts.next().await.expect("no error") {
            if progress.complete {
                break;
            }
        }
    };
    adjust(Adjustment::Drain).await;
    let before = instances[0].1.calls();
    assert!(before > 0);
    for _ in 0..200 {
        call(&mut caller, &mut counts).await;
    }
    assert_eq!(instances[0].1.calls(), before);
    adjust(Adjustment::Undrain).await;
    // Under load: one call at a time may well go to the others, if the first
    // ones to this instance were slow.
    let mut under_way = Vec::new();
    for _ in 0..200 {
        under_way.push(balancer.pick().await.expect("an instance"));
    }
    let its = |picked: &&Picked| picked.instance_id() == instances[0].0;
    assert!(under_way.iter().filter(its).count() > 0);
}

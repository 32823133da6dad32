//! Instances that fail calls are left out, come back, and are never too many.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::{Code, Request};
use trimtab_client::call::Deadline;
use trimtab_client::client::Client;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_client::policy::{Balancing, OutlierPolicy, Policy};
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::{PATIENCE, eventually};

use crate::instance::{Fault, Instance};
use crate::survival::retry_safe;
use crate::traffic::{Catalog, Traffic, get};

async fn set(cluster: &Cluster, outliers: OutlierPolicy) {
    obey(
        cluster,
        Policy {
            outliers,
            ..Policy::default()
        },
    )
    .await;
}

async fn obey(cluster: &Cluster, policy: Policy) {
    let mut shift = ServiceShift::new("catalog", ShiftTarget::Keep);
    shift.policy = Some(policy);
    let operator = cluster.operator();
    let set = operator.shift(&[shift], &ChangeOptions::default()).await;
    set.expect("set");
}

/// Calls that may not be repeated: every failure is seen.
async fn plain(client: &Client) -> Catalog {
    CatalogClient::new(client.service("catalog").await.unwrap())
}

/// Makes calls until `instance` has been asked and was asked no more by the last
/// five hundred. How many failed.
async fn until_left_out(catalog: &Catalog, instance: &Instance) -> u64 {
    let begun = Instant::now();
    let (at_first, mut failed) = (instance.calls(), 0);
    loop {
        let before = instance.calls();
        for item_id in 0..500 {
            failed += u64::from(get(catalog, item_id).await.is_err());
        }
        let after = instance.calls();
        if after == before && after >= at_first + 5 {
            return failed;
        }
        let patient = begun.elapsed() < PATIENCE;
        assert!(patient, "asked {after} times, {failed} calls failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fails_five_calls_in_a_row_gets_no_more() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 5).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = plain(&client).await;
    for item_id in 0..50 {
        get(&catalog, item_id).await.unwrap();
    }
    instances[0].fail(Fault::Errs(Code::Internal));
    let failed = until_left_out(&catalog, &instances[0]).await;
    assert!((5..=10).contains(&failed), "{failed} calls failed");
}

/// Has one of three hang, and calls in one way that has a limit, until the one
/// is called no more.
async fn is_left_out_when_it_hangs(call: impl AsyncFn(Catalog)) {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 3).await;
    // By load it would hardly be called after the first such call.
    let in_turn = Policy {
        balancing: Balancing::RoundRobin,
        ..Policy::default()
    };
    obey(&cluster, in_turn).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let catalog = CatalogClient::new(balancer.clone());
    for item_id in 0..30 {
        get(&catalog, item_id).await.unwrap();
    }
    instances[0].fail(Fault::Stuck);
    let stuck = || {
        let groups = balancer.explain().groups;
        let mut all = groups.into_iter().flat_map(|it| it.instances);
        all.find(|it| *it.id == *instances[0].id).expect("known")
    };
    let before = instances[0].calls();
    let calls = async {
        while stuck().failed_in_a_row < 5 && !stuck().ejected {
            call(catalog.clone()).await;
        }
    };
    timeout(PATIENCE, calls).await.expect("its failures count");
    // Which somebody else concludes.
    eventually(
        "it is left out",
        async || stuck().ejected,
        |ejected| *ejected,
    )
    .await;
    assert_eq!(instances[0].calls() - before, 5);
}

const LIMIT: Duration = Duration::from_millis(200);

/// Eight times what an answer takes, also on a busy machine: who gives up
/// earlier is not let down.
const PATIENCE_OF_CALLERS: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_left_out_when_calls_reach_their_deadline() {
    is_left_out_when_it_hangs(async |mut catalog| {
        let mut request = Request::new(GetItemRequest { item_id: 1 });
        request.extensions_mut().insert(Deadline::after(LIMIT));
        let _ = catalog.get_item(request).await;
    })
    .await;
}

/// The header is read by the server, too, which says CANCELLED.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_left_out_when_servers_end_calls_by_their_deadline() {
    is_left_out_when_it_hangs(async |mut catalog| {
        let mut request = Request::new(GetItemRequest { item_id: 1 });
        request.set_timeout(LIMIT);
        let _ = catalog.get_item(request).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_left_out_when_callers_drop_their_calls() {
    is_left_out_when_it_hangs(async |catalog| {
        let _ = timeout(PATIENCE_OF_CALLERS, get(&catalog, 1)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_well_again_comes_back() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 5).await;
    let brief = OutlierPolicy {
        base_ejection: Duration::from_millis(500),
        ..OutlierPolicy::default()
    };
    set(&cluster, brief).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = plain(&client).await;
    instances[0].fail(Fault::Errs(Code::Unavailable));
    until_left_out(&catalog, &instances[0]).await;
    instances[0].heal();
    let (before, begun) = (instances[0].calls(), Instant::now());
    while instances[0].calls() == before {
        get(&catalog, 1).await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "it is never asked again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_when_half_of_six_fail_and_half_may_be_left_out() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 6).await;
    let half = OutlierPolicy {
        max_ejected_percent: 50,
        ..OutlierPolicy::default()
    };
    set(&cluster, half).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let traffic = Traffic::start(&retry_safe(&client).await, 8);
    traffic.goes_on(500).await;
    // One after another: three at once are more than three attempts can avoid.
    for instance in &instances[..3] {
        instance.fail(Fault::Errs(Code::Internal));
        traffic.goes_on(1_000).await;
    }
    let before: u64 = instances[..3].iter().map(Instance::calls).sum();
    traffic.goes_on(1_000).await;
    let after: u64 = instances[..3].iter().map(Instance::calls).sum();
    assert_eq!(before, after, "the three are left out");
    let (calls, failures) = traffic.end().await;
    assert!(failures.is_empty(), "of {calls}: {:?}", failures.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_fails_as_a_whole_is_called_nevertheless() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 4).await;
    let all = OutlierPolicy {
        max_ejected_percent: 100,
        ..OutlierPolicy::default()
    };
    set(&cluster, all).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = plain(&client).await;
    for instance in &instances {
        instance.fail(Fault::Errs(Code::Internal));
    }
    for item_id in 0..200 {
        let status = get(&catalog, item_id).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
    }
    for instance in &instances {
        instance.heal();
    }
    let before: Vec<u64> = instances.iter().map(Instance::calls).collect();
    let begun = Instant::now();
    while instances
        .iter()
        .zip(&before)
        .any(|(instance, before)| instance.calls() == *before)
    {
        get(&catalog, 1).await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "not all take calls");
    }
}

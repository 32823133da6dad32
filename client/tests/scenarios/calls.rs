//! Where calls go, and which survive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tonic::{Code, Request, Status};
use trimtab_client::balancer::{Balancer, Picked};
use trimtab_client::call::Idempotent;
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_proto::v1 as wire;
use wire::GroupState::{Active, Dark, Standby};
use wire::InstanceStatus::{Draining, Ready};

use crate::instance::{Instance, calls};
use crate::process::eventually;
use crate::registry::{Registry, ready, view};

type Catalog = CatalogClient<Balancer>;

async fn get(catalog: &Catalog, item_id: u64) -> Result<String, Status> {
    let answer = catalog.clone().get_item(GetItemRequest { item_id }).await?;
    Ok(answer.into_inner().group)
}

/// Calls in a row; how many each group answered.
async fn count(catalog: &Catalog, calls: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for item_id in 0..calls {
        *counts
            .entry(get(catalog, item_id).await.unwrap())
            .or_default() += 1;
    }
    counts
}

fn counted<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts
        .into_iter()
        .map(|(group, count)| (group.to_owned(), count))
        .collect()
}

async fn follows(balancer: &Balancer, revision: u64) {
    eventually("the view is used", || balancer.revision() >= revision).await;
}

/// Calls all the while, and what became of them.
struct Traffic {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    callers: Vec<tokio::task::JoinHandle<Vec<Status>>>,
}

impl Traffic {
    fn start(catalog: &Catalog, callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicU64::new(0));
        let callers = (0..callers)
            .map(|_| {
                let (catalog, stop, made) = (catalog.clone(), Arc::clone(&stop), Arc::clone(&made));
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        let item_id = made.fetch_add(1, Ordering::SeqCst);
                        failures.extend(get(&catalog, item_id).await.err());
                    }
                    failures
                })
            })
            .collect();
        Self {
            stop,
            made,
            callers,
        }
    }

    /// Returns after that many more calls.
    async fn goes_on(&self, calls: u64) {
        let enough = self.made.load(Ordering::SeqCst) + calls;
        eventually("calls go on", || self.made.load(Ordering::SeqCst) >= enough).await;
    }

    async fn failures(self) -> Vec<Status> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in self.callers {
            failures.extend(caller.await.unwrap());
        }
        failures
    }
}

#[tokio::test]
async fn every_run_has_the_shares_within_one_call_also_over_a_switch() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 4).await;
    let v2 = Instance::group_of("v2", 1).await;
    let groups = [("v1", Active), ("v2", Active)];
    let all = ready(v1.iter().chain(&v2));
    registry.state.publish(view(
        10,
        &[("v1", 9_000), ("v2", 1_000)],
        &groups,
        all.clone(),
    ));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let catalog = CatalogClient::new(balancer.clone());

    let mut seen = BTreeMap::<String, u64>::new();
    for run in 1..=300_u64 {
        *seen.entry(get(&catalog, run).await.unwrap()).or_default() += 1;
        let v2_calls = seen.get("v2").copied().unwrap_or_default() as f64;
        assert!(
            (v2_calls - run as f64 * 0.1).abs() <= 1.0,
            "{v2_calls} of {run}"
        );
    }

    registry.state.publish(view(
        11,
        &[("v2", 10_000)],
        &[("v1", Standby), ("v2", Active)],
        all,
    ));
    follows(&balancer, 11).await;
    assert_eq!(count(&catalog, 200).await, counted([("v2", 200)]));
}

#[tokio::test]
async fn a_new_group_is_connected_to_and_gets_nothing_until_it_has_weight() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    let v2 = Instance::group_of("v2", 1).await;
    let all = ready(v1.iter().chain(&v2));
    let groups = [("v1", Active), ("v2", Dark)];
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &groups, all));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    assert_eq!(count(&catalog, 100).await, counted([("v1", 100)]));
    assert_eq!(calls(&v2), 0);
}

#[tokio::test]
async fn first_calls_wait_for_the_group_whose_turn_it_is() {
    for _ in 0..20 {
        let registry = Registry::start().await;
        let v1 = Instance::group_of("v1", 1).await;
        let v2 = Instance::group_of("v2", 3).await;
        let groups = [("v1", Active), ("v2", Standby)];
        let all = ready(v1.iter().chain(&v2));
        registry
            .state
            .publish(view(10, &[("v1", 10_000)], &groups, all));
        let client = Client::connect(&registry.endpoint()).unwrap();
        let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
        assert_eq!(count(&catalog, 5).await, counted([("v1", 5)]));
    }
}

#[tokio::test]
async fn no_call_fails_when_an_instance_is_killed() {
    let registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 3).await;
    for instance in &v1 {
        instance.behaviour().delay_ms.store(2, Ordering::SeqCst);
    }
    let (groups, all) = ([("v1", Active)], ready(&v1));
    let mut catalog = view(10, &[("v1", 10_000)], &groups, all);
    // Many calls that one break ends at once are a run of failures as well,
    // and would keep who is back waiting for half a minute.
    let policy = wire::RoutePolicy {
        outliers: Some(wire::OutlierPolicy {
            disabled: true,
            ..wire::OutlierPolicy::default()
        }),
        ..wire::RoutePolicy::default()
    };
    if let Some(route) = &mut catalog.route {
        route.policy = Some(policy);
    }
    registry.state.publish(catalog);
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").idempotent(true).await.unwrap();
    let catalog = CatalogClient::new(balancer);

    let traffic = Traffic::start(&catalog, 16);
    for round in 0..6 {
        traffic.goes_on(300).await;
        let address = v1[round % 3].address();
        v1[round % 3].kill();
        traffic.goes_on(300).await;
        v1[round % 3] = Instance::start_at("v1", &format!("v1-{}", round % 3), Some(address)).await;
        let back = &v1[round % 3];
        eventually("the instance is called again", || back.calls() > 0).await;
    }
    let failures = traffic.failures().await;
    assert!(
        failures.is_empty(),
        "{} failed: {:?}",
        failures.len(),
        failures.first()
    );
}

#[tokio::test]
async fn a_call_that_may_not_be_repeated_says_that_it_broke_off() {
    let registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 2).await;
    v1[0].behaviour().delay_ms.store(60_000, Ordering::SeqCst);
    let only = ready(v1.iter().take(1));
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], only));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let catalog = CatalogClient::new(balancer.clone());

    let broken = tokio::spawn({
        let catalog = catalog.clone();
        async move { get(&catalog, 1).await }
    });
    let mut repeatable = Request::new(GetItemRequest { item_id: 2 });
    repeatable.extensions_mut().insert(Idempotent);
    let repeated = tokio::spawn({
        let mut catalog = catalog.clone();
        async move { catalog.get_item(repeatable).await }
    });
    let busy = v1[0].behaviour().under_way.load(Ordering::SeqCst);
    assert!(busy <= 2);
    eventually("both are under way", || {
        v1[0].behaviour().under_way.load(Ordering::SeqCst) == 2
    })
    .await;
    let both = ready(&v1);
    registry
        .state
        .publish(view(11, &[("v1", 10_000)], &[("v1", Active)], both));
    follows(&balancer, 11).await;
    v1[0].kill();

    let status = broken.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("broke off"), "{status}");
    let answer = repeated.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.instance_id, "v1-1");
}

#[tokio::test]
async fn an_instance_that_says_unavailable_is_left_for_another_when_that_is_safe() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 2).await;
    v1[0].behaviour().unavailable.store(true, Ordering::SeqCst);
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let safe = CatalogClient::new(client.service("catalog").idempotent(true).await.unwrap());
    assert_eq!(count(&safe, 50).await, counted([("v1", 50)]));
    // By a client that has not had that instance out for its failures yet.
    let client = Client::connect(&registry.endpoint()).unwrap();
    let unsafe_calls = CatalogClient::new(client.service("catalog").await.unwrap());
    let mut refused = 0;
    for item_id in 0..50 {
        refused += u32::from(get(&unsafe_calls, item_id).await.is_err());
    }
    assert!(
        refused > 0,
        "calls that may not be repeated get the instance's answer"
    );
}

#[tokio::test]
async fn the_share_of_a_group_that_died_goes_to_the_others_and_comes_back() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 2).await;
    let mut v2 = Instance::group_of("v2", 1).await;
    let all = ready(v1.iter().chain(&v2));
    let groups = [("v1", Active), ("v2", Active)];
    registry
        .state
        .publish(view(10, &[("v1", 5_000), ("v2", 5_000)], &groups, all));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").idempotent(true).await.unwrap());
    assert_eq!(
        count(&catalog, 100).await,
        counted([("v1", 50), ("v2", 50)])
    );

    let address = v2[0].address();
    v2[0].kill();
    // The first calls meet the broken connection and go elsewhere.
    count(&catalog, 10).await;
    assert_eq!(count(&catalog, 100).await, counted([("v1", 100)]));

    v2[0] = Instance::start_at("v2", "v2-0", Some(address)).await;
    let mut tries = 0_u64;
    while v2[0].calls() == 0 {
        tries += 1;
        get(&catalog, tries).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = calls(&v1);
    count(&catalog, 100).await;
    assert!((calls(&v1) - before).abs_diff(50) <= 1);
}

#[tokio::test]
async fn a_draining_instance_gets_nothing_new_and_ends_what_it_has() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 2).await;
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let catalog = CatalogClient::new(balancer.clone());
    count(&catalog, 20).await;

    for instance in &v1 {
        instance.behaviour().delay_ms.store(300, Ordering::SeqCst);
    }
    let mut slow = Vec::new();
    let busy = |i: &Instance| i.behaviour().under_way.load(Ordering::SeqCst) > i.calls();
    // The one that was faster so far takes more of them.
    while slow.len() < 8 || !v1.iter().all(busy) {
        let catalog = catalog.clone();
        slow.push(tokio::spawn(async move { get(&catalog, 1).await }));
        assert!(slow.len() < 10_000, "both are not busy");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let drained = vec![v1[0].described(Draining), v1[1].described(Ready)];
    registry
        .state
        .publish(view(11, &[("v1", 10_000)], &[("v1", Active)], drained));
    follows(&balancer, 11).await;
    let begun = v1[0].behaviour().under_way.load(Ordering::SeqCst);
    v1[1].behaviour().delay_ms.store(0, Ordering::SeqCst);
    count(&catalog, 50).await;
    // Gone from the view, while its calls are still under way.
    let gone = ready(v1.iter().skip(1));
    registry
        .state
        .publish(view(12, &[("v1", 10_000)], &[("v1", Active)], gone));
    follows(&balancer, 12).await;
    for call in slow {
        call.await.unwrap().unwrap();
    }
    assert_eq!(v1[0].behaviour().under_way.load(Ordering::SeqCst), begun);
}

#[tokio::test]
async fn a_service_without_instances_is_waited_for_and_then_told() {
    let registry = Registry::start().await;
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], Vec::new()));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let hasty = client
        .service("catalog")
        .wait_for_ready(Duration::ZERO)
        .await
        .unwrap();
    let error = hasty.pick().await.unwrap_err();
    assert!(
        matches!(&error, Error::NoInstance { known: 0, .. }),
        "{error}"
    );

    let patient = client
        .service("catalog")
        .wait_for_ready(Duration::from_secs(20))
        .await
        .unwrap();
    let waiting = tokio::spawn(async move { patient.pick().await.map(|p| p.address().to_owned()) });
    let v1 = Instance::group_of("v1", 1).await;
    registry
        .state
        .publish(view(11, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    assert_eq!(waiting.await.unwrap().unwrap(), v1[0].address().to_string());
}

#[tokio::test]
async fn nobody_listening_is_told_with_the_address() {
    let registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 1).await;
    v1[0].kill();
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    let client = Client::connect(&registry.endpoint()).unwrap();
    // Long enough to be refused on a busy machine.
    let wait = Duration::from_secs(2);
    let balancer = client
        .service("catalog")
        .wait_for_ready(wait)
        .await
        .unwrap();
    let status = get(&CatalogClient::new(balancer), 1).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains(&v1[0].address().to_string()),
        "{status}"
    );
    assert!(
        status.message().contains("1 known, none connected"),
        "{status}"
    );
}

#[tokio::test]
async fn a_deadline_of_the_caller_is_kept() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    v1[0].behaviour().delay_ms.store(60_000, Ordering::SeqCst);
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    // Not spent on connecting.
    drop(balancer.pick().await.unwrap());
    let mut catalog = CatalogClient::new(balancer);
    let mut request = Request::new(GetItemRequest { item_id: 1 });
    request.set_timeout(Duration::from_millis(50));
    let status = catalog.get_item(request).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
}

#[tokio::test]
async fn loads_are_reported_by_group() {
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    let v2 = Instance::group_of("v2", 1).await;
    v2[0].behaviour().failing.store(true, Ordering::SeqCst);
    let all = ready(v1.iter().chain(&v2));
    let groups = [("v1", Active), ("v2", Active)];
    registry
        .state
        .publish(view(10, &[("v1", 7_500), ("v2", 2_500)], &groups, all));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    for item_id in 0..100 {
        let _ = get(&catalog, item_id).await;
    }
    eventually("all calls are reported", || {
        registry.state.loads("v1") == (75, 0) && registry.state.loads("v2") == (25, 25)
    })
    .await;
}

/// Picks until it is that instance's turn.
async fn picked_at(balancer: &Balancer, instance_id: &str) -> Picked {
    loop {
        let picked = balancer.pick().await.unwrap();
        if picked.instance_id() == instance_id {
            return picked;
        }
        picked.success();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pick_for_another_protocol_avoids_what_was_unreachable() {
    let registry = Registry::start().await;
    let mut v1 = Instance::group_of("v1", 2).await;
    registry
        .state
        .publish(view(10, &[("v1", 10_000)], &[("v1", Active)], ready(&v1)));
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").tcp().await.unwrap();
    let found = picked_at(&balancer, "v1-0").await;
    v1[0].kill();
    found.unreachable();
    // The word travels through a task of the link.
    let mut in_a_row = 0;
    while in_a_row < 20 {
        let picked = balancer.pick().await.unwrap();
        in_a_row = if picked.instance_id() == "v1-1" {
            in_a_row + 1
        } else {
            0
        };
        tokio::task::yield_now().await;
    }
    let status = get(&CatalogClient::new(balancer), 1).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

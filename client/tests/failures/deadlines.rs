//! How long calls take when instances keep them waiting.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::{Code, Request, Status};
use trimtab_client::call::{Deadline, Idempotent, PickInfo};
use trimtab_client::client::Client;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::{PATIENCE, eventually};

use crate::instance::{Fault, Instance};
use crate::traffic::{Catalog, get};

/// Two instances, the first of which does not answer.
async fn one_stuck() -> (Cluster, Vec<Instance>, Client) {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    instances[0].fail(Fault::Stuck);
    (cluster, instances, client)
}

/// Calls until the stuck instance was asked first.
async fn until_stuck(catalog: &Catalog, stuck: &Instance) -> Duration {
    loop {
        let (before, begun) = (stuck.calls(), Instant::now());
        assert_eq!(get(catalog, 1).await.unwrap(), "v1-1");
        if stuck.calls() > before {
            return begun.elapsed();
        }
    }
}

/// A server of tonic keeps the deadline too, says CANCELLED, and may be first.
fn is_late(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_is_asked_after_a_third_of_the_time_and_told_what_is_left() {
    const TOTAL: Duration = Duration::from_secs(9);
    let (_cluster, instances, client) = one_stuck().await;
    let service = client.service("catalog").idempotent(true);
    let service = service.timeout(TOTAL).await.unwrap();
    let took = until_stuck(&CatalogClient::new(service), &instances[0]).await;
    assert!(took >= TOTAL / 3, "{took:?}");
    let told = instances[1].told();
    assert!(
        told >= TOTAL.saturating_sub(took) && told <= TOTAL * 2 / 3,
        "{told:?} are left of {TOTAL:?} after a third, of {took:?} in all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_is_asked_after_the_time_for_an_attempt() {
    let (_cluster, instances, client) = one_stuck().await;
    let service = client.service("catalog").idempotent(true);
    let service = service.attempt_timeout(Duration::from_millis(50));
    let catalog = CatalogClient::new(service.await.unwrap());
    let took = until_stuck(&catalog, &instances[0]).await;
    assert!(took >= Duration::from_millis(50), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_is_asked_after_a_while_when_the_caller_said_nothing_of_time() {
    let (_cluster, instances, client) = one_stuck().await;
    let service = client.service("catalog").idempotent(true);
    let took = until_stuck(&CatalogClient::new(service.await.unwrap()), &instances[0]).await;
    assert!(took >= Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_comes_back_is_asked_when_the_other_hangs() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let service = client.service("catalog").idempotent(true);
    let service = service.attempt_timeout(Duration::from_millis(50));
    let catalog = CatalogClient::new(service.await.unwrap());
    get(&catalog, 1).await.unwrap();
    instances[1].fail(Fault::Dead);
    while instances[1].is_connected() {
        tokio::task::yield_now().await;
    }
    instances[0].fail(Fault::Stuck);
    let heals = async {
        // After the other was to be asked as well.
        tokio::time::sleep(Duration::from_millis(300)).await;
        instances[1].heal();
    };
    let both = async { tokio::join!(get(&catalog, 1), heals) };
    let (answered_by, ()) = timeout(PATIENCE, both).await.expect("asked");
    assert_eq!(answered_by.unwrap(), "v1-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_failed_is_asked_again_when_the_other_hangs() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let service = client.service("catalog").idempotent(true);
    let service = service.attempt_timeout(Duration::from_millis(50));
    let catalog = CatalogClient::new(service.await.unwrap());
    get(&catalog, 1).await.unwrap();
    instances[0].fail(Fault::Stuck);
    instances[1].fail(Fault::Errs(Code::Unavailable));
    let before = instances[1].calls();
    let heals = async {
        // Whichever is asked first.
        while instances[1].calls() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        instances[1].heal();
    };
    let both = async { tokio::join!(get(&catalog, 1), heals) };
    let (answered_by, ()) = timeout(PATIENCE, both).await.expect("asked");
    assert_eq!(answered_by.unwrap(), "v1-1");
}

/// The connection breaks when a ping is not answered, and the call with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_frozen_instance_ends_with_the_connection() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 1).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    get(&catalog, 1).await.unwrap();
    instances[0].fail(Fault::Frozen);
    let ended = timeout(PATIENCE, get(&catalog, 1)).await;
    let status = ended.expect("without a limit of its own").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_answers_late_still_counts() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    for instance in &instances {
        instance.fail(Fault::Late);
    }
    let service = client.service("catalog").idempotent(true);
    let service = service
        .timeout(PATIENCE)
        .attempt_timeout(Duration::from_millis(50));
    let mut catalog = CatalogClient::new(service.await.unwrap());
    let call = async move { catalog.get_item(GetItemRequest { item_id: 1 }).await };
    let call = tokio::spawn(call);
    let asked = async || -> Vec<u64> { instances.iter().map(Instance::calls).collect() };
    eventually("both are asked", asked, |calls| *calls == [1, 1]).await;
    // The first: the second was told that less time was left.
    let first = match instances[0].told() > instances[1].told() {
        true => &instances[0],
        false => &instances[1],
    };
    first.heal();
    let answer = timeout(PATIENCE, call).await.expect("the first counts");
    let answer = answer.unwrap().unwrap();
    assert!(answer.extensions().get::<PickInfo>().is_some());
    assert_eq!(answer.into_inner().instance_id, first.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_not_be_repeated_waits_for_its_instance_until_its_deadline() {
    let (_cluster, instances, client) = one_stuck().await;
    instances[1].fail(Fault::Stuck);
    let mut catalog = CatalogClient::new(client.service("catalog").await.unwrap());
    let deadline = Deadline::after(Duration::from_millis(300));
    let mut request = Request::new(GetItemRequest { item_id: 1 });
    request.extensions_mut().insert(deadline);
    let begun = Instant::now();
    let status = catalog.get_item(request).await.unwrap_err();
    let took = begun.elapsed();
    assert!(is_late(&status), "{status}");
    assert!(took >= Duration::from_millis(290), "{took:?}");
    let calls: u64 = instances.iter().map(Instance::calls).sum();
    assert_eq!(calls, 1);

    let mut request = Request::new(GetItemRequest { item_id: 1 });
    request.extensions_mut().insert(Idempotent);
    request.set_timeout(Duration::from_millis(300));
    let status = catalog.get_item(request).await.unwrap_err();
    assert!(is_late(&status), "{status}");
    let calls: u64 = instances.iter().map(Instance::calls).sum();
    assert_eq!(calls, 3, "both were asked");
}

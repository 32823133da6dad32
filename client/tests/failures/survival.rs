//! No call that may be repeated fails while enough instances are well.

use std::time::Duration;

use tonic::Code;
use trimtab_client::client::Client;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;

use crate::instance::{Fault, Instance};
use crate::traffic::{Catalog, Traffic};

/// What the callers give a call: more than it takes for a ping to find that a
/// connection is dead.
const TIMEOUT: Duration = Duration::from_secs(9);

/// Longer than it takes to find, by whatever means, that an instance hangs.
const SICK_FOR: Duration = Duration::from_secs(8);

const CALLERS: usize = 16;

pub async fn retry_safe(client: &Client) -> Catalog {
    let service = client.service("catalog").idempotent(true).timeout(TIMEOUT);
    CatalogClient::new(service.await.unwrap())
}

/// A caller that says that its calls may be repeated, and nothing else.
async fn without_limits(client: &Client) -> Catalog {
    CatalogClient::new(client.service("catalog").idempotent(true).await.unwrap())
}

/// Has `sick` fail for a while, and be well again.
async fn survives(
    caller: impl AsyncFn(&Client) -> Catalog,
    fault: Fault,
    instances: usize,
    sick: std::ops::Range<usize>,
) {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", instances).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let traffic = Traffic::start(&caller(&client).await, CALLERS);
    traffic.goes_on(500).await;
    traffic.slowest();
    for instance in &instances[sick.clone()] {
        instance.fail(fault);
    }
    // Longer than a call that hangs waits before it is tried elsewhere.
    let enough = tokio::time::sleep(SICK_FOR);
    tokio::join!(traffic.goes_on(3_000), enough);
    let slowest = traffic.slowest();
    for instance in &instances[sick.clone()] {
        instance.heal();
    }
    traffic.goes_on(500).await;
    let (calls, failures) = traffic.end().await;
    println!("{fault:?} of {sick:?}: {calls} calls, the slowest took {slowest:?}");
    assert!(
        failures.is_empty(),
        "{fault:?}: {} of {calls} failed, first {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
}

macro_rules! one_of_five {
    ($($name:ident: $fault:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives(retry_safe, $fault, 5, 0..1).await;
        }
    )*};
}

one_of_five! {
    no_call_fails_when_one_of_five_dies: Fault::Dead;
    no_call_fails_when_one_of_five_freezes: Fault::Frozen;
    no_call_fails_when_one_of_five_is_stuck: Fault::Stuck;
    no_call_fails_when_one_of_five_resets_its_connections: Fault::Resets;
    no_call_fails_when_one_of_five_slows_down: Fault::Slow(500);
    no_call_fails_when_the_network_to_one_of_five_slows_down: Fault::Far(200);
    no_call_fails_when_one_of_five_answers_unavailable: Fault::Errs(Code::Unavailable);
    no_call_fails_when_one_of_five_answers_internal: Fault::Errs(Code::Internal);
    no_call_fails_when_one_of_five_answers_unknown: Fault::Errs(Code::Unknown);
}

/// The same for callers that limit no call: the rest of what fails does so
/// without making anyone wait.
macro_rules! without_limits {
    ($($name:ident: $fault:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives(without_limits, $fault, 5, 0..1).await;
        }
    )*};
}

without_limits! {
    no_call_without_a_limit_fails_when_one_of_five_dies: Fault::Dead;
    no_call_without_a_limit_fails_when_one_of_five_freezes: Fault::Frozen;
    no_call_without_a_limit_fails_when_one_of_five_is_stuck: Fault::Stuck;
}

/// What a connection tells of is left out at once, however many it is.
macro_rules! half {
    ($($name:ident: $fault:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            survives(retry_safe, $fault, 6, 0..3).await;
        }
    )*};
}

half! {
    no_call_fails_when_half_of_six_die: Fault::Dead;
    no_call_fails_when_half_of_six_freeze: Fault::Frozen;
    no_call_fails_when_half_of_six_slow_down: Fault::Slow(300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_each_of_five_fails_in_turn() {
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 5).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    // Within one turn, a call that hangs is tried elsewhere.
    let attempt = Duration::from_millis(200);
    let service = client.service("catalog").idempotent(true).timeout(TIMEOUT);
    let catalog = CatalogClient::new(service.attempt_timeout(attempt).await.unwrap());
    let traffic = Traffic::start(&catalog, CALLERS);
    let faults = [
        Fault::Dead,
        Fault::Errs(Code::Unavailable),
        Fault::Resets,
        Fault::Slow(200),
        Fault::Stuck,
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        for instance in &instances {
            instance.fail(fault);
            traffic.goes_on(300).await;
            instance.heal();
            tokio::join!(traffic.goes_on(100), tokio::time::sleep(attempt * 2));
            let failed = traffic.failed();
            assert_eq!(failed, 0, "{fault:?} at {}, round {round}", instance.id);
        }
    }
    let (calls, failures) = traffic.end().await;
    assert!(failures.is_empty(), "of {calls}: {:?}", failures.first());
}

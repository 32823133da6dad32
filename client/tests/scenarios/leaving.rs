//! Leaving in order: DRAINING, the receipts of all callers, then the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::time::timeout;
use trimtab_client::client::Client;
use trimtab_client::testing::{FakeRegistry, InstanceStatus};
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

use crate::instance::Instance;
use crate::process::{PATIENCE, eventually};
use crate::watching::call;

/// Calls that may not be repeated, from many callers, while one instance after
/// another drains, ends what it has, and is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_instances_leave_in_order() {
    let registry = FakeRegistry::start().await.unwrap();
    let serving = Client::connect(&registry.endpoint()).unwrap();
    let mut instances = Vec::new();
    for number in 0..4 {
        let instance = Instance::start("v1", &format!("i{number}")).await;
        instance.behaviour().delay_ms.store(5, Ordering::SeqCst);
        let address = instance.address().to_string();
        let registered = serving.register("catalog", "v1", address).id(&instance.id);
        instances.push((instance, registered.start().await.unwrap()));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(&registry.endpoint()).unwrap();
        let balancer = client.service("catalog").await.unwrap();
        for _ in 0..4 {
            let mut catalog = CatalogClient::new(balancer.clone());
            let stop = Arc::clone(&stop);
            callers.push(tokio::spawn(async move {
                let mut calls = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    let request = GetItemRequest { item_id: calls };
                    catalog.get_item(request).await.expect("no call fails");
                    calls += 1;
                }
                calls
            }));
        }
    }
    let last = instances.split_off(3);
    for (mut instance, registration) in instances {
        eventually("it is called", || instance.calls() > 20).await;
        let drained = registration.drain(Duration::from_secs(20)).await.unwrap();
        assert!(drained.complete, "{drained:?}");
        let behaviour = instance.behaviour();
        behaviour.end.notify_one();
        eventually("it ends", || behaviour.ended.load(Ordering::SeqCst)).await;
        instance.kill();
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    drop(last);
}

/// One caller hangs: it is named when time is over, and the instance leaves.
#[tokio::test]
async fn a_caller_that_hangs_is_waited_for_no_longer_than_said() {
    let registry = FakeRegistry::start().await.unwrap();
    let instance = Instance::start("v1", "a").await;
    let client = Client::connect(&registry.endpoint()).unwrap();
    let registration = client.register("catalog", "v1", instance.address().to_string());
    let registration = registration.start().await.unwrap();

    // A caller in a runtime that stands still.
    let endpoint = registry.endpoint();
    let (go_on, waits) = mpsc::channel::<()>();
    let (hanging, hangs) = mpsc::channel::<()>();
    let is_to_hang = Arc::new(AtomicBool::new(false));
    let told_to_hang = Arc::clone(&is_to_hang);
    let caller = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = Client::builder().name("hangs").connect(&endpoint).unwrap();
            let balancer = client.service("catalog").await.unwrap();
            call(&balancer).await;
            while !told_to_hang.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hanging.send(()).unwrap();
            let _ = waits.recv();
        });
    });
    let confirmed = registry.until("its receipt", |told| told.confirmed("catalog") > Some(0));
    confirmed.await.unwrap();
    is_to_hang.store(true, Ordering::SeqCst);
    hangs.recv_timeout(PATIENCE).unwrap();
    let draining = timeout(PATIENCE, registration.drain(Duration::from_millis(300)));
    let drained = draining.await.expect("no longer than said").unwrap();
    assert!(!drained.complete);
    assert_eq!(drained.laggards, ["hangs"]);
    assert!(registry.told().registrations.is_empty());
    go_on.send(()).unwrap();
    caller.join().unwrap();
}

/// A registry that went away keeps nobody from ending.
#[tokio::test]
async fn without_a_registry_it_says_so_in_time() {
    let mut registry = FakeRegistry::start().await.unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let registration = client.register("catalog", "v1", "127.0.0.1:1");
    let registration = registration.start().await.unwrap();
    let told = registry.told();
    assert_eq!(told.registrations[0].instance.status, InstanceStatus::Ready);
    registry.stop().await;
    let draining = timeout(PATIENCE, registration.drain(Duration::from_secs(1)));
    let error = draining.await.expect("no registry").unwrap_err();
    assert!(error.is_transient(), "{error}");
}

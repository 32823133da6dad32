//! Sticky calls over real connections, the warm-up of a group, and what `explain` says of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::Request;
use trimtab_client::Balancer;
use trimtab_client::client::Client;
use trimtab_client::explain::{Note, Verdict};
use trimtab_client::policy::Policy;
use trimtab_client::sticky::{Bucket, StickyKey};
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService, InstanceStatus};
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

use crate::instance::Instance;
use crate::process::eventually;

fn catalog(weights: &[(&str, u32)], instances: &[&Instance]) -> FakeService {
    let mut service = FakeService::new("catalog");
    service.set_weights(weights);
    for instance in instances {
        let address = instance.address().to_string();
        service.put(FakeInstance::new(&instance.id, &instance.group, address));
    }
    service
}

/// The group that answers a call with this in its extensions.
async fn ask<T: Clone + Send + Sync + 'static>(balancer: &Balancer, with: &T) -> String {
    let mut request = Request::new(GetItemRequest { item_id: 1 });
    request.extensions_mut().insert(with.clone());
    let mut catalog = CatalogClient::new(balancer.clone());
    catalog.get_item(request).await.unwrap().into_inner().group
}

#[tokio::test]
async fn a_key_keeps_its_group_and_its_bucket_travels() {
    let (v1, v2) = (
        Instance::start("v1", "a").await,
        Instance::start("v2", "b").await,
    );
    let registry = FakeRegistry::start().await.unwrap();
    let half = [("v1", 5_000), ("v2", 5_000)];
    registry.publish(catalog(&half, &[&v1, &v2])).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let keys: Vec<StickyKey> = (0..40)
        .map(|n| StickyKey::new(format!("user-{n}")))
        .collect();
    let mut groups = BTreeMap::new();
    for round in 0..3 {
        for (number, key) in keys.iter().enumerate() {
            let group = ask(&balancer, key).await;
            let known = groups.entry(number).or_insert_with(|| group.clone());
            assert_eq!(*known, group, "round {round}");
        }
    }
    let both: BTreeSet<&String> = groups.values().collect();
    assert_eq!(both.len(), 2);

    // Whoever was called so calls on with the bucket it heard.
    ask(&balancer, &keys[7]).await;
    let asked = [&v1, &v2]
        .into_iter()
        .find(|it| it.group == groups[&7])
        .unwrap();
    let bucket = asked.behaviour().bucket.lock().unwrap().unwrap();
    assert_eq!(ask(&balancer, &bucket).await, groups[&7]);
    let picked = balancer.pick_for(&keys[7]).await.unwrap();
    assert_eq!(
        (picked.group(), picked.bucket()),
        (&*groups[&7], Some(bucket))
    );
    picked.success();
    let picked = balancer.pick_in(Bucket::new(9_999).unwrap()).await.unwrap();
    assert_eq!(picked.group(), "v2");
    picked.success();

    // A call without a key says nothing.
    crate::watching::call(&balancer).await;
    crate::watching::call(&balancer).await;
    assert_eq!(*v1.behaviour().bucket.lock().unwrap(), None);
    assert_eq!(*v2.behaviour().bucket.lock().unwrap(), None);

    // More for v2: whoever was there stays.
    let more = [("v1", 2_000), ("v2", 8_000)];
    let revision = registry
        .change("catalog", |it| it.set_weights(&more))
        .unwrap();
    eventually("the shift is followed", || balancer.revision() >= revision).await;
    for (number, key) in keys.iter().enumerate().filter(|(n, _)| groups[n] == "v2") {
        assert_eq!(ask(&balancer, key).await, "v2", "{number}");
    }
}

#[tokio::test]
async fn explain_says_why_not() {
    let (v1, gone) = (
        Instance::start("v1", "a").await,
        Instance::start("v1", "gone").await,
    );
    let (v2, suspect) = (
        Instance::start("v2", "b").await,
        Instance::start("v1", "s").await,
    );
    let registry = FakeRegistry::start().await.unwrap();
    let mut service = catalog(&[("v1", 10_000)], &[&v1, &gone, &v2, &suspect]);
    assert!(service.set_status("s", InstanceStatus::Suspect));
    registry.publish(service).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    drop(gone);
    let verdict = |group: usize, id: &str| {
        let explanation = balancer.explain();
        let instances = &explanation.groups.get(group)?.instances;
        Some(instances.iter().find(|it| it.id == id)?.verdict)
    };
    eventually("the connections are known", || {
        verdict(0, "gone") == Some(Verdict::NotConnected)
            && verdict(0, "s") == Some(Verdict::Suspect)
            && verdict(0, "a") == Some(Verdict::Takes)
            && verdict(1, "b") == Some(Verdict::GroupHasNoShare)
    })
    .await;
    crate::watching::call(&balancer).await;
    let explanation = balancer.explain();
    let a = &explanation.groups[0].instances[0];
    assert!(a.latency.is_some() && a.in_flight == 0);
    assert!((explanation.groups[0].share - 100.0).abs() < 1e-9);
    let table = explanation.to_string();
    assert!(table.contains("no: it is not connected"), "{table}");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["groups"][0]["instances"][0]["verdict"], "takes");
    assert_eq!(json["level"], "weighted");
}

#[tokio::test]
async fn a_new_group_warms_up_while_a_caller_runs() {
    let (v1, v2) = (
        Instance::start("v1", "a").await,
        Instance::start("v2", "b").await,
    );
    let registry = FakeRegistry::start().await.unwrap();
    let mut service = catalog(&[("v1", 10_000)], &[&v1, &v2]);
    service.set_policy(Policy {
        warm_up: Duration::from_secs(3),
        ..Policy::default()
    });
    registry.publish(service).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    let all = [("v2", 10_000)];
    let revision = registry
        .change("catalog", |it| it.set_weights(&all))
        .unwrap();
    let mut shares = Vec::new();
    eventually("it has all", || {
        let explanation = balancer.explain();
        let group = explanation.groups.iter().find(|group| group.name == "v2");
        let group = group.filter(|_| explanation.revision >= revision);
        let Some(group) = group else {
            return false;
        };
        shares.push(group.share);
        assert_eq!(group.note == Some(Note::WarmingUp), group.share < 99.9);
        group.share > 99.9
    })
    .await;
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(shares[0] < 99.9, "{shares:?}");
}

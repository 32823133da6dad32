//! A caller that starts while the whole registry is down, and what it makes of the one that comes after.

use std::path::Path;

use tempfile::TempDir;
use trimtab_client::balancer::{Balancer, ViewSource};
use trimtab_client::client::Client;
use trimtab_client::registration::Registration;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::eventually;
use trimtab_tests::instance::Instance;

async fn call(balancer: &Balancer) {
    let mut catalog = CatalogClient::new(balancer.clone());
    let answer = catalog.get_item(GetItemRequest { item_id: 1 }).await;
    answer.expect("the call succeeds");
}

fn caching(cluster: &Cluster, views: &Path) -> Client {
    let client = Client::builder().cache_dir(views);
    client.connect(&cluster.endpoints()).expect("a client")
}

async fn registered(cluster: &Cluster, instance: &Instance) -> Registration {
    let client = Client::connect(&cluster.endpoints()).expect("a client");
    let registration = client.register("catalog", "v1", instance.address());
    registration.start().await.expect("registered")
}

/// One that calls and ends, and leaves a view behind.
async fn earlier_life(cluster: &Cluster, views: &Path) -> u64 {
    let client = caching(cluster, views);
    let balancer = client.service("catalog").await.expect("known");
    call(&balancer).await;
    let files = async || std::fs::read_dir(views).map_or(0, Iterator::count);
    eventually("the view is on disk", files, |files| *files == 1).await;
    balancer.revision()
}

async fn follows(balancer: &Balancer, source: ViewSource) -> u64 {
    let state = async || (balancer.source(), balancer.revision());
    let is_so = |state: &(Option<ViewSource>, u64)| state.0 == Some(source);
    eventually("where the view is from", state, is_so).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_starts_without_the_registry_and_follows_it_when_it_is_back() {
    let views = TempDir::new().expect("a directory");
    let mut cluster = Cluster::start(1).await;
    let instance = Instance::start("v1", "a");
    let _registration = registered(&cluster, &instance).await;
    let revision = earlier_life(&cluster, views.path()).await;
    cluster.stop(1).await;

    let client = caching(&cluster, views.path());
    let balancer = client.service("catalog").await.expect("from the disk");
    assert_eq!(follows(&balancer, ViewSource::Disk).await, revision);
    call(&balancer).await;
    cluster.start_again(1).await;
    assert!(follows(&balancer, ViewSource::Registry).await >= revision);
    call(&balancer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_founded_anew_is_followed_though_it_counts_from_the_beginning() {
    let views = TempDir::new().expect("a directory");
    let mut cluster = Cluster::start(1).await;
    let instance = Instance::start("v1", "a");
    for number in 0..30 {
        let name = format!("other{number}");
        cluster.register(1, &name, "v1", "i").await;
    }
    let first = registered(&cluster, &instance).await;
    let revision = earlier_life(&cluster, views.path()).await;
    cluster.stop(1).await;
    cluster.destroy(1);
    drop(first);

    let client = caching(&cluster, views.path());
    let balancer = client.service("catalog").await.expect("from the disk");
    assert_eq!(follows(&balancer, ViewSource::Disk).await, revision);
    call(&balancer).await;
    cluster.start_again(1).await;
    let _second = registered(&cluster, &instance).await;
    let newer = follows(&balancer, ViewSource::Registry).await;
    assert!(newer < revision, "{newer} after {revision}");
    call(&balancer).await;
}

//! Starting while the registry is down, from the views that an earlier process kept on disk.

use std::fs;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use trimtab_client::balancer::{Balancer, ViewSource};
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_proto::v1 as wire;

use crate::instance::Instance;
use crate::process::{PATIENCE, eventually};
use crate::registry::Registry;
use crate::watching::{call, plain};

fn caching(dir: &Path, registry: &Registry) -> Client {
    let client = Client::builder().cache_dir(dir.join("views"));
    client.connect(&registry.endpoint()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("views")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_kept(dir: &Path) -> bool {
    let name = |path: &PathBuf| path.to_string_lossy().into_owned();
    files(dir).iter().map(name).any(|it| it.ends_with(".view"))
}

/// A process runs, follows revision 10 of one group, and ends; so does the
/// registry, of cluster 7.
async fn earlier_life(dir: &Path, instances: &[Instance]) -> Registry {
    let mut registry = Registry::start().await;
    registry.state.cluster.store(7, Ordering::SeqCst);
    registry.state.publish(plain(10, instances));
    let client = caching(dir, &registry);
    let balancer = client.service("catalog").await.unwrap();
    assert_eq!(balancer.source(), Some(ViewSource::Registry));
    eventually("the view is on disk", || is_kept(dir)).await;
    registry.kill();
    registry
}

fn is(balancer: &Balancer, revision: u64, source: ViewSource) -> bool {
    balancer.revision() == revision && balancer.source() == Some(source)
}

#[tokio::test]
async fn calls_succeed_from_the_disk_until_the_registry_is_back() {
    let dir = TempDir::new().unwrap();
    let mut v1 = Instance::group_of("v1", 3).await;
    let mut registry = earlier_life(dir.path(), &v1).await;
    // The world did not stand still.
    v1[0].kill();

    let client = caching(dir.path(), &registry);
    // It was told that it may wait long, and has no reason to.
    let service = client.service("catalog").idempotent(true);
    let starting = service.first_view_within(10 * PATIENCE).into_future();
    let balancer = timeout(PATIENCE, starting).await.unwrap().unwrap();
    assert!(is(&balancer, 10, ViewSource::Disk), "{balancer:?}");
    for _ in 0..100 {
        call(&balancer).await;
    }

    registry.state.asked.lock().unwrap().clear();
    registry.restart().await;
    eventually("the same view, from the registry", || {
        is(&balancer, 10, ViewSource::Registry)
    })
    .await;
    // It was not measured by what is on disk, and told nothing of it.
    assert_eq!(registry.state.subscribes()[0].known_revision, 0);
    eventually("the receipt", || registry.state.receipts("catalog") == [10]).await;
    registry.state.publish(plain(11, &v1[1..]));
    eventually("the live view", || is(&balancer, 11, ViewSource::Registry)).await;
    call(&balancer).await;
}

#[tokio::test]
async fn a_start_that_may_not_wait_does_not() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let registry = earlier_life(dir.path(), &v1).await;
    for wait in [Duration::ZERO, Duration::from_millis(30)] {
        let client = caching(dir.path(), &registry);
        let service = client.service("catalog").first_view_within(wait);
        let balancer = service.await.unwrap();
        call(&balancer).await;
        assert_eq!(balancer.source(), Some(ViewSource::Disk));
    }
}

#[tokio::test]
async fn what_the_registry_says_counts_more_than_the_disk() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let mut registry = earlier_life(dir.path(), &v1).await;
    registry.restart().await;
    registry.state.publish(plain(12, &v1));
    let client = caching(dir.path(), &registry);
    let balancer = client.service("catalog").await.unwrap();
    assert!(is(&balancer, 12, ViewSource::Registry), "{balancer:?}");

    // A service that is no more is forgotten on disk, too.
    registry.state.remove("catalog", 13);
    eventually("no file is left", || !is_kept(dir.path())).await;
    registry.kill();
    let client = caching(dir.path(), &registry);
    let service = client.service("catalog");
    let nothing = service.first_view_within(Duration::from_millis(100)).await;
    assert!(
        matches!(nothing, Err(Error::Deadline { .. })),
        "{nothing:?}"
    );
}

#[tokio::test]
async fn a_replica_that_lags_does_not_bring_an_older_view_back() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let mut registry = earlier_life(dir.path(), &v1).await;
    let client = caching(dir.path(), &registry);
    let balancer = client.service("catalog").await.unwrap();
    registry.state.publish(plain(9, &v1));
    registry.restart().await;
    eventually("it was offered the older one", || {
        !registry.state.subscribes().is_empty()
    })
    .await;
    registry.state.publish(plain(10, &v1));
    eventually("the view it knows", || {
        is(&balancer, 10, ViewSource::Registry)
    })
    .await;
    assert!(!registry.state.receipts("catalog").contains(&9));
}

/// The registry was founded anew on empty disks and counts from 1: whoever
/// starts now follows it, as it would without a file.
#[tokio::test]
async fn another_clusters_view_gives_way_though_its_revision_is_higher() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let mut registry = earlier_life(dir.path(), &v1).await;
    let client = caching(dir.path(), &registry);
    let balancer = client.service("catalog").await.unwrap();
    assert!(is(&balancer, 10, ViewSource::Disk));

    registry.state.cluster.store(8, Ordering::SeqCst);
    registry.state.asked.lock().unwrap().clear();
    registry.state.remove("catalog", 1);
    registry.restart().await;
    eventually("it has asked", || !registry.state.subscribes().is_empty()).await;
    // Nothing has registered there yet: no reason to stop.
    call(&balancer).await;
    registry.state.publish(plain(3, &v1));
    eventually("the new cluster's view", || {
        is(&balancer, 3, ViewSource::Registry)
    })
    .await;
    eventually("its receipt", || registry.state.receipts("catalog") == [3]).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_never_fails_a_start() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let mut registry = earlier_life(dir.path(), &v1).await;
    let path = files(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut other_layout = whole.clone();
    other_layout[8] = 99;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let bad: [&[u8]; 5] = [
        b"",
        b"hello",
        &whole[..whole.len() - 1],
        &other_layout,
        &flipped,
    ];
    for bytes in bad {
        fs::write(&path, bytes).unwrap();
        let client = caching(dir.path(), &registry);
        let service = client.service("catalog");
        let nothing = service.first_view_within(Duration::from_millis(50)).await;
        assert!(
            matches!(nothing, Err(Error::Deadline { .. })),
            "{nothing:?}"
        );
    }
    // Nor does it keep the registry's word from being used and written.
    registry.restart().await;
    let client = caching(dir.path(), &registry);
    client.service("catalog").await.unwrap();
    eventually("a good file again", || {
        fs::read(&path).unwrap().len() == whole.len()
    })
    .await;
}

#[tokio::test]
async fn another_registrys_file_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let v1 = Instance::group_of("v1", 1).await;
    let _gone = earlier_life(dir.path(), &v1).await;
    let mut elsewhere = Registry::start().await;
    elsewhere.kill();
    let client = caching(dir.path(), &elsewhere);
    let service = client.service("catalog");
    let nothing = service.first_view_within(Duration::from_millis(700)).await;
    assert!(
        matches!(nothing, Err(Error::Deadline { .. })),
        "{nothing:?}"
    );
    assert!(is_kept(dir.path()));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_fails_nothing() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("views"),
        "a file where the directory should be",
    )
    .unwrap();
    let registry = Registry::start().await;
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(10, &v1));
    let client = caching(dir.path(), &registry);
    let balancer = client.service("catalog").await.unwrap();
    call(&balancer).await;
    registry.state.publish(plain(11, &v1));
    eventually("views go on", || balancer.revision() == 11).await;
}

/// Names that are no service's never become paths, whatever is called.
#[tokio::test]
async fn a_service_that_cannot_exist_touches_no_disk() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start().await;
    registry.state.remove("other", 1);
    let client = caching(dir.path(), &registry);
    registry.state.publish(wire::View {
        service: "../catalog".to_owned(),
        revision: 2,
        ..wire::View::default()
    });
    let strange = client.service("../catalog").await.unwrap();
    assert_eq!(strange.revision(), 2);
    let v1 = Instance::group_of("v1", 1).await;
    registry.state.publish(plain(3, &v1));
    let _catalog = client.service("catalog").await.unwrap();
    eventually("the good one is kept", || is_kept(dir.path())).await;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(files(dir.path()).len(), 1);
}

//! Calls all the while, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tonic::Status;
use trimtab_client::balancer::Balancer;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::eventually::eventually;

pub type Catalog = CatalogClient<Balancer>;

pub struct Traffic {
    counts: Arc<Counts>,
    callers: Vec<JoinHandle<Vec<String>>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    ended: AtomicU64,
    failed: AtomicU64,
    slowest_micros: AtomicU64,
}

pub async fn get(catalog: &Catalog, item_id: u64) -> Result<String, Status> {
    let answer = catalog.clone().get_item(GetItemRequest { item_id }).await?;
    Ok(answer.into_inner().instance_id)
}

impl Traffic {
    /// So many callers, each one call after another, with a moment between.
    pub fn start(catalog: &Catalog, callers: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let callers = (0..callers)
            .map(|_| tokio::spawn(calls(catalog.clone(), Arc::clone(&counts))))
            .collect();
        Self { counts, callers }
    }

    pub fn ended(&self) -> u64 {
        self.counts.ended.load(Ordering::SeqCst)
    }

    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::SeqCst)
    }

    /// The slowest call since this was asked last.
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.counts.slowest_micros.swap(0, Ordering::SeqCst))
    }

    /// Returns after that many more calls.
    pub async fn goes_on(&self, calls: u64) {
        let enough = self.ended() + calls;
        eventually(
            "calls that go on",
            async || self.ended(),
            |ended| *ended >= enough,
        )
        .await;
    }

    /// How many calls were made, and why some failed.
    pub async fn end(self) -> (u64, Vec<String>) {
        self.counts.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in self.callers {
            failures.extend(caller.await.unwrap());
        }
        (self.counts.ended.load(Ordering::SeqCst), failures)
    }
}

async fn calls(catalog: Catalog, counts: Arc<Counts>) -> Vec<String> {
    let mut failures = Vec::new();
    while !counts.stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let item_id = counts.ended.load(Ordering::SeqCst);
        if let Err(status) = get(&catalog, item_id).await {
            counts.failed.fetch_add(1, Ordering::SeqCst);
            failures.push(format!("after {:?}: {status}", begun.elapsed()));
        }
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
        counts.slowest_micros.fetch_max(micros, Ordering::SeqCst);
        counts.ended.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    failures
}

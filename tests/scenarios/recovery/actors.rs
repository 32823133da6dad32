//! Those who never stop while the registry is lost: callers whose calls may not fail, instances that stay registered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use trimtab_client::client::Client;
use trimtab_client::registration::Registration;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::eventually::eventually;
use trimtab_tests::instance::Instance;

/// Where the last call of a caller that never stops was answered: group,
/// by calls so far.
type Answered = Arc<std::sync::Mutex<BTreeMap<String, u64>>>;

/// A caller that calls without pause, and whose calls may not fail.
pub(super) struct Caller {
    answered: Answered,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Caller {
    pub(super) async fn start(endpoints: &str, service: &str) -> Caller {
        let client = Client::connect(endpoints).expect("valid");
        // The replica it asks may not have heard of the service yet.
        let known = eventually(
            "a replica that knows the service",
            async || client.service(service).await.ok(),
            Option::is_some,
        );
        let balancer = known.await.expect("known");
        let answered = Answered::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (counts, stopped) = (Arc::clone(&answered), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut catalog = CatalogClient::new(balancer);
            while !stopped.load(Ordering::Relaxed) {
                let answer = catalog.get_item(GetItemRequest { item_id: 7 }).await;
                let group = answer.expect("no call fails").into_inner().group;
                *counts.lock().expect("no panic").entry(group).or_default() += 1;
            }
            drop(client);
        });
        Caller {
            answered,
            stop,
            task,
        }
    }

    pub(super) fn calls(&self, group: &str) -> u64 {
        let answered = self.answered.lock().expect("no panic");
        answered.get(group).copied().unwrap_or_default()
    }

    /// Waits until calls of this moment and later are answered by `group`.
    pub(super) async fn is_answered_by(&self, group: &str) {
        let before = self.calls(group);
        let what = format!("calls are answered by {group}");
        eventually(&what, async || self.calls(group), |now| *now > before).await;
    }

    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no call failed");
    }
}

/// An instance that registers by itself and stays registered.
pub(super) struct Kept {
    _instance: Instance,
    _registration: Registration,
    _client: Client,
}

pub(super) async fn instance(endpoints: &str, service: &str, group: &str, id: &str) -> Kept {
    let instance = Instance::start(group, id);
    let client = Client::connect(endpoints).expect("valid");
    let registration = client.register(service, group, instance.address()).id(id);
    Kept {
        _registration: registration.start().await.expect("registered"),
        _instance: instance,
        _client: client,
    }
}

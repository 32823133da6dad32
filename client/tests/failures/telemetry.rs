//! What a program's metrics and subscriber hear of its calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tonic::Code;
use trimtab_client::client::Client;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_tests::cluster::Cluster;

use crate::instance::{Fault, Instance};
use crate::traffic::get;

/// All numbers by name and labels.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<BTreeMap<String, Arc<Number>>>>);

#[derive(Default)]
struct Number(AtomicU64);

impl Collected {
    fn number(&self, key: &Key) -> Arc<Number> {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    /// Of all whose names and labels begin so.
    fn sum(&self, beginning: &str) -> f64 {
        let numbers = self.0.lock().unwrap();
        let of_these = numbers
            .iter()
            .filter(|(name, _)| name.starts_with(beginning));
        of_these
            .map(|(_, number)| f64::from_bits(number.0.load(Ordering::SeqCst)))
            .sum()
    }

    fn get(&self, name: &str) -> f64 {
        let numbers = self.0.lock().unwrap();
        let number = numbers
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {:?}", numbers.keys()));
        f64::from_bits(number.0.load(Ordering::SeqCst))
    }
}

impl Number {
    fn update(&self, change: impl Fn(f64) -> f64) {
        let update = |bits| Some(change(f64::from_bits(bits)).to_bits());
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, update)
            .unwrap();
    }
}

impl CounterFn for Number {
    fn increment(&self, value: u64) {
        self.update(|number| number + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.update(|_| value as f64);
    }
}

impl GaugeFn for Number {
    fn increment(&self, value: f64) {
        self.update(|number| number + value);
    }

    fn decrement(&self, value: f64) {
        self.update(|number| number - value);
    }

    fn set(&self, value: f64) {
        self.update(|_| value);
    }
}

/// Counts what is recorded.
impl HistogramFn for Number {
    fn record(&self, _: f64) {
        self.update(|number| number + 1.0);
    }
}

impl Recorder for Collected {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.number(key))
    }
}

#[tokio::test]
async fn calls_repeats_and_ejections_are_counted_by_group() {
    let collected = Collected::default();
    // All runs on this thread.
    let _guard = metrics::set_default_local_recorder(&collected);
    let cluster = Cluster::start(1).await;
    let instances = Instance::registered(&cluster, "v1", 2).await;
    let client = Client::connect(&cluster.endpoints()).unwrap();
    let service = client.service("catalog").idempotent(true);
    let catalog = CatalogClient::new(service.await.unwrap());
    for item_id in 0..100 {
        get(&catalog, item_id).await.unwrap();
    }
    let calls = "trimtab_client_calls_total{service=catalog,group=v1,outcome=answered}";
    assert_eq!(collected.get(calls), 100.0);
    let seconds = "trimtab_client_call_seconds{service=catalog,group=v1}";
    assert_eq!(collected.get(seconds), 100.0);
    let up = "trimtab_client_instances{service=catalog,group=v1,state=up}";
    assert_eq!(collected.get(up), 2.0);
    assert_eq!(
        collected.get("trimtab_client_uncovered_share{service=catalog}"),
        0.0
    );
    let revision = collected.get("trimtab_client_revision{service=catalog}");
    assert!(revision >= 1.0, "{revision}");

    instances[0].fail(Fault::Errs(Code::Internal));
    let ejected = "trimtab_client_ejected{service=catalog,group=v1}";
    let mut calls_made = 0;
    while collected.get(ejected) == 0.0 {
        get(&catalog, 1).await.unwrap();
        calls_made += 1;
        assert!(calls_made < 100_000, "it is not ejected");
    }
    let failed = "trimtab_client_calls_total{service=catalog,group=v1,outcome=failed}";
    assert!(collected.get(failed) >= 5.0);
    let repeats = "trimtab_client_repeats_total{service=catalog,reason=failed}";
    assert_eq!(collected.get(repeats), collected.get(failed));
    let ejections = "trimtab_client_ejections_total{service=catalog,group=v1,reason=run}";
    assert_eq!(collected.get(ejections), 1.0);
}

#[tokio::test]
async fn calls_are_counted_by_instance_where_that_is_asked_for() {
    let collected = Collected::default();
    // All runs on this thread.
    let _guard = metrics::set_default_local_recorder(&collected);
    let cluster = Cluster::start(1).await;
    let _instances = Instance::registered(&cluster, "v1", 2).await;
    for wanted in [false, true] {
        let client = Client::builder().instance_metrics(wanted);
        let client = client.connect(&cluster.endpoints()).unwrap();
        let catalog = CatalogClient::new(client.service("catalog").await.unwrap());
        for item_id in 0..100 {
            get(&catalog, item_id).await.unwrap();
        }
        let counted =
            collected.sum("trimtab_client_instance_calls_total{service=catalog,group=v1,");
        assert_eq!(counted, if wanted { 100.0 } else { 0.0 });
    }
}

//! Calls go on without a failure while supervised programs are replaced one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_tests::eventually::eventually;

use crate::stage::{SERVICE, Stage, free_address};
use crate::stand_in::StandIn;
use crate::supervisor::Supervisor;

const CALLERS: usize = 4;

/// Programs that are replaced one after another.
const RELEASES: usize = 4;

/// Calls that may not be repeated, one after another by each caller.
struct Traffic {
    answered: Vec<Arc<AtomicU64>>,
    is_over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    async fn begin(endpoints: &str) -> Self {
        let client = Client::connect(endpoints).unwrap();
        let balancer = client.service(SERVICE).await.unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let answered: Vec<Arc<AtomicU64>> = (0..CALLERS).map(|_| Arc::default()).collect();
        let callers = answered.iter().map(|answered| {
            let (answered, is_over) = (Arc::clone(answered), Arc::clone(&is_over));
            tokio::spawn(call(balancer.clone(), answered, is_over))
        });
        Self {
            callers: callers.collect(),
            answered,
            is_over,
        }
    }

    /// Waits until every call that is under way has ended.
    async fn turn_over(&self) {
        let counts = || self.answered.iter().map(|it| it.load(Ordering::SeqCst));
        let before: Vec<u64> = counts().collect();
        let are_over = || counts().zip(&before).all(|(now, before)| now > before + 1);
        eventually("each caller goes on", async || are_over(), |over| *over).await;
    }

    /// What failed.
    async fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for caller in self.callers {
            failures.extend(caller.await.unwrap());
        }
        failures
    }
}

async fn call(
    balancer: Balancer,
    answered: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Vec<String> {
    let mut client = HealthClient::new(balancer);
    let mut failures = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        match client.check(HealthCheckRequest::default()).await {
            Ok(_) => answered.fetch_add(1, Ordering::SeqCst),
            Err(status) => {
                failures.push(status.to_string());
                answered.fetch_add(1, Ordering::SeqCst)
            }
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    failures
}

async fn start(stage: &Stage, id: usize) -> (Supervisor, StandIn) {
    let (id, address) = (format!("i{id}"), free_address());
    let flags = ["--check", "grpc", "--id", &id, "--address", &address];
    let (mut supervisor, mut program) = stage.start(&flags).await;
    program.tell("serve-grpc").await;
    supervisor.event("registered").await;
    (supervisor, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_programs_are_replaced_one_by_one() {
    let stage = Stage::open().await;
    let (mut old, mut old_program) = start(&stage, 0).await;
    let traffic = Traffic::begin(&stage.cluster.endpoints()).await;
    for id in 1..=RELEASES {
        traffic.turn_over().await;
        let (new, new_program) = start(&stage, id).await;
        old.signal(Signal::TERM);
        old_program.until("signal TERM").await;
        // As a server does that answers what it has.
        traffic.turn_over().await;
        old_program.tell("exit 0").await;
        assert_eq!(old.ended().await, 0);
        assert_eq!(old.count("drained"), 1, "{:?}", old.events);
        (old, old_program) = (new, new_program);
    }
    traffic.turn_over().await;
    assert_eq!(traffic.end().await, Vec::<String>::new());
    assert_eq!(stage.instances().await.len(), 1);
}

//! Instances that break the rules of HTTP/2 and gRPC at every moment of an answer: calls end with a status, in time, and survive where they may be repeated.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Code, Request, Status};
use trimtab_client::balancer::Balancer;
use trimtab_client::call::Deadline;
use trimtab_client::client::Client;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};
use trimtab_proto::demo::v1::catalog_client::CatalogClient;
use trimtab_proto::demo::v1::{GetItemRequest, GetItemResponse};

use crate::frames::{
    DATA, END_STREAM, FIRST, frame, head, headers, message, settings, settings_ack, trailers,
};
use crate::instance::Instance;
use crate::peer::{End, Peer, Script, Step};
use crate::process::{PATIENCE, eventually};
use crate::strange::strange;

/// What a call has: an answer that never ends does so after this.
const LIMIT: Duration = Duration::from_millis(300);

/// Cases at once.
const AT_ONCE: usize = 32;

/// Of random damage.
const CASES: u64 = 200;

/// Panics in the client's own code and below it, which tasks keep to
/// themselves.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let file = panic.location().map(|location| location.file());
            if !file.is_some_and(|file| file.contains("tests/")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

pub fn greeting() -> Vec<u8> {
    [settings(&[]), settings_ack()].concat()
}

fn item() -> Vec<u8> {
    let item = GetItemResponse {
        title: "an item".to_owned(),
        group: "v1".to_owned(),
        instance_id: "peer".to_owned(),
    };
    message(&item.encode_to_vec())
}

/// A greeting, a request and its answer, as it should be.
fn steps() -> Vec<Step> {
    let item = item();
    let (begin, end) = item.split_at(item.len() / 2);
    vec![
        Step::Send(greeting()),
        Step::Request,
        Step::Send(head()),
        Step::Send(frame(DATA, 0, FIRST, begin)),
        Step::Send(frame(DATA, 0, FIRST, end)),
        Step::Send(trailers("0")),
    ]
}

/// The same with something strange before one step.
fn with_strange(at: usize) -> impl Iterator<Item = (String, Script)> {
    strange().into_iter().map(move |(name, bytes)| {
        let mut steps = steps();
        steps.insert(at, Step::Send(bytes));
        (format!("{name}, before step {at}"), Script::of(steps))
    })
}

/// Many services of one registry, each with its own instances.
pub struct Cases {
    registry: FakeRegistry,
    client: Client,
}

impl Cases {
    pub async fn start() -> Self {
        count_panics();
        let registry = FakeRegistry::start().await.unwrap();
        let client = Client::connect(&registry.endpoint()).unwrap();
        Self { registry, client }
    }

    /// Of a service that has this peer, and others.
    fn service(&self, peer: &Peer, others: &[&Instance]) -> String {
        let name = format!("on-{}", peer.address().replace(['.', ':'], "-"));
        let mut service = FakeService::new(&name).weight("v1", 10_000);
        service.put(FakeInstance::new("peer", "v1", peer.address()));
        for other in others {
            let address = other.address().to_string();
            service.put(FakeInstance::new(&other.id, "v1", address));
        }
        self.registry.publish(service).unwrap();
        name
    }

    pub async fn balancer(&self, peer: &Peer) -> Balancer {
        let service = self.client.service(self.service(peer, &[]));
        service.first_view_within(PATIENCE).await.unwrap()
    }
}

pub async fn get(balancer: &Balancer) -> Result<String, Status> {
    let mut request = Request::new(GetItemRequest { item_id: 1 });
    request.extensions_mut().insert(Deadline::after(LIMIT));
    let mut catalog = CatalogClient::new(balancer.clone());
    let answer = timeout(PATIENCE, catalog.get_item(request)).await;
    answer
        .expect("no call takes longer than it may")
        .map(|answer| answer.into_inner().instance_id)
}

/// Calls each, and says how many were answered.
async fn each_ends(scripts: impl Iterator<Item = (String, Script)>) -> usize {
    let cases = Arc::new(Cases::start().await);
    let (mut calls, mut answered) = (JoinSet::new(), 0);
    let mut ended = |(name, ended): (String, Result<String, Status>)| match ended {
        Ok(_) => answered += 1,
        Err(status) => {
            assert_ne!(status.code(), Code::Ok, "{name}");
            assert!(!status.message().contains("panic"), "{name}: {status}");
        }
    };
    for (name, script) in scripts {
        let cases = Arc::clone(&cases);
        calls.spawn(async move {
            let peer = Peer::start(script).await;
            let balancer = cases.balancer(&peer).await;
            (name, get(&balancer).await)
        });
        if calls.len() >= AT_ONCE
            && let Some(call) = calls.join_next().await
        {
            ended(call.unwrap());
        }
    }
    while let Some(call) = calls.join_next().await {
        ended(call.unwrap());
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "see above");
    answered
}

#[tokio::test]
async fn a_peer_that_breaks_no_rule_is_answered_by() {
    let good = ("good".to_owned(), Script::of(steps()));
    assert_eq!(each_ends(std::iter::once(good)).await, 1);
}

#[tokio::test]
async fn whatever_comes_before_the_request_calls_end() {
    let answered = each_ends((0..2).flat_map(with_strange)).await;
    assert!(answered > 0, "some of it does no harm");
}

#[tokio::test]
async fn whatever_comes_instead_of_the_answer_calls_end() {
    let answered = each_ends((2..3).flat_map(with_strange)).await;
    assert!(answered > 0, "some of it does no harm");
}

#[tokio::test]
async fn whatever_comes_in_the_midst_of_the_answer_calls_end() {
    let answered = each_ends((3..6).flat_map(with_strange)).await;
    assert!(answered > 0, "some of it does no harm");
}

/// Everywhere, in every way to end.
#[tokio::test]
async fn wherever_an_answer_is_cut_off_calls_end() {
    let whole: usize = steps().iter().map(length).sum();
    let scripts = (0..whole).step_by(2).flat_map(|left| {
        [End::Stays, End::Closes, End::Resets].map(|end| {
            let name = format!("{left} bytes, then {end:?}");
            let script = Script {
                end,
                ..Script::of(cut(left))
            };
            (name, script)
        })
    });
    // A byte before the end is not the end.
    assert_eq!(each_ends(scripts).await, 0);
}

fn length(step: &Step) -> usize {
    match step {
        Step::Send(bytes) => bytes.len(),
        Step::Request | Step::Flood(_) => 0,
    }
}

/// The first bytes of what a peer says, and nothing after.
fn cut(mut left: usize) -> Vec<Step> {
    let mut cut = Vec::new();
    for step in steps() {
        match step {
            Step::Send(mut bytes) => {
                bytes.truncate(left);
                left -= bytes.len();
                cut.push(Step::Send(bytes));
            }
            other => cut.push(other),
        }
        if left == 0 {
            break;
        }
    }
    cut
}

#[tokio::test]
async fn however_an_answer_is_damaged_calls_end() {
    let answered = each_ends((0..CASES).map(damaged)).await;
    assert!(answered > 0, "some damage does no harm");
}

/// Some bytes changed, taken away, put in or said twice.
fn damaged(seed: u64) -> (String, Script) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut steps = steps();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..steps.len());
        let Step::Send(bytes) = &mut steps[at] else {
            continue;
        };
        let from = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[from] ^= 1 << rng.random_range(0..8),
            1 => drop(bytes.remove(from)),
            2 => {
                let noise: Vec<u8> = (0..rng.random_range(1..40)).map(|_| rng.random()).collect();
                bytes.splice(from..from, noise);
            }
            _ => {
                let again = bytes[from..].to_vec();
                bytes.extend(again);
            }
        }
    }
    (format!("damaged by seed {seed}"), Script::of(steps))
}

/// Until the answer begins, a call that may be repeated is answered by another
/// instance.
#[tokio::test]
async fn what_may_be_repeated_is_answered_by_another_instance() {
    let cases = Arc::new(Cases::start().await);
    let well = Arc::new(Instance::start("v1", "well").await);
    let mut calls = JoinSet::new();
    let mut failed = Vec::new();
    let scripts = (0..3).flat_map(with_strange);
    for (name, script) in scripts.filter(|(name, _)| !is_an_answer(name)) {
        let (cases, well) = (Arc::clone(&cases), Arc::clone(&well));
        calls.spawn(async move {
            let peer = Peer::start(script).await;
            let service = cases.client.service(cases.service(&peer, &[&well]));
            let service = service.idempotent(true).timeout(PATIENCE);
            let service = service.attempt_timeout(LIMIT / 3);
            let balancer = service.first_view_within(PATIENCE).await.unwrap();
            let mut catalog = CatalogClient::new(balancer);
            for _ in 0..20 {
                let request = GetItemRequest { item_id: 1 };
                if let Err(status) = catalog.get_item(request).await {
                    return Some(format!("{name}: {status}"));
                }
                if peer.requests() > 0 {
                    break;
                }
            }
            None
        });
        if calls.len() >= AT_ONCE
            && let Some(call) = calls.join_next().await
        {
            failed.extend(call.unwrap());
        }
    }
    while let Some(call) = calls.join_next().await {
        failed.extend(call.unwrap());
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "see above");
}

/// No fault in how it is said: what it says is for the caller.
fn is_an_answer(name: &str) -> bool {
    let answers = [
        "a head that ends all",
        "trailers with a status of HTTP",
        "an answer of nobody",
        "packed with what nobody has",
    ];
    let at_its_place = name.ends_with("before step 2");
    at_its_place && answers.iter().any(|answer| name.starts_with(answer))
}

/// Of all that tonic takes from a peer, the one thing it panics over.
#[tokio::test]
async fn a_registry_with_details_that_cannot_be_read_is_asked_again() {
    count_panics();
    let ok = [(":status", "200"), ("content-type", "application/grpc")];
    let unreadable = [("grpc-status", "14"), ("grpc-status-details-bin", "!!")];
    let only_head = headers(END_STREAM, &[ok, unreadable].concat());
    let at_the_end = [headers(0, &ok), headers(END_STREAM, &unreadable)].concat();
    for answer in [only_head, at_the_end] {
        let script = Script {
            end: End::Closes,
            ..Script::of(vec![
                Step::Send(greeting()),
                Step::Request,
                Step::Send(answer),
            ])
        };
        let registry = Peer::start(script).await;
        let client = Client::connect(&registry.address()).unwrap();
        let service = client.service("catalog").first_view_within(Duration::ZERO);
        let _balancer = service.await.unwrap();
        eventually("it is asked again", || registry.requests() >= 3).await;
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "see above");
}

//! What a registry that fails, hangs or lies does to an instance: never more than it must.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trimtab_client::client::Client;
use trimtab_client::error::Error;
use trimtab_client::registration::{Registration as Registered, RegistrationBuilder};
use trimtab_proto::v1 as wire;
use wire::registration_server::{Registration, RegistrationServer};

use crate::process::{Process, eventually};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What it does wrong, and what it heard.
struct Liar {
    /// The lease that it grants next.
    next_lease: AtomicU64,
    held: Mutex<BTreeSet<u64>>,
    registered: Mutex<Vec<Instant>>,
    streams: Mutex<Vec<Instant>>,
    renewed: Mutex<Vec<u64>>,
    /// Whether every lease is lost as soon as it is renewed.
    loses_all: AtomicBool,
    /// Whether it ends every stream after its first answer.
    hangs_up: AtomicBool,
    /// A lease it says is to leave, whatever is renewed.
    retires: AtomicU64,
    /// Requests that it may answer.
    registers: Semaphore,
    deregisters: Semaphore,
}

impl Liar {
    async fn start() -> (Arc<Self>, Process) {
        let liar = Arc::new(Self {
            next_lease: AtomicU64::new(1),
            held: Mutex::default(),
            registered: Mutex::default(),
            streams: Mutex::default(),
            renewed: Mutex::default(),
            loses_all: AtomicBool::new(false),
            hangs_up: AtomicBool::new(false),
            retires: AtomicU64::new(0),
            registers: Semaphore::new(Semaphore::MAX_PERMITS),
            deregisters: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let service = Service(Arc::clone(&liar));
        let process = Process::start(None, |incoming| {
            tonic::transport::Server::builder()
                .add_service(RegistrationServer::new(service))
                .serve_with_incoming(incoming)
        });
        (liar, process.await)
    }

    fn registrations(&self) -> usize {
        self.registered.lock().unwrap().len()
    }

    /// Waits until a lease is renewed again and again.
    async fn renews(&self, lease: u64) {
        self.renewed.lock().unwrap().clear();
        let renewed = || {
            self.renewed
                .lock()
                .unwrap()
                .iter()
                .filter(|it| **it == lease)
                .count()
        };
        eventually("the lease is renewed", || renewed() >= 5).await;
    }
}

struct Service(Arc<Liar>);

#[tonic::async_trait]
impl Registration for Service {
    async fn register(
        &self,
        _: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        self.0.registered.lock().unwrap().push(Instant::now());
        self.0.registers.acquire().await.unwrap().forget();
        let lease = self.0.next_lease.fetch_add(1, Ordering::SeqCst);
        self.0.held.lock().unwrap().insert(lease);
        Ok(Response::new(wire::RegisterResponse {
            revision: lease,
            lease,
            ttl: Some(Duration::from_millis(60).try_into().unwrap()),
            renew_interval: Some(Duration::from_millis(20).try_into().unwrap()),
        }))
    }

    type RenewStream = Answers<wire::RenewResponse>;

    async fn register_many(
        &self,
        _: Request<wire::RegisterManyRequest>,
    ) -> Result<Response<wire::RegisterManyResponse>, Status> {
        Err(Status::unimplemented("not for this test"))
    }

    async fn renew(
        &self,
        request: Request<Streaming<wire::RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        self.0.streams.lock().unwrap().push(Instant::now());
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let liar = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let mut answer = wire::RenewResponse::default();
                for lease in request.leases {
                    liar.renewed.lock().unwrap().push(lease.lease);
                    let retires = liar.retires.load(Ordering::SeqCst);
                    if retires > 0 {
                        let lease = wire::LeaseRef {
                            lease: retires,
                            ..lease.clone()
                        };
                        answer.retire.push(lease);
                    }
                    let is_held = liar.held.lock().unwrap().contains(&lease.lease);
                    if !is_held || liar.loses_all.load(Ordering::SeqCst) {
                        answer.lost.push(lease);
                    }
                }
                let sent = sender.send(Ok(answer)).await;
                if sent.is_err() || liar.hangs_up.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn set_status(
        &self,
        _: Request<wire::SetStatusRequest>,
    ) -> Result<Response<wire::SetStatusResponse>, Status> {
        Ok(Response::new(wire::SetStatusResponse { revision: 1 }))
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        self.0.deregisters.acquire().await.unwrap().forget();
        let lease = request.into_inner().lease.unwrap_or_default().lease;
        self.0.held.lock().unwrap().remove(&lease);
        Ok(Response::new(wire::DeregisterResponse { revision: 1 }))
    }
}

fn instance(process: &Process) -> RegistrationBuilder {
    let client = Client::connect(&process.address().to_string()).unwrap();
    client.register("catalog", "v1", "127.0.0.1:8080").id("a")
}

async fn start(process: &Process) -> Registered {
    instance(process).start().await.unwrap()
}

#[tokio::test]
async fn a_registry_that_loses_every_lease_is_not_stormed() {
    let (liar, process) = Liar::start().await;
    liar.loses_all.store(true, Ordering::SeqCst);
    let _registration = start(&process).await;
    eventually("it registers again and again", || liar.registrations() >= 6).await;
    let registered = liar.registered.lock().unwrap();
    let took = registered[5] - registered[0];
    // At least the lower halves of 100, 200, 400, 800 and 1,600 ms.
    assert!(took >= Duration::from_millis(1_550), "{took:?}");
}

#[tokio::test]
async fn a_registry_that_hangs_up_after_every_answer_is_not_stormed() {
    let (liar, process) = Liar::start().await;
    liar.hangs_up.store(true, Ordering::SeqCst);
    let _registration = start(&process).await;
    eventually("it asks again and again", || {
        liar.streams.lock().unwrap().len() >= 6
    })
    .await;
    let streams = liar.streams.lock().unwrap();
    let took = streams[5] - streams[0];
    // At least the lower halves of 50, 100, 200, 400 and 800 ms.
    assert!(took >= Duration::from_millis(775), "{took:?}");
}

#[tokio::test]
async fn a_lease_without_a_number_is_none() {
    let (liar, process) = Liar::start().await;
    liar.next_lease.store(0, Ordering::SeqCst);
    let started = instance(&process).start().await;
    assert!(matches!(started, Err(Error::Malformed(_))), "{started:?}");
}

#[tokio::test]
async fn only_the_lease_that_is_held_can_be_told_to_leave() {
    let (liar, process) = Liar::start().await;
    liar.retires.store(7, Ordering::SeqCst);
    let registration = start(&process).await;
    let often = || liar.renewed.lock().unwrap().len() >= 3;
    eventually("it hears that lease 7 is to leave", often).await;
    assert!(!registration.is_retired());
    liar.retires.store(1, Ordering::SeqCst);
    registration.retired().await;
}

#[tokio::test]
async fn a_slow_goodbye_takes_nothing_from_who_comes_next() {
    let (liar, process) = Liar::start().await;
    let next = instance(&process);
    let first = next.clone().start().await.unwrap();
    liar.renews(1).await;
    let patience = liar.deregisters.available_permits();
    liar.deregisters.forget_permits(patience);
    let leaving = tokio::spawn(first.deregister());
    // It is given back here before the registry has heard of it.
    let second = async {
        loop {
            match next.clone().start().await {
                Ok(second) => break second,
                Err(Error::Invalid(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let _second = second.await;
    liar.deregisters.add_permits(1);
    leaving.await.unwrap().unwrap();
    liar.renews(2).await;
}

/// The lease is lost, the registry is slow to grant a new one, and just then
/// the instance is to leave.
async fn leaves_while_it_registers<F, Fut>(leave: F)
where
    F: FnOnce(Registered) -> Fut,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (liar, process) = Liar::start().await;
    let registration = start(&process).await;
    liar.renews(1).await;
    let patience = liar.registers.available_permits();
    liar.registers.forget_permits(patience);
    liar.held.lock().unwrap().clear();
    eventually("it registers anew", || liar.registrations() == 2).await;
    let leaving = tokio::spawn(leave(registration));
    // Whatever it does without the answer, it has done by then.
    let soon = tokio::time::sleep(Duration::from_millis(100));
    soon.await;
    liar.registers.add_permits(10);
    leaving.await.unwrap().unwrap();
    eventually("the late lease is given back", || {
        liar.next_lease.load(Ordering::SeqCst) == 3 && liar.held.lock().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn who_drains_while_it_registers_is_gone_afterwards() {
    leaves_while_it_registers(|registration| async {
        let drained = registration.drain(Duration::from_millis(200)).await;
        drained.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn who_deregisters_while_it_registers_is_gone_afterwards() {
    leaves_while_it_registers(Registered::deregister).await;
}

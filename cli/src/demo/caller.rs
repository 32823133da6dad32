//! `trimtab demo-caller`: a process that calls the demo's service at a steady
//! rate and counts what becomes of each call.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use clap::Args;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use trimtab_client::balancer::Balancer;
use trimtab_client::call::PickInfo;
use trimtab_client::client::Client;
use trimtab_client::response_body::ResponseBody;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

use crate::arguments::GlobalArgs;
use crate::demo::count::{CallerLine, Counter, Ending, FINISH};
use crate::demo::instance::RELEASE_HEADER;
use crate::failure::{Exit, Failure};
use crate::signals::stdin_lines;

/// Calls are begun in little bursts, this far apart.
const BURST_INTERVAL: Duration = Duration::from_millis(2);

/// How often the director is told.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Calls under way at once: at the rates of the demo, those of seconds in
/// which nobody answers. More have to wait.
const IN_FLIGHT_MAX: usize = 2_048;

#[derive(Debug, Args)]
pub(crate) struct CallerArgs {
    /// The service to call
    service: String,

    /// What operators see it as
    #[arg(long)]
    name: String,

    /// Calls a second
    #[arg(long)]
    rate: u32,
}

/// Where the balancer's choice for one call is noted: an answer that is an
/// error would lose it on its way through the generated client.
#[derive(Debug, Clone, Default)]
struct Note(Arc<OnceLock<PickInfo>>);

/// A balancer that notes its choices.
#[derive(Debug, Clone)]
struct Noting(Balancer);

/// What the calls have in common.
#[derive(Debug, Clone)]
struct Load {
    client: CatalogClient<Noting>,
    counter: Arc<Mutex<Counter>>,
    slots: Arc<Semaphore>,
}

pub(crate) async fn run(args: &CallerArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let mut stdin = stdin_lines();
    let client = Client::builder()
        .name(&args.name)
        .connect(&global.endpoints)?;
    let balancer = client.service(&args.service).await?;
    let load = Load {
        client: CatalogClient::new(Noting(balancer)),
        counter: Arc::default(),
        slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
    };
    call_steadily(&load, args.rate, &mut stdin).await?;
    // All slots are free when the last call has ended.
    let slots = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
    let ended = load.slots.acquire_many(slots).await;
    let _all = ended.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    say(&load.counter().finish())
}

/// Calls until told to finish.
async fn call_steadily(
    load: &Load,
    rate: u32,
    stdin: &mut mpsc::Receiver<String>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut bursts = interval(BURST_INTERVAL);
    bursts.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut reports = interval(REPORT_INTERVAL);
    let mut begun = 0_u64;
    loop {
        tokio::select! {
            _ = bursts.tick() => {
                let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                while begun < due {
                    let Ok(slot) = Arc::clone(&load.slots).try_acquire_owned() else { break };
                    begun += 1;
                    tokio::spawn(load.clone().call(begun, slot));
                }
            }
            _ = reports.tick() => say(&load.counter().progress())?,
            line = stdin.recv() => match line {
                Some(line) if line == FINISH.trim_end() => return Ok(()),
                Some(_) => {}
                None => return Err(Failure::new(Exit::Failed, "the demo is gone")),
            },
        }
    }
}

/// Lines are short and few: a thread for them would be more work.
fn say(line: &CallerLine) -> Result<(), Failure> {
    let json = serde_json::to_string(line)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{json}")?;
    Ok(stdout.flush()?)
}

// === impl Load ===

impl Load {
    async fn call(mut self, item_id: u64, _slot: OwnedSemaphorePermit) {
        let note = Note::default();
        let mut request = tonic::Request::new(GetItemRequest { item_id });
        request.extensions_mut().insert(note.clone());
        let started = Instant::now();
        let answer = self.client.get_item(request).await;
        let latency_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let pick = note
            .0
            .get()
            .map(|pick| (pick.revision, pick.group.to_string()));
        let ending = match answer {
            Ok(_) => Ending::Answered,
            Err(status) => ending(&status, pick.as_ref().map(|(_, group)| group)),
        };
        self.counter().count(pick, ending, latency_us);
    }

    fn counter(&self) -> std::sync::MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error is the instance's own only where the instance itself put its
/// release's name to it.
fn ending(status: &Status, picked: Option<&String>) -> Ending {
    let signed = status
        .metadata()
        .get(RELEASE_HEADER)
        .and_then(|release| release.to_str().ok());
    if signed.is_some() && signed == picked.map(String::as_str) {
        Ending::OwnError
    } else {
        Ending::Lost(format!("{:?}: {}", status.code(), status.message()))
    }
}

// === impl Noting ===

impl Service<Request<Body>> for Noting {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let note = request.extensions().get::<Note>().cloned();
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let pick = response.extensions().get::<PickInfo>();
            if let (Some(note), Some(pick)) = (note, pick) {
                // A call is noted once.
                let _ = note.0.set(pick.clone());
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_instances_own_only_when_it_signed_it() {
        let picked = "v3".to_owned();
        let mut signed = Status::internal("the shelf is empty");
        signed
            .metadata_mut()
            .insert(RELEASE_HEADER, "v3".parse().unwrap());
        assert_eq!(ending(&signed, Some(&picked)), Ending::OwnError);
        assert!(matches!(ending(&signed, None), Ending::Lost(_)));
        let broken = Status::unavailable("connection reset");
        let Ending::Lost(reason) = ending(&broken, Some(&picked)) else {
            panic!("not lost");
        };
        assert_eq!(reason, "Unavailable: connection reset");
    }
}

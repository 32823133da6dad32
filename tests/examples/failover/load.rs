//! Who writes, reads and watches while the leader is killed.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use trimtab_client::cluster::Cluster;
use trimtab_client::operator::Operator;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{Hello, Receipt, Subscribe, WatchRequest};

use crate::figures::Seen;
use crate::registry::{GROUPS, Registry, SERVICE};

/// Between the end of one write or read and the next.
const PAUSE: Duration = Duration::from_millis(2);

/// Shares change by so little that a new one is always another.
const SHARES: u32 = 9_000;

/// What happened, with times.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// By writer: begun, acknowledged, revision.
    pub(crate) writes: Vec<(usize, Instant, Instant, u64)>,
    /// By replica: when it answered.
    pub(crate) reads: BTreeMap<u64, Vec<Instant>>,
    pub(crate) reads_failed: u32,
    /// By replica: when it showed which revision.
    pub(crate) shown: BTreeMap<u64, Vec<(Instant, u64)>>,
    pub(crate) watches_broken: u32,
}

type Shared = Arc<Mutex<Story>>;

/// A writer for each replica to begin with, and for each replica but the
/// leader a reader and a watcher, which ask nobody else.
pub(crate) struct Load {
    story: Shared,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(registry: &Registry, leader: u64) -> Result<Self, Box<dyn Error>> {
        let story = Shared::default();
        let mut tasks = JoinSet::new();
        for (writer, id) in registry.ids().into_iter().enumerate() {
            let operator = Operator::new(Cluster::parse(&registry.endpoints_from(id))?);
            tasks.spawn(write(writer, operator, Arc::clone(&story)));
        }
        for id in registry.ids().into_iter().filter(|id| *id != leader) {
            let operator = Operator::new(Cluster::parse(registry.address(id))?);
            tasks.spawn(read(id, operator, Arc::clone(&story)));
            let channel = Endpoint::from_shared(format!("http://{}", registry.address(id)))?;
            let discovery = DiscoveryClient::new(channel.connect_lazy());
            let story = Arc::clone(&story);
            tasks.spawn(async move {
                // It ends when something is wrong.
                let _ = watch(id, discovery, &story).await;
                locked(&story).watches_broken += 1;
            });
        }
        Ok(Self { story, tasks })
    }

    pub(crate) async fn stop(mut self, killed: Instant) -> Seen {
        self.tasks.shutdown().await;
        Seen::of(&locked(&self.story), killed)
    }
}

fn locked(story: &Shared) -> MutexGuard<'_, Story> {
    story.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(writer: usize, operator: Operator, story: Shared) {
    let options = ChangeOptions {
        actor: format!("writer {writer}"),
        force: true,
        ..ChangeOptions::default()
    };
    for turn in 0.. {
        let share = 1 + (turn * 3 + writer as u32) % SHARES;
        let weights = [
            (GROUPS[0].to_owned(), share),
            (GROUPS[1].to_owned(), 10_000 - share),
        ];
        let shift = ServiceShift::new(SERVICE, ShiftTarget::Weights(weights.into()));
        let begun = Instant::now();
        if let Ok(outcome) = operator.shift(&[shift], &options).await {
            let acknowledged = (writer, begun, Instant::now(), outcome.revision);
            locked(&story).writes.push(acknowledged);
        }
        sleep(PAUSE).await;
    }
}

async fn read(id: u64, operator: Operator, story: Shared) {
    loop {
        match operator.resolve(SERVICE, false).await {
            Ok(_) => locked(&story)
                .reads
                .entry(id)
                .or_default()
                .push(Instant::now()),
            Err(_) => locked(&story).reads_failed += 1,
        }
        sleep(PAUSE).await;
    }
}

async fn watch(
    id: u64,
    mut discovery: DiscoveryClient<tonic::transport::Channel>,
    story: &Shared,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (sender, receiver) = mpsc::channel(64);
    let ask = |kind| WatchRequest { kind: Some(kind) };
    let hello = Hello {
        watcher_id: format!("watcher-{id}"),
        ..Hello::default()
    };
    let subscribe = Subscribe {
        service: SERVICE.to_owned(),
        ..Subscribe::default()
    };
    sender.send(ask(Ask::Hello(hello))).await?;
    sender.send(ask(Ask::Subscribe(subscribe))).await?;
    let mut answers = discovery
        .watch(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    while let Some(answer) = answers.message().await? {
        if let Some(Answer::View(view)) = answer.kind {
            let revision = view.revision;
            locked(story)
                .shown
                .entry(id)
                .or_default()
                .push((Instant::now(), revision));
            let service = SERVICE.to_owned();
            sender
                .send(ask(Ask::Receipt(Receipt { service, revision })))
                .await?;
        }
    }
    Ok(())
}

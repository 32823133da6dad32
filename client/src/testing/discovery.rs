//! `trimtab.v1.Discovery` of a fake registry.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trimtab_proto::v1 as wire;
use wire::discovery_server::Discovery;
use wire::watch_request::Kind as Ask;
use wire::watch_response::Kind as Answer;

use crate::testing::fake_service::FakeService;
use crate::testing::state::Shared;

/// Answers that wait for the transport; a watcher that reads nothing more
/// holds up nobody but itself.
const UNSENT_MAX: usize = 64;

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub(super) struct FakeDiscovery(pub(super) Arc<Shared>);

/// One watch stream.
struct Session {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Result<wire::WatchResponse, Status>>,
    stream: Option<u64>,
    /// What was answered last of each service.
    said: BTreeMap<String, u64>,
}

#[tonic::async_trait]
impl Discovery for FakeDiscovery {
    type WatchStream = Answers<wire::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(UNSENT_MAX);
        let session = Session {
            shared: Arc::clone(&self.0),
            sender,
            stream: None,
            said: BTreeMap::new(),
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveResponse>, Status> {
        let service = request.into_inner().service;
        let state = self.0.state();
        let found = state.service(&service).map(FakeService::update);
        let update = found
            .ok_or_else(|| Status::not_found(format!("service {service} is not registered")))?;
        Ok(Response::new(wire::ResolveResponse {
            result: Some(wire::resolve_response::Result::View(update)),
            possibly_stale: false,
        }))
    }

    async fn list_services(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        let after = request.into_inner().after;
        let state = self.0.state();
        let services = state.services().filter(|it| *it.name() > *after);
        let services = services.map(|it| wire::ServiceSummary {
            service: it.name().to_owned(),
            revision: it.revision(),
            instances: it.instances().count() as u32,
            ..wire::ServiceSummary::default()
        });
        Ok(Response::new(wire::ListServicesResponse {
            services: services.collect(),
            more: false,
            possibly_stale: false,
        }))
    }
}

impl Session {
    /// Ends with the stream, either way.
    async fn run(mut self, mut asks: Streaming<wire::WatchRequest>) {
        let mut published = self.shared.published.subscribe();
        loop {
            let goes_on = tokio::select! {
                () = self.sender.closed() => false,
                ask = asks.message() => match ask {
                    Ok(Some(wire::WatchRequest { kind: Some(ask) })) => self.hear(ask).await,
                    Ok(Some(_)) => true,
                    Ok(None) | Err(_) => false,
                },
                changed = published.changed() => changed.is_ok() && self.tell_news().await,
            };
            if !goes_on {
                break;
            }
        }
        if let Some(stream) = self.stream {
            self.shared.tell(|state| state.left(stream));
        }
    }

    async fn hear(&mut self, ask: Ask) -> bool {
        let Some(stream) = self.stream else {
            let Ask::Hello(hello) = ask else {
                let status = Status::invalid_argument("the first message must be hello");
                let _ = self.sender.send(Err(status)).await;
                return false;
            };
            let (stream, welcome) = self.shared.tell(|state| state.welcome(hello));
            self.stream = Some(stream);
            return self.say(Answer::Welcome(welcome)).await;
        };
        let shared = Arc::clone(&self.shared);
        match ask {
            Ask::Subscribe(known) => {
                let answer = shared.tell(|state| {
                    state.subscribed(stream, &known.service);
                    state.answer(&known.service)
                });
                self.said.insert(known.service.clone(), revision(&answer));
                let is_held = matches!(&answer, Answer::View(view)
                    if view.revision == known.known_revision
                        && view.checksum == known.known_checksum);
                let answer = match is_held {
                    true => Answer::Unchanged(wire::Unchanged {
                        service: known.service,
                        revision: known.known_revision,
                    }),
                    false => answer,
                };
                return self.say(answer).await;
            }
            Ask::Unsubscribe(gone) => {
                self.said.remove(&gone.service);
                shared.tell(|state| state.unsubscribed(stream, &gone.service));
            }
            Ask::Receipt(receipt) => shared.tell(|state| state.confirmed(stream, &receipt)),
            Ask::LoadReports(reports) => shared.tell(|state| state.reported(reports)),
            Ask::Hello(_) => return false,
        }
        true
    }

    async fn tell_news(&mut self) -> bool {
        let services: Vec<String> = self.said.keys().cloned().collect();
        for service in services {
            let answer = self.shared.state().answer(&service);
            let newest = revision(&answer);
            if self.said.insert(service, newest) != Some(newest) && !self.say(answer).await {
                return false;
            }
        }
        true
    }

    async fn say(&self, kind: Answer) -> bool {
        let response = wire::WatchResponse {
            kind: Some(kind),
            possibly_stale: false,
        };
        self.sender.send(Ok(response)).await.is_ok()
    }
}

/// Of a view; 0 for a service that is not there, which is said once.
fn revision(answer: &Answer) -> u64 {
    match answer {
        Answer::View(view) => view.revision,
        _ => 0,
    }
}

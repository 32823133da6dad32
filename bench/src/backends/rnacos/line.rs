//! One connection as a Nacos 2 client has it: calls one way, and a stream on which the server pushes.

use bytes::Bytes;
use http::uri::PathAndQuery;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::proto::{Body, Metadata, Payload};
use crate::failure::Failure;
use crate::wire::ANSWER_BYTES_MAX;

/// Answers to pushes that may wait.
const ANSWERS_WAITING_MAX: usize = 16;
/// Weights up to here are whole numbers that a 32-bit float, which servers keep them as, holds exactly.
const WEIGHT_MAX: u64 = 10_000;

type Codec = ProstCodec<Payload, Payload>;

/// A connection with its stream of pushes.
#[derive(Debug)]
pub(super) struct Line {
    grpc: Grpc<Channel>,
    /// The newest change that was pushed.
    pub(super) pushed: watch::Receiver<u64>,
    reader: JoinHandle<()>,
}

/// What a push says, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Push {
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    service_info: Option<ServiceInfo>,
}

/// A service, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct ServiceInfo {
    #[serde(default)]
    pub(super) hosts: Vec<Host>,
}

/// An instance, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Host {
    #[serde(default)]
    weight: f64,
}

/// The weight that tells of a change; 1, which nobody changed, of none.
pub(super) fn weight_of(change: u64) -> f64 {
    (change % WEIGHT_MAX) as f64 + 1.0
}

impl ServiceInfo {
    /// The newest change among its instances.
    fn change(&self) -> u64 {
        let heaviest = self.hosts.iter().map(|host| host.weight).reduce(f64::max);
        // Whole numbers, and small.
        heaviest.map_or(0, |weight| (weight - 1.0).max(0.0).round() as u64)
    }
}

fn payload(kind: &str, body: String) -> Payload {
    Payload {
        metadata: Some(Metadata {
            r#type: kind.to_owned(),
            ..Metadata::default()
        }),
        body: Some(Body {
            value: Bytes::from(body),
        }),
    }
}

fn kind(payload: &Payload) -> &str {
    let metadata = payload.metadata.as_ref();
    metadata.map_or("", |metadata| metadata.r#type.as_str())
}

fn body(payload: &Payload) -> &[u8] {
    payload.body.as_ref().map_or(&[], |body| &body.value)
}

impl Line {
    /// Introduces itself as clients do; without that the server answers no call on this connection. A slow one never
    /// takes in what is pushed.
    pub(super) async fn open(channel: Channel, is_slow: bool) -> Result<Self, Failure> {
        let failed = || Failure::call("opening a connection");
        let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let (answer, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let setup = r#"{"clientVersion":"Nacos-Rust-Client:v0.3","tenant":"public","labels":{},"headers":{}}"#;
        let sent = answer.send(payload("ConnectionSetupRequest", setup.to_owned()));
        sent.await
            .map_err(|_| Failure::Wrong("a connection did not open".to_owned()))?;
        grpc.ready().await.map_err(unready).map_err(failed())?;
        let path = PathAndQuery::from_static("/BiRequestStream/requestBiStream");
        let request = Request::new(ReceiverStream::new(answers));
        let pushes = grpc.streaming(request, path, Codec::default()).await;
        let pushes: Streaming<Payload> = pushes.map_err(failed())?.into_inner();
        let (newest, pushed) = watch::channel(0);
        let reader = match is_slow {
            true => tokio::spawn(hold((pushes, answer, newest))),
            false => tokio::spawn(read(pushes, answer, newest)),
        };
        Ok(Self {
            grpc,
            pushed,
            reader,
        })
    }

    /// One call; what the server answers, unless that is an error.
    pub(super) async fn call(&self, name: &'static str, json: String) -> Result<Bytes, Failure> {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(unready)
            .map_err(Failure::call(name))?;
        let path = PathAndQuery::from_static("/Request/request");
        let request = Request::new(payload(name, json));
        let answer = grpc.unary(request, path, Codec::default()).await;
        let answer: Payload = answer.map_err(Failure::call(name))?.into_inner();
        if kind(&answer) == "ErrorResponse" {
            let said = String::from_utf8_lossy(body(&answer)).into_owned();
            return Err(Failure::Wrong(format!("{name}: {said}")));
        }
        Ok(answer.body.map(|body| body.value).unwrap_or_default())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn unready(error: tonic::transport::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Keeps a stream open, and does not look at it.
async fn hold<T>(_stream: T) {
    std::future::pending().await
}

/// Takes pushes in and answers them, until the server ends the stream.
async fn read(
    mut pushes: Streaming<Payload>,
    answer: mpsc::Sender<Payload>,
    newest: watch::Sender<u64>,
) {
    while let Ok(Some(push)) = pushes.message().await {
        let answered = match kind(&push) {
            "NotifySubscriberRequest" => "NotifySubscriberResponse",
            "ClientDetectionRequest" => "ClientDetectionResponse",
            "ConnectResetRequest" => "ConnectResetResponse",
            _ => continue,
        };
        let Ok(said) = serde_json::from_slice::<Push>(body(&push)) else {
            continue;
        };
        let response = serde_json::json!({
            "resultCode": 200,
            "errorCode": 0,
            "requestId": said.request_id,
        });
        if answer
            .send(payload(answered, response.to_string()))
            .await
            .is_err()
        {
            return;
        }
        if let Some(service) = said.service_info {
            newest.send_replace(service.change());
        }
    }
}

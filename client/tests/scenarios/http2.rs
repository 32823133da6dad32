//! What calls make of HTTP/2: instances here speak it frame by frame, and break its rules where a test says so.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tower::ServiceExt;
use trimtab_client::balancer::Balancer;
use trimtab_client::client::Client;
use trimtab_client::response_body::ResponseBody;
use trimtab_client::testing::{FakeInstance, FakeRegistry, FakeService};

use crate::process::{PATIENCE, eventually};

/// Gives each connection, and how many there were before, to `serve`.
async fn listen<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    address
}

/// Answers each request of a connection by a task of its own.
async fn answer<F>(
    stream: TcpStream,
    at_once: u32,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_concurrent_streams(at_once);
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

fn say(mut respond: SendResponse<Bytes>, what: &'static str) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(what.as_bytes()), true)
        .unwrap();
}

async fn balancer_over(instances: &[SocketAddr]) -> (FakeRegistry, Balancer) {
    let registry = FakeRegistry::start().await.unwrap();
    let service = FakeService::new("catalog").weight("v1", 10_000);
    let service = instances.iter().fold(service, |service, address| {
        service.instance(FakeInstance::new(
            address.to_string(),
            "v1",
            address.to_string(),
        ))
    });
    registry.publish(service).unwrap();
    let client = Client::connect(&registry.endpoint()).unwrap();
    let balancer = client.service("catalog").await.unwrap();
    (registry, balancer)
}

fn post(body: Body) -> Request<Body> {
    Request::post("/items").body(body).unwrap()
}

async fn call(balancer: &Balancer, request: Request<Body>) -> Response<ResponseBody> {
    let called = balancer.clone().oneshot(request);
    timeout(PATIENCE, called).await.unwrap().unwrap()
}

async fn text(response: Response<ResponseBody>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect())
        .await
        .unwrap();
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

/// Takes requests until the first comes, and says then that it did nothing
/// about any of them.
async fn refuse(mut stream: TcpStream) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    stream.write_all(&SETTINGS).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    stream.write_all(&GO_AWAY).await.unwrap();
    // Whoever says so stays until the other side has gone.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn what_an_instance_did_nothing_about_is_sent_to_another() {
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    let leaving = listen(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        refuse(stream)
    });
    let staying =
        listen(|_, stream| answer(stream, 100, |_, respond| async { say(respond, "here") }));
    let (_registry, balancer) = balancer_over(&[leaving.await, staying.await]).await;
    // None of these may be repeated, had it been seen.
    for _ in 0..50 {
        let response = call(&balancer, post(Body::empty())).await;
        assert_eq!(text(response).await, "here");
    }
    assert!(refused.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn calls_wait_while_an_instance_takes_no_more_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let instance = listen(move |_, stream| {
        let counts = counts.clone();
        answer(stream, 2, move |_, respond| {
            let (now, most) = counts.clone();
            async move {
                let others = now.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(others + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                say(respond, "done");
            }
        })
    });
    let (_registry, balancer) = balancer_over(&[instance.await]).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let balancer = balancer.clone();
        calls.spawn(async move {
            let body = Body::new(Full::new(Bytes::from_static(b"an item")));
            text(call(&balancer, post(body)).await).await
        });
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|answer| answer == "done"), "{answers:?}");
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_that_still_waited_when_its_connection_broke_is_sent_elsewhere() {
    let all_wait = Arc::new(Notify::new());
    let told = Arc::clone(&all_wait);
    // Takes one at a time, and never answers; whoever comes back is answered.
    let instance = listen(move |number, stream| {
        let told = Arc::clone(&told);
        async move {
            if number > 0 {
                return answer(stream, 100, |_, respond| async { say(respond, "again") }).await;
            }
            let mut builder = Builder::new();
            builder.max_concurrent_streams(1);
            let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            let first = connection.accept().await;
            tokio::select! {
                _ = connection.accept() => panic!("one at a time"),
                () = told.notified() => {}
            }
            drop(first);
        }
    });
    let (_registry, balancer) = balancer_over(&[instance.await]).await;
    let ask = |balancer: &Balancer| tokio::spawn(balancer.clone().oneshot(post(Body::empty())));
    let asked = [ask(&balancer), ask(&balancer), ask(&balancer)];
    // What is queued behind the first shows in nothing that is sent.
    eventually("all are under way", || {
        balancer.explain().groups[0].instances[0].in_flight == 3
    })
    .await;
    all_wait.notify_one();
    let mut answers = Vec::new();
    for asked in asked {
        match timeout(PATIENCE, asked).await.unwrap().unwrap() {
            Ok(response) => answers.push(text(response).await),
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable),
        }
    }
    // One was seen. The next was in the connection's own hands: it cannot tell
    // any more. The last was not.
    assert_eq!(answers, ["again"]);
}

#[tokio::test]
async fn what_http1_says_of_connections_is_not_passed_on() {
    let (tell, mut told) = mpsc::channel::<HeaderMap>(1);
    let instance = listen(move |_, stream| {
        let tell = tell.clone();
        answer(stream, 100, move |request, respond| {
            let tell = tell.clone();
            async move {
                tell.send(request.headers().clone()).await.unwrap();
                say(respond, "fine");
            }
        })
    });
    let (_registry, balancer) = balancer_over(&[instance.await]).await;
    let mut request = post(Body::empty());
    for (name, value) in [
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("x-end", "2"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answered = text(call(&balancer, request).await).await;
    assert_eq!(answered, "fine");
    let headers = told.recv().await.unwrap();
    let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "user-agent", "x-end"]);
}

/// Sends back what it gets, as it gets it.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut from = request.into_body();
    let mut to = respond.send_response(Response::new(()), false).unwrap();
    while let Some(data) = from.data().await {
        let Ok(data) = data else { return };
        from.flow_control().release_capacity(data.len()).unwrap();
        to.send_data(data, false).unwrap();
    }
    let trailers = from.trailers().await.unwrap().unwrap_or_default();
    to.send_trailers(trailers).unwrap();
}

type Parts = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

fn by_parts() -> (Parts, Body) {
    let (parts, body) = mpsc::channel(1);
    (
        parts,
        Body::new(StreamBody::new(ReceiverStream::new(body)).map_err(|never| match never {})),
    )
}

async fn part(body: &mut ResponseBody) -> Option<Frame<Bytes>> {
    timeout(PATIENCE, body.frame())
        .await
        .unwrap()
        .transpose()
        .unwrap()
}

#[tokio::test]
async fn a_request_is_streamed_while_its_answer_is() {
    let instance = listen(|_, stream| answer(stream, 100, echo));
    let (_registry, balancer) = balancer_over(&[instance.await]).await;
    let (parts, body) = by_parts();
    let mut answer = call(&balancer, post(body)).await.into_body();
    // More than any window.
    const PART: &[u8] = &[7; 300_000];
    for _ in 0..20 {
        parts
            .send(Ok(Frame::data(Bytes::from_static(PART))))
            .await
            .unwrap();
        let mut received = 0;
        while received < PART.len() {
            received += part(&mut answer).await.unwrap().into_data().unwrap().len();
        }
        assert_eq!(received, PART.len());
    }
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "20".parse().unwrap())]);
    parts
        .send(Ok(Frame::trailers(trailers.clone())))
        .await
        .unwrap();
    let said = part(&mut answer).await.unwrap().into_trailers().unwrap();
    assert_eq!(said, trailers);
    assert!(part(&mut answer).await.is_none());
}

#[tokio::test]
async fn an_answer_that_is_dropped_ends_its_request() {
    let (tell, mut told) = mpsc::channel(1);
    let instance = listen(move |_, stream| {
        let tell = tell.clone();
        answer(stream, 100, move |request, mut respond| {
            let tell = tell.clone();
            async move {
                let _to = respond.send_response(Response::new(()), false).unwrap();
                let mut from = request.into_body();
                let ended = loop {
                    match from.data().await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error.reason(),
                        None => break None,
                    }
                };
                tell.send(ended).await.unwrap();
            }
        })
    });
    let (_registry, balancer) = balancer_over(&[instance.await]).await;
    let (parts, body) = by_parts();
    let answer = call(&balancer, post(body)).await;
    parts
        .send(Ok(Frame::data(Bytes::from_static(b"abc"))))
        .await
        .unwrap();
    drop(answer);
    let ended = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert_eq!(ended, Some(h2::Reason::CANCEL));
    parts.closed().await;
}

//! Instances that send without end, or read nothing: calls end in time, and memory stays what it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request as HttpRequest;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;
use trimtab_client::call::Deadline;

use crate::frames::{
    DATA, FIRST, HEADERS, block, continuation, frame, head, headers, largest_window, ping, reset,
    settings, unknown, window,
};
use crate::ill_peers::{Cases, get, greeting};
use crate::peer::{Peer, Script, Step};
use crate::process::{PATIENCE, eventually};

/// What a process may grow by, other tests included: a tenth of what the
/// floods would leave if a part of them were kept.
const GROWTH_MAX: u64 = 64 << 20;

/// So many bytes of a flood, or as many as there are in this time.
const FLOOD_BYTES: u64 = 256 << 20;
const FLOOD_TIME: Duration = Duration::from_millis(300);

/// How much one write has.
const WRITE_BYTES: usize = 64 << 10;

/// Resident, where the system tells.
fn memory() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

fn floods() -> Vec<(&'static str, usize, Vec<u8>)> {
    let some = "x".repeat(1_000);
    let endless = frame(HEADERS, 0, FIRST, &block(&[(":status", "200")]));
    let more = continuation(&block(&[("x", &some)]));
    vec![
        ("pings", 1, ping(0)),
        ("pongs", 1, ping(1)),
        ("settings", 1, settings(&[(3, 100)])),
        ("tables", 1, settings(&[(1, u32::MAX)])),
        ("what nobody knows", 1, unknown(&[7; 16_000])),
        ("window", 1, window(0, 1)),
        ("resets", 2, reset(8)),
        ("no data", 3, frame(DATA, 0, FIRST, &[])),
        ("data", 3, frame(DATA, 0, FIRST, &[7; 16_000])),
        ("bits of data", 3, frame(DATA, 0, FIRST, &[0])),
        (
            "words beforehand",
            2,
            headers(0, &[(":status", "103"), ("x", &some)]),
        ),
        (
            "a head without end",
            2,
            [endless, more.repeat(1_000)].concat(),
        ),
        ("nothing more of a head", 2, continuation(&[])),
    ]
}

/// A peer that greets, and says this before one step of its answer.
fn flooding(at: usize, bytes: &[u8], is_deaf: bool) -> Script {
    let mut steps = vec![Step::Send(greeting())];
    if at >= 2 && !is_deaf {
        steps.push(Step::Request);
    }
    if at >= 3 {
        steps.push(Step::Send(head()));
    }
    if bytes == continuation(&[]) {
        steps.push(Step::Send(frame(HEADERS, 0, FIRST, &[])));
    }
    steps.push(Step::Flood(bytes.repeat(WRITE_BYTES.div_ceil(bytes.len()))));
    Script {
        is_deaf,
        ..Script::of(steps)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flood_is_kept_or_keeps_a_call() {
    let cases = Cases::start().await;
    let before = memory();
    for (name, at, bytes) in floods() {
        for is_deaf in [false, true] {
            let peer = Peer::start(flooding(at, &bytes, is_deaf)).await;
            let balancer = cases.balancer(&peer).await;
            let status = get(&balancer).await.unwrap_err();
            assert_ne!(status.code(), Code::Ok, "{name}");
            // The connection is there, though the call has ended.
            let begun = Instant::now();
            let most = FLOOD_BYTES / WRITE_BYTES as u64;
            while peer.floods() < most && begun.elapsed() < FLOOD_TIME {
                sleep(Duration::from_millis(5)).await;
            }
            let grown = memory()
                .zip(before)
                .map(|(now, then)| now.saturating_sub(then));
            assert!(
                grown.is_none_or(|grown| grown < GROWTH_MAX),
                "{name} of {} bytes: {grown:?}",
                peer.floods() * WRITE_BYTES as u64
            );
        }
    }
}

fn asking(body: Body) -> HttpRequest<Body> {
    let mut request = HttpRequest::post("/items").body(body).unwrap();
    let limit = Deadline::after(Duration::from_millis(300));
    request.extensions_mut().insert(limit);
    request
}

/// A caller that is slower than its instance finds something to read all the
/// time, also when its time is over.
#[tokio::test]
async fn an_answer_ends_at_its_deadline_though_there_is_always_more_of_it() {
    const PARTS: usize = 1_000;
    let cases = Cases::start().await;
    let peer = Peer::start(Script::of(vec![
        Step::Send(greeting()),
        Step::Request,
        Step::Send(head()),
        Step::Send(frame(DATA, 0, FIRST, &[7; 1_000]).repeat(PARTS)),
    ]));
    let peer = peer.await;
    let balancer = cases.balancer(&peer).await;
    let calling = balancer.clone().oneshot(asking(Body::empty()));
    let answer = timeout(PATIENCE, calling).await.unwrap().unwrap();
    let mut body = answer.into_body();
    let mut parts = 0;
    let status = loop {
        match timeout(PATIENCE, body.frame()).await.unwrap().unwrap() {
            Ok(_) => parts += 1,
            Err(status) => break status,
        }
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!((1..PARTS).contains(&parts), "{parts} were read");
}

/// Parts without end, and how many were asked for.
fn endless(asked: &Arc<AtomicU64>) -> Body {
    let asked = Arc::clone(asked);
    let parts = tokio_stream::iter(std::iter::repeat(Bytes::from_static(&[7; 10_000])));
    let parts = parts.map(move |part| {
        asked.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Status>(Frame::data(part))
    });
    Body::new(StreamBody::new(parts))
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_not_fed_without_end() {
    let cases = Cases::start().await;
    for greeting in [greeting(), [greeting(), largest_window()].concat()] {
        let peer = Peer::start(Script {
            is_deaf: true,
            ..Script::of(vec![Step::Send(greeting)])
        });
        let peer = peer.await;
        let balancer = cases.balancer(&peer).await;
        let asked = Arc::new(AtomicU64::new(0));
        let calling = balancer.clone().oneshot(asking(endless(&asked)));
        let status = timeout(PATIENCE, calling).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        // The windows are full, and so is all that lies between.
        let taken = asked.load(Ordering::SeqCst) * 10_000;
        assert!(taken < GROWTH_MAX, "{taken} bytes");
        eventually("the body is let go", || Arc::strong_count(&asked) == 1).await;
    }
}

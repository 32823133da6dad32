//! The examples, run as the README says, against a real registry.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::Stdio;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use trimtab_client::Client;
use trimtab_client::operator::change::{ChangeOptions, ServiceShift, ShiftTarget};
use trimtab_tests::cluster::Cluster;
use trimtab_tests::eventually::PATIENCE;

/// A running example. Ends with the test.
struct Example {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    fn run(name: &str, arguments: &[&str]) -> Example {
        // Test and examples are built side by side: target/*/deps and examples.
        let test = std::env::current_exe().expect("a path");
        let built = test.parent().and_then(|deps| deps.parent());
        let example = built.expect("a target directory").join("examples");
        let mut process = Command::new(example.join(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("cargo builds the examples with the tests");
        let stdout = process.stdout.take().expect("piped");
        Example {
            process,
            lines: BufReader::new(stdout).lines(),
        }
    }

    /// Reads on until a line has all of `parts`.
    async fn says(&mut self, parts: &[&str]) -> String {
        let mut said = Vec::new();
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await.expect("readable") {
                if parts.iter().all(|part| line.contains(part)) {
                    return Some(line);
                }
                said.push(line);
            }
            None
        });
        match found.await {
            Ok(Some(line)) => line,
            _ => panic!("waited for {parts:?}; it said {said:#?}"),
        }
    }

    async fn interrupt(&self) {
        self.signal("-INT").await;
    }

    async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    async fn signal(&self, signal: &str) {
        let id = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await;
        assert!(sent.expect("kill").success());
    }

    async fn ends_well(mut self) {
        let status = timeout(PATIENCE, self.process.wait()).await;
        let status = status.expect("it ends").expect("waited");
        assert!(status.success(), "{status}");
    }
}

/// Reads what it says until it ends, and panics if a call failed.
async fn fails_never(mut caller: Example) {
    caller.interrupt().await;
    while let Ok(Some(line)) = caller.lines.next_line().await {
        assert!(!line.contains("failed"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_follows_a_switch_between_instances_that_come_and_go() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let mut caller = Example::run("caller", &[&endpoints]);
    let mut old = Example::run("instance", &["v1", &endpoints]);
    old.says(&["serves v1 at 127.0.0.1:"]).await;
    caller.says(&["item", "from v1"]).await;

    let mut new = Example::run("instance", &["v2", &endpoints]);
    new.says(&["serves v2 at 127.0.0.1:"]).await;
    let switch = ServiceShift::new("catalog", ShiftTarget::SwitchTo("v2".to_owned()));
    let (operator, options) = (cluster.operator(), ChangeOptions::default());
    operator.shift(&[switch], &options).await.expect("switched");
    caller.says(&["item", "from v2"]).await;

    old.interrupt().await;
    old.says(&["every caller has confirmed: true"]).await;
    old.ends_well().await;
    caller.says(&["item", "from v2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_in_order_fails_no_call() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let mut first = Example::run("graceful_shutdown", &["v1", &endpoints]);
    first.says(&["serves v1 at 127.0.0.1:"]).await;
    let mut caller = Example::run("caller", &[&endpoints]);
    caller.says(&["slow item", "from v1"]).await;
    let mut second = Example::run("graceful_shutdown", &["v1", &endpoints]);
    second.says(&["serves v1"]).await;
    first.terminate().await;
    first.says(&["told to stop"]).await;
    first.says(&["no caller sends anything new"]).await;
    first.says(&["ended in order"]).await;
    first.ends_well().await;
    // The caller's lines since its first are still to be read.
    fails_never(caller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_caller_finds_instances_that_speak_no_grpc() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let server = serve_http("hello").await;
    let client = Client::connect(&endpoints).expect("a client");
    let registration = client.register("hello", "v1", &server);
    let registration = registration.start().await.expect("registered");
    let mut caller = Example::run("http_caller", &["hello", &endpoints]);
    caller.says(&["hello from v1 at", &server]).await;
    let other = serve_http("good day").await;
    let next = client.register("hello", "v1", &other);
    let next = next.start().await.expect("registered");
    registration.drain(PATIENCE).await.expect("drained");
    caller.says(&["good day from v1 at", &other]).await;
    drop(next);
}

/// Answers every request on a free port with this; ends with the runtime.
async fn serve_http(says: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(says))))
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_canary_go_over_and_none_comes_back() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let mut old = Example::run("instance", &["v1", &endpoints]);
    old.says(&["serves v1"]).await;
    let mut new = Example::run("instance", &["v2", &endpoints]);
    new.says(&["serves v2"]).await;
    let mut users = Example::run("sticky_canary", &[&endpoints]);
    users.says(&["users on v1: 20, on v2: 0"]).await;
    let mut on_new = 0;
    for share in [3_000, 7_000, 10_000] {
        let weights = BTreeMap::from([("v1".to_owned(), 10_000 - share), ("v2".to_owned(), share)]);
        let shift = ServiceShift::new("catalog", ShiftTarget::Weights(weights));
        let (operator, options) = (cluster.operator(), ChangeOptions::default());
        operator.shift(&[shift], &options).await.expect("shifted");
        // Of the users of this example some go over with each step.
        let count = |line: &str| -> usize {
            let (_, number) = line.rsplit_once(' ').expect("a number");
            number.parse().expect("a number")
        };
        loop {
            let line = users.says(&["users on v1:"]).await;
            assert!(count(&line) >= on_new, "somebody came back: {line}");
            if count(&line) > on_new {
                on_new = count(&line);
                break;
            }
        }
    }
    users.says(&["users on v1: 0, on v2: 20"]).await;
    drop((old, new));
    fails_never(users).await;
}

//! The examples, run as the README says, against a real registry.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
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
        let id = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().await;
        assert!(sent.expect("kill").success());
    }

    async fn ends_well(mut self) {
        let status = timeout(PATIENCE, self.process.wait()).await;
        let status = status.expect("it ends").expect("waited");
        assert!(status.success(), "{status}");
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

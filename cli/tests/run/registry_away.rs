//! A program goes on when there is no registry, and is found when there is one.

use rustix::process::Signal;
use trimtab_client::operator::service_status::InstanceStatus;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_starts_without_a_registry_and_is_registered_when_it_comes() {
    let mut stage = Stage::open().await;
    stage.cluster.stop(1).await;
    let (mut supervisor, mut program) = stage.start(&[]).await;
    program.tell("serve").await;
    let message = supervisor.event("unregistered").await;
    assert!(message.contains("unavailable"), "{message}");
    stage.cluster.start_again(1).await;
    supervisor.event("registered").await;
    assert_eq!(supervisor.count("unregistered"), 1);
    stage.until_status(InstanceStatus::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_outlives_the_registry_and_ends_without_it() {
    let mut stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start_registered(&["--drain-timeout", "1s"]).await;
    stage.cluster.stop(1).await;
    assert!(!program.said().await.contains(&"signal TERM".to_owned()));
    supervisor.signal(Signal::TERM);
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 0);
    let told = ["draining", "not_drained", "stopping", "exited"];
    assert_eq!(supervisor.events[3..7], told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_could_not_be_told_is_told_later() {
    let mut stage = Stage::open().await;
    let flags = ["--check", "/health", "--unready-after", "1"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    stage.cluster.stop(1).await;
    program.tell("ill").await;
    supervisor.event("unready").await;
    supervisor.event("untold").await;
    stage.cluster.start_again(1).await;
    stage.until_status(InstanceStatus::Starting).await;
    program.tell("well").await;
    stage.until_status(InstanceStatus::Ready).await;
}

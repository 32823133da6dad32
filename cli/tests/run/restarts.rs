//! Programs that end by themselves and are started again.

use rustix::process::Signal;
use trimtab_client::operator::service_status::InstanceStatus;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_program_is_registered_anew() {
    let stage = Stage::open().await;
    let flags = ["--restart", "on-failure"];
    let (mut supervisor, mut first) = stage.start_registered(&flags).await;
    let lease = stage.until_status(InstanceStatus::Ready).await;
    first.tell("exit 3").await;
    let mut second = stage.control.stand_in().await;
    assert_ne!(second.process, first.process);
    // It does not serve yet.
    stage.until_gone().await;
    second.tell("serve").await;
    supervisor.event("registered").await;
    assert_ne!(stage.until_status(InstanceStatus::Ready).await, lease);

    // An end that is none of a failure.
    second.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 0);
    assert_eq!(supervisor.count("started"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_have_a_bound_and_the_last_end_counts() {
    let stage = Stage::open().await;
    let flags = ["--restart", "always", "--restart-limit", "2"];
    let (mut supervisor, mut program) = stage.start(&flags).await;
    for code in [0, 4] {
        program.tell(&format!("exit {code}")).await;
        program = stage.control.stand_in().await;
    }
    program.tell("exit 5").await;
    assert_eq!(supervisor.ended().await, 5);
    assert_eq!(supervisor.count("restarting"), 2);
    assert_eq!(supervisor.events.last().unwrap(), "gave_up");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_again_once_it_is_to_stop() {
    let stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start_registered(&["--restart", "always"]).await;
    supervisor.signal(Signal::TERM);
    program.until("signal TERM").await;
    program.tell("exit 1").await;
    assert_eq!(supervisor.ended().await, 1);
    assert!(stage.control.is_quiet().await);
}

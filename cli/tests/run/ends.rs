//! How a program ends, and who knows of it before and after.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::Command;
use trimtab_client::operator::change::{ChangeOptions, Teardown};
use trimtab_client::operator::service_status::InstanceStatus;
use trimtab_proto::v1::InstanceStatus as Status;
use trimtab_tests::eventually::eventually;

use crate::caller::{Caller, NAME};
use crate::stage::{SERVICE, Stage};
use crate::supervisor::Supervisor;

#[tokio::test(flavor = "multi_thread")]
async fn callers_let_go_before_the_program_is_asked_to_end() {
    let stage = Stage::open().await;
    let flags = ["--drain-timeout", "10m"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let mut caller = Caller::open(&stage.cluster).await;
    let ready = caller.until(Some(Status::Ready)).await;
    caller.confirm(ready.revision).await;

    supervisor.signal(Signal::TERM);
    let draining = caller.until(Some(Status::Draining)).await;
    let said = program.said().await;
    assert!(!said.contains(&"signal TERM".to_owned()), "{said:?}");
    caller.confirm(draining.revision).await;
    program.until("signal TERM").await;
    // It may still be answering, and is in the registry until it has ended.
    stage.until_status(InstanceStatus::Draining).await;
    program.tell("exit 7").await;
    caller.until(None).await;
    assert_eq!(supervisor.ended().await, 7);
    let order = ["draining", "drained", "stopping", "exited", "deregistered"];
    assert_eq!(supervisor.events[3..], order);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_holds_on_is_named_and_not_waited_for_long() {
    let stage = Stage::open().await;
    let flags = ["--drain-timeout", "300ms"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let mut caller = Caller::open(&stage.cluster).await;
    let ready = caller.until(Some(Status::Ready)).await;
    caller.confirm(ready.revision).await;
    supervisor.signal(Signal::INT);
    let message = supervisor.event("laggards").await;
    assert!(message.contains(NAME), "{message}");
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_again_it_hurries_and_then_kills() {
    let stage = Stage::open().await;
    let flags = ["--drain-timeout", "10m", "--stop-timeout", "10m"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let mut caller = Caller::open(&stage.cluster).await;
    let ready = caller.until(Some(Status::Ready)).await;
    caller.confirm(ready.revision).await;
    supervisor.signal(Signal::TERM);
    caller.until(Some(Status::Draining)).await;
    supervisor.signal(Signal::TERM);
    program.until("signal TERM").await;
    supervisor.signal(Signal::TERM);
    program.died().await;
    assert_eq!(supervisor.ended().await, 128 + 9);
    stage.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_end_is_killed_with_what_it_started() {
    let stage = Stage::open().await;
    let flags = ["--stop-timeout", "200ms", "--stop-signal", "quit"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let child: i32 = program.ask("beget").await.parse().unwrap();
    supervisor.signal(Signal::TERM);
    program.until("signal QUIT").await;
    program.died().await;
    assert_eq!(supervisor.ended().await, 128 + 9);
    stage.until_gone().await;
    until_dead(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_program_is_out_of_the_registry_at_once() {
    let stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start_registered(&[]).await;
    let child: i32 = program.ask("beget").await.parse().unwrap();
    let mut caller = Caller::open(&stage.cluster).await;
    caller.until(Some(Status::Ready)).await;
    kill_process(Pid::from_raw(program.process).unwrap(), Signal::KILL).unwrap();
    // Its lease would last ten minutes.
    caller.until(None).await;
    assert_eq!(supervisor.ended().await, 128 + 9);
    assert_eq!(supervisor.events[3..], ["exited", "deregistered"]);
    until_dead(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_passed_on() {
    let stage = Stage::open().await;
    for code in [0, 1, 42, 255] {
        let (mut supervisor, mut program) = stage.start(&[]).await;
        program.tell(&format!("exit {code}")).await;
        assert_eq!(supervisor.ended().await, code);
        assert_eq!(supervisor.events, ["started", "exited"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_registered_yet_is_asked_to_end_at_once() {
    let stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start(&[]).await;
    supervisor.signal(Signal::TERM);
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 0);
    assert_eq!(supervisor.events, ["started", "stopping", "exited"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_signals_reach_the_program_as_they_are() {
    let stage = Stage::open().await;
    let (supervisor, mut program) = stage.start_registered(&[]).await;
    let signals = [
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
    ];
    for (name, signal) in signals {
        supervisor.signal(signal);
        program.until(&format!("signal {name}")).await;
    }
    assert_eq!(stage.instances().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_torn_down_drains_and_ends_its_programs() {
    let stage = Stage::open().await;
    stage.cluster.register(1, SERVICE, "v0", "old").await;
    let flags = ["--group", "v2", "--restart", "always"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let teardown = Teardown {
        service: SERVICE.into(),
        group: "v2".into(),
        quiet: Some(std::time::Duration::ZERO),
        expected_route_revision: None,
    };
    let operator = stage.cluster.operator();
    let options = ChangeOptions::default();
    operator.teardown(&teardown, &options).await.unwrap();
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 0);
    let order = ["draining", "drained", "stopping", "exited", "deregistered"];
    assert_eq!(supervisor.events[3..], order);
    assert_eq!(stage.instances().await.len(), 1, "the other group's");

    // One that comes while others of the group still drain is refused.
    stage.cluster.register(1, SERVICE, "v2", "other").await;
    operator.teardown(&teardown, &options).await.unwrap();
    let (mut supervisor, mut program) = stage.start(&flags).await;
    program.tell("serve").await;
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_does_not_outlive_a_killed_supervisor() {
    let stage = Stage::open().await;
    let (supervisor, program) = stage.start_registered(&["--ttl", "1s"]).await;
    supervisor.signal(Signal::KILL);
    program.died().await;
    stage.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_told_who_it_is() {
    let stage = Stage::open().await;
    let (_supervisor, mut program) = stage.start(&["--zone", "eu-1a"]).await;
    for (variable, value) in [
        ("TRIMTAB_SERVICE", SERVICE),
        ("TRIMTAB_GROUP", "v1"),
        ("TRIMTAB_INSTANCE_ID", "a"),
        ("TRIMTAB_ADDRESS", &stage.address),
        ("TRIMTAB_ZONE", "eu-1a"),
        ("TRIMTAB_ENDPOINTS", &stage.cluster.endpoints()),
    ] {
        assert_eq!(program.ask(&format!("env {variable}")).await, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_has_an_id_of_its_own_unless_it_is_given_one() {
    let stage = Stage::open().await;
    let mut command: Command = crate::supervisor::trimtab();
    let (variable, value) = stage.control.environment();
    command
        .args(["run", "--service", SERVICE, "--group", "v1"])
        .args(["--address", &stage.address, "--output", "json"])
        .args(["--endpoints", &stage.cluster.endpoints(), "--"])
        .args(crate::stand_in::command())
        .env(variable, value);
    let mut supervisor = Supervisor::start(command);
    let mut program = stage.control.stand_in().await;
    let id = program.ask("env TRIMTAB_INSTANCE_ID").await;
    assert_eq!(id.len(), 16, "{id}");
    program.tell("serve").await;
    supervisor.event("registered").await;
    assert_eq!(stage.instances().await[0].instance.id, id);
}

async fn until_dead(process: i32) {
    let process = Pid::from_raw(process).unwrap();
    let is_dead = || {
        // Whoever reaps it may take its time.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
        let zombie = stat.is_ok_and(|stat| stat.contains(") Z "));
        zombie || test_kill_process(process).is_err()
    };
    eventually("its child is dead", async || is_dead(), |dead| *dead).await;
}

//! When a program is registered, and what its checks make of it afterwards.

use trimtab_client::operator::service_status::InstanceStatus;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_registered_when_its_check_passes_and_not_before() {
    let stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start(&["--check", "/health"]).await;
    program.tell("ill").await;
    program.tell("serve").await;
    // The second is asked when the first has been judged.
    program.until("asked").await;
    program.until("asked").await;
    assert_eq!(stage.instances().await, []);
    assert_eq!(supervisor.count("registered"), 0);

    program.tell("well").await;
    let message = supervisor.event("registered").await;
    assert_eq!(message, format!("registered at {}", stage.address));
    let instances = stage.instances().await;
    assert_eq!(instances.len(), 1);
    let instance = &instances[0].instance;
    assert_eq!(instance.status, InstanceStatus::Ready);
    assert_eq!((&*instance.id, &*instance.address), ("a", &*stage.address));
    assert_eq!(supervisor.events, ["started", "passed", "registered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_check_makes_it_unready_and_never_takes_it_out() {
    let stage = Stage::open().await;
    let flags = ["--check", "/health", "--unready-after", "2"];
    let (mut supervisor, mut program) = stage.start_registered(&flags).await;
    let lease = stage.until_status(InstanceStatus::Ready).await;
    for _ in 0..3 {
        program.tell("ill").await;
        let message = supervisor.event("unready").await;
        assert!(message.contains("2 checks failed"), "{message}");
        assert!(message.contains("answered 503"), "{message}");
        assert_eq!(stage.until_status(InstanceStatus::Starting).await, lease);
        program.tell("well").await;
        supervisor.event("ready").await;
        assert_eq!(stage.until_status(InstanceStatus::Ready).await, lease);
    }
    assert_eq!(supervisor.count("registered"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_server_is_asked_for_its_health() {
    let stage = Stage::open().await;
    let (mut supervisor, mut program) = stage.start(&["--check", "grpc"]).await;
    program.tell("serve-grpc").await;
    supervisor.event("registered").await;
    stage.until_status(InstanceStatus::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_never_ready_is_ended_and_the_exit_code_says_so() {
    let stage = Stage::open().await;
    let flags = ["--start-timeout", "300ms"];
    let (mut supervisor, mut program) = stage.start(&flags).await;
    program.until("signal TERM").await;
    program.tell("exit 0").await;
    assert_eq!(supervisor.ended().await, 124);
    assert_eq!(stage.instances().await, []);
    assert_eq!(supervisor.events, ["started", "stopping", "exited"]);
}

//! `trimtab run` as process 1 of a container: a process namespace of its own.

use std::process::Command as Try;

use rustix::process::Signal;
use tokio::process::Command;

use crate::stage::Stage;
use crate::stand_in::{skip, works};
use crate::supervisor::Supervisor;

const UNSHARE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];

#[tokio::test(flavor = "multi_thread")]
async fn process_1_reaps_orphans_and_is_the_last_to_end() {
    if !works(Try::new("unshare").args(UNSHARE).arg("true")) {
        skip("process namespaces need unshare and the right to use it");
        return;
    }
    let stage = Stage::open().await;
    let mut command = Command::new("unshare");
    command
        .args(UNSHARE)
        .arg(env!("CARGO_BIN_EXE_trimtab"))
        .env_remove("TRIMTAB_LOG")
        .kill_on_drop(true);
    stage.arguments(&mut command, &[]);
    let mut supervisor = Supervisor::start(command);
    let mut program = stage.control.stand_in().await;
    // Threads count as well.
    assert!(program.process < 100, "a namespace of its own");
    program.tell("serve").await;
    supervisor.event("registered").await;
    for _ in 0..3 {
        let left = program.ask("orphan").await;
        assert!(left.ends_with("exit status: 0"), "{left}");
    }
    assert_eq!(program.ask("zombies").await, "none");

    // The program's own signals, from within and from without.
    supervisor.signal_child(Signal::TERM);
    program.until("signal TERM").await;
    program.tell("exit 6").await;
    assert_eq!(supervisor.ended().await, 6);
    stage.until_gone().await;
}

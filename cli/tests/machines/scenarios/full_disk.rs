//! The leader's disk is filled up by somebody else, and later freed: it stands aside, serves what it had, and comes back by itself.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};
use crate::wait::until;

/// Several times what so small a registry needs.
const DISK: &str = "32m";

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::empty(directory, Setting::default());
    stage.replicas.on_small_disks(DISK);
    stage.start_replicas();
    stage.set();
    let leader = stage.leader();
    let others = stage.replicas.others(&[leader]);
    stage.steady = others.clone();
    stage.answering = vec![leader];
    let ballast = stage.replicas.data_dir(leader).join("ballast");
    fill(&ballast);
    until("the replica to say that it is halted", || {
        halted(&stage, leader).filter(|why| !why.is_empty())
    });
    let why = halted(&stage, leader).unwrap_or_default();
    let why = why.split(';').next().unwrap_or_default();
    let outage = stage.changes_go_on();
    stage.replicas.leader(&stage.network, &others);
    assert!(
        stage.replicas.view(&stage.network, leader).is_some(),
        "replica {leader} does not answer"
    );
    stage.let_run(Duration::from_secs(3));
    std::fs::remove_file(&ballast).expect("freed");
    until("the replica to be back", || {
        halted(&stage, leader).filter(String::is_empty)
    });
    // Not now and then while there was no room.
    let returns = stage.replicas.said(leader, "this replica takes part again");
    assert_eq!(returns, 1, "replica {leader} came back so often");
    let counts = stage.finish();
    Ended::Well(format!(
        "{why:?}, changes went on after {outage:.1?}; {counts}"
    ))
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    let mut block = vec![0xb5; 1 << 20];
    while !block.is_empty() {
        match file.write_all(&block) {
            Ok(()) => {}
            // To the last page.
            Err(error) if error.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// The alarm that a replica raises when it is halted; empty when it is not.
fn halted(stage: &Stage, id: u64) -> Option<String> {
    let status: Value = stage.replicas.status(&stage.network, id)?;
    let mut alarms = status["alarms"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str);
    let raised = alarms.find(|alarm| alarm.starts_with(&format!("replica {id} is halted")));
    Some(raised.unwrap_or_default().to_owned())
}

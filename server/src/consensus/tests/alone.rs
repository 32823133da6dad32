//! One replica alone: durable, quick, and honest about its disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use trimtab_registry::outcome::Outcome;
use trimtab_registry::revision::Revision;

use super::super::entry::{COMMAND_BYTES_MAX, decode_result, encode_command};
use super::super::error::ProposeError;
use super::super::handle::Handle;
use super::super::start::{Settings, found_alone, start};
use super::super::status::Role;
use super::super::testing::register;
use super::recorder::{PATIENCE, Recorder, Told, instances, until};
use crate::peers::{Contact, Own, Peers};
use crate::storage::file::{Identity, Storage};
use crate::storage::testing::TestDisk;

const ADDRESS: &str = "127.0.0.1:1";

fn identity() -> Identity {
    Identity::of_new(1, 11)
}

fn settings(snapshot_every: u64) -> Settings {
    Settings {
        snapshot_every,
        trailing_entries: 3,
        ..Settings::new(42)
    }
}

fn start_on(storage: Storage, snapshot_every: u64) -> (Handle, Recorder) {
    start_with(storage, settings(snapshot_every))
}

fn start_with(mut storage: Storage, settings: Settings) -> (Handle, Recorder) {
    if storage.identity().cluster_id == 0 {
        found_alone(&mut storage, ADDRESS).expect("founds");
    }
    let own = Own {
        id: 1,
        cluster_id: storage.identity().cluster_id,
        contact: Contact {
            address: ADDRESS.to_owned(),
            disk_id: 11,
        },
    };
    let peers = Peers::new(own, BTreeMap::new()).expect("no addresses");
    let recorder = Recorder::default();
    let handle = start(settings, storage, peers, recorder.clone()).expect("starts");
    (handle, recorder)
}

pub(super) fn start_in(directory: &Path) -> (Handle, Recorder) {
    let storage = Storage::open(directory, identity()).expect("opens");
    start_on(storage, 1_000)
}

#[tokio::test]
async fn a_replica_alone_is_ready_without_waiting_for_an_election() {
    let directory = tempfile::tempdir().expect("tempdir");
    let storage = Storage::open(directory.path(), identity()).expect("opens");
    let settings = Settings {
        tick_interval: 10 * PATIENCE,
        ..settings(1_000)
    };
    let (handle, _) = start_with(storage, settings);
    let status = until(&handle, |status| status.caught_up).await;
    assert_eq!((status.role, status.leader_id), (Role::Leader, 1));
    assert_eq!(status.leader(), Some(1));
    assert_eq!(status.members.roles.voters, [1]);
    assert!(status.members.membership.has(1, 11));
    handle.shutdown().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    let outcome = handle.propose(register("catalog", "i1")).await;
    let Ok(Outcome::Registered { revision, lease }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(revision, lease);
    // Index 1 is the founding, 2 the new leader's own entry.
    assert_eq!(revision, Revision(3));
    handle.shutdown().await;

    let (handle, recorder) = start_in(directory.path());
    until(&handle, |status| status.caught_up).await;
    assert_eq!(instances(&handle).await, 1);
    let told = recorder.told();
    assert_eq!(told.first(), Some(&Told::Restored { instances: 0 }));
    assert!(told.contains(&Told::Applied {
        events: 2,
        instances: 1
    }));
    handle.shutdown().await;
}

#[tokio::test]
async fn a_restart_goes_on_from_the_latest_snapshot() {
    let directory = tempfile::tempdir().expect("tempdir");
    let storage = Storage::open(directory.path(), identity()).expect("opens");
    let (handle, _) = start_on(storage, 10);
    for number in 0..25 {
        let command = register("catalog", &format!("i{number}"));
        handle.propose(command).await.expect("is applied");
    }
    let status = until(&handle, |status| status.snapshot_index >= 20).await;
    handle.shutdown().await;

    let (handle, recorder) = start_in(directory.path());
    assert!(matches!(
        recorder.told().first(),
        Some(Told::Restored { instances }) if *instances >= 18
    ));
    let restarted = until(&handle, |status| status.caught_up).await;
    assert_eq!(restarted.snapshot_index, status.snapshot_index);
    assert_eq!(instances(&handle).await, 25);
    handle.shutdown().await;
}

#[tokio::test]
async fn many_at_once_each_get_their_own_answer() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    let proposals = (0..300).map(|number| {
        let handle = handle.clone();
        async move {
            let command = register("catalog", &format!("i{number}"));
            match handle.propose(command).await {
                Ok(Outcome::Registered { revision, .. }) => revision,
                other => panic!("{other:?}"),
            }
        }
    });
    let mut revisions = join_all(proposals).await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 300);
    assert_eq!(instances(&handle).await, 300);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    let planned = handle.plan(register("catalog", "i1")).await;
    assert!(matches!(planned, Ok(Outcome::Registered { .. })));
    let bytes = encode_command(&register("catalog", "i1")).expect("encodes");
    let (_, result) = handle.propose_here(bytes, true).await.expect("is planned");
    assert_eq!(decode_result(&result), Ok(Ok(planned.expect("planned"))));
    assert_eq!(instances(&handle).await, 0);
    handle.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_read_or_is_too_large_never_gets_into_the_log() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    let huge = vec![1; COMMAND_BYTES_MAX + 1].into();
    let refused = handle.propose_here(huge, false).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })));
    let newer = vec![255, 1, 2].into();
    let refused = handle.propose_here(newer, false).await;
    assert!(matches!(refused, Err(ProposeError::Unreadable(_))));
    handle
        .propose(register("catalog", "i1"))
        .await
        .expect("goes on");
    handle.shutdown().await;
}

#[tokio::test]
async fn after_a_shutdown_every_request_is_told_so() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, recorder) = start_in(directory.path());
    until(&handle, |status| status.caught_up).await;
    handle.shutdown().await;
    let refused = handle.propose(register("catalog", "i1")).await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })));
    let refused = handle.read_barrier().await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })));
    handle.shutdown().await;
    let last = recorder.told().pop();
    assert!(matches!(last, Some(Told::Role { leads: false, .. })));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_replica_and_frees_its_directory() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    handle
        .propose(register("catalog", "i1"))
        .await
        .expect("is applied");
    drop(handle);
    let deadline = Instant::now() + PATIENCE;
    let storage = loop {
        match Storage::open(directory.path(), identity()) {
            Ok(storage) => break storage,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (handle, _) = start_on(storage, 1_000);
    until(&handle, |status| status.caught_up).await;
    assert_eq!(instances(&handle).await, 1);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_failing_disk_takes_the_replica_out_until_it_works_again() {
    let disk = TestDisk::default();
    let same = disk.clone();
    let next = move || Ok(same.clone());
    let storage = Storage::open_on_disks(Path::new("memory"), next, identity()).expect("opens");
    let (handle, recorder) = start_on(storage, 1_000);
    handle
        .propose(register("catalog", "i1"))
        .await
        .expect("is applied");
    disk.set_broken(true);
    // It was accepted before the disk failed: no one knows.
    let unknown = handle.propose(register("catalog", "i2")).await;
    assert!(
        matches!(unknown, Err(ProposeError::Unknown { .. })),
        "{unknown:?}"
    );
    let status = until(&handle, |status| status.halted.is_some()).await;
    assert!(!status.is_leader());
    assert_eq!((status.leader(), status.fatal), (None, None));
    assert!(status.halted.unwrap_or_default().contains("memory"));
    let last = recorder.told().pop();
    assert!(matches!(last, Some(Told::Role { leads: false, .. })));
    let refused = handle.read_barrier().await;
    assert!(
        matches!(refused, Err(ProposeError::Halted { .. })),
        "{refused:?}"
    );
    assert_eq!(instances(&handle).await, 1);

    disk.set_broken(false);
    until(&handle, |status| status.is_leader()).await;
    handle
        .propose(register("catalog", "i3"))
        .await
        .expect("is applied");
    handle.shutdown().await;
}

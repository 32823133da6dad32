//! More comes than a replica takes: what is turned away, what goes on, and what is there afterwards.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use trimtab_registry::command::{Command, JudgeLeases};
use trimtab_registry::outcome::Outcome;

use super::super::error::ProposeError;
use super::super::handle::CALLER_INPUTS_MAX;
use super::super::testing::register;
use super::alone::start_in;
use super::recorder::{PATIENCE, until};

/// A judgement that finds nothing to judge.
fn judgement() -> Command {
    Command::JudgeLeases(JudgeLeases::default())
}

/// Registrations of so many instances.
fn registrations(count: usize) -> Vec<Command> {
    let names = (0..count).map(|number| format!("i{number}"));
    names.map(|name| register("catalog", &name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_callers_away_at_once_and_leases_never() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    until(&handle, |status| status.leads_up_to_date).await;
    // The thread stands still until it is told to go on.
    let (go_on, waits) = sync_channel::<()>(0);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let stands = handle.clone();
    let standing = tokio::spawn(async move {
        stands
            .query(move |_| {
                begun.send(()).expect("is waited for");
                let _ = waits.recv();
            })
            .await
    });
    has_begun.await.expect("it stands still");

    let admitted: Vec<_> = (0..CALLER_INPUTS_MAX)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.query(|_| ()).await })
        })
        .collect();
    // Until the queue is full, each of these waits in it.
    let mut waiting = Vec::new();
    let turned_away = loop {
        let another = handle.clone();
        let mut asked =
            tokio::spawn(async move { another.propose(register("catalog", "late")).await });
        match timeout(Duration::from_millis(50), &mut asked).await {
            Ok(refused) => break refused.expect("no panic"),
            Err(_) => waiting.push(asked),
        }
        assert!(waiting.len() <= CALLER_INPUTS_MAX);
    };
    assert!(
        matches!(turned_away, Err(ProposeError::Overloaded { .. })),
        "{turned_away:?}"
    );
    let asked_before = handle.room_for(1);
    assert!(
        matches!(asked_before, Err(ProposeError::Overloaded { .. })),
        "{asked_before:?}"
    );
    let judges = handle.clone();
    let judged = tokio::spawn(async move { judges.propose_judgement(&judgement()).await });

    go_on.send(()).expect("it waits");
    let judged = timeout(PATIENCE, judged).await.expect("is taken");
    let judged = judged.expect("no panic");
    assert!(matches!(judged, Ok(Outcome::Judged(_))), "{judged:?}");
    // One of the last may have come after the first proposals.
    for looked in join_all(admitted).await {
        let looked = looked.expect("no panic");
        let is_fine = matches!(looked, Ok(()) | Err(ProposeError::Overloaded { .. }));
        assert!(is_fine, "{looked:?}");
    }
    for outcome in join_all(waiting).await {
        assert!(outcome.expect("no panic").is_ok());
    }
    standing.await.expect("no panic").expect("it went on");
    let again = handle.propose(register("catalog", "late")).await;
    assert!(again.is_ok(), "{again:?}");
    assert!(handle.room_for(CALLER_INPUTS_MAX).is_ok());
    assert!(handle.room_for(CALLER_INPUTS_MAX + 1).is_err());
    handle.shutdown().await;
}

#[tokio::test]
async fn many_commands_have_their_own_ends_in_their_order() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (handle, _) = start_in(directory.path());
    let mut commands = registrations(20);
    if let Command::Register(refused) = &mut commands[7] {
        refused.instance.status = trimtab_registry::instance::DeclaredStatus::Draining;
    }
    let outcomes = handle.propose_many(&commands).await.expect("taken");
    assert_eq!(outcomes.len(), 20);
    let mut last = 0;
    for (place, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(Outcome::Registered { lease, .. }) => {
                assert!(lease.0 > last);
                last = lease.0;
            }
            other => {
                assert_eq!(place, 7, "{other:?}");
                assert!(matches!(other, Err(ProposeError::Rejected(_))), "{other:?}");
            }
        }
    }
    handle.shutdown().await;
}

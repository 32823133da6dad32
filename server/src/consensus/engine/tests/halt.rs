//! A disk that fails under a running replica, and works again.

use super::*;
use crate::consensus::error::FatalError;

fn read(engine: &mut TestEngine) -> oneshot::Receiver<Result<u64, ProposeError>> {
    let (reply, answer) = oneshot::channel();
    engine.round([Input::Read(reply)], 0).expect("works");
    answer
}

fn instances(engine: &mut TestEngine) -> usize {
    let (reply, mut answer) = oneshot::channel();
    let query = move |registry: &Registry| {
        let _ = reply.send(instances_in(registry));
    };
    let input = Input::Query(Box::new(query));
    engine.round([input], 0).expect("works");
    answer.try_recv().expect("is answered")
}

impl Trio {
    fn break_disk(&self, id: u64, is_broken: bool) {
        self.disks[&id].set_broken(is_broken);
    }

    /// The leader takes it, and what follows.
    fn propose(&mut self, leader: u64, instance: &str) {
        let mut answer = propose(self.at(leader), instance);
        self.settle();
        assert!(matches!(answer.try_recv(), Ok(Ok(_))));
    }

    /// Lets time pass until the replica takes part again.
    fn await_return(&mut self, id: u64) {
        for _ in 0..300 {
            self.tick();
            if self.at(id).status().halted.is_none() {
                return;
            }
        }
        panic!("replica {id} did not come back");
    }

    fn shown(&mut self, id: u64) -> Vec<usize> {
        self.at(id).parts().observer.instances.clone()
    }
}

/// Three replicas, `count` instances, and who leads.
fn with_instances(count: usize) -> (Trio, u64) {
    let mut trio = Trio::new();
    let leader = trio.leader();
    for number in 0..count {
        trio.propose(leader, &format!("i{number}"));
    }
    trio.tick();
    trio.tick();
    (trio, leader)
}

#[test]
fn a_leader_whose_disk_fails_is_followed_by_another_at_once() {
    let (mut trio, leader) = with_instances(3);
    let term = trio.at(leader).status().term;
    trio.break_disk(leader, true);
    let mut answer = propose(trio.at(leader), "i3");
    // It was accepted, and may yet be committed by the next leader.
    let unknown = answer.try_recv().expect("is answered");
    assert!(matches!(unknown, Err(ProposeError::Unknown { .. })));

    let status = trio.at(leader).status();
    assert_eq!((status.role, status.has_leader()), (Role::Follower, false));
    assert!(!status.leads_up_to_date);
    let words = status.halted.expect("says why");
    assert!(words.contains("memory"), "{words}");
    assert!(words.contains("the disk is on fire"), "{words}");

    // Not a tick passes, and another leads.
    trio.settle();
    let others = trio.others(leader);
    let next = trio.at(others[0]).status().leader_id;
    assert!(others.contains(&next), "{next}");
    assert!(trio.at(next).status().term > term);
    trio.propose(next, "i4");
}

#[test]
fn without_a_disk_it_serves_what_it_had_and_sends_the_rest_elsewhere() {
    let (mut trio, leader) = with_instances(3);
    let broken = trio.others(leader)[0];
    trio.break_disk(broken, true);
    let mut waiting = read(trio.at(broken));
    trio.propose(leader, "i3");
    assert!(trio.at(broken).status().halted.is_some());
    // The read got its answer before the disk failed, or was told.
    assert!(waiting.try_recv().is_ok());

    let refused = read(trio.at(broken)).try_recv().expect("is answered");
    let Err(ProposeError::Halted { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("the disk is on fire"), "{reason}");
    assert_eq!(instances(trio.at(broken)), 3);

    // It hears who leads, so that its callers reach the leader.
    trio.tick();
    trio.tick();
    let status = trio.at(broken).status();
    assert_eq!(status.leader(), Some(leader));
    assert!(!status.has_leader(), "what it serves may be old");
    let refused = propose(trio.at(broken), "i4").try_recv();
    let Ok(Err(ProposeError::NotLeader { leader: told })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(told, Some(leader));
    // When the leader falls silent that is forgotten.
    for _ in 0..30 {
        trio.at(broken).round([], 1).expect("works");
    }
    assert_eq!(trio.at(broken).status().leader(), None);
}

#[test]
fn when_the_disk_works_again_it_catches_up_and_nothing_shown_goes_back() {
    let (mut trio, leader) = with_instances(5);
    let broken = trio.others(leader)[0];
    let before = trio.at(broken).status();
    assert_eq!(before.applied, trio.at(leader).status().applied);
    trio.break_disk(broken, true);
    trio.propose(leader, "i5");
    for _ in 0..50 {
        trio.tick();
    }
    assert!(trio.at(broken).status().halted.is_some());

    trio.break_disk(broken, false);
    trio.await_return(broken);
    let mut applied = before.applied;
    for _ in 0..10 {
        let status = trio.at(broken).status();
        assert!(status.applied >= applied && status.commit >= status.applied);
        applied = status.applied;
        assert!(instances(trio.at(broken)) >= 5);
        trio.tick();
    }
    assert_eq!(instances(trio.at(broken)), 6);
    let shown = trio.shown(broken);
    assert!(shown.is_sorted() && shown.last() == Some(&6), "{shown:?}");
    trio.propose(leader, "i6");
    trio.tick();
    trio.tick();
    assert_eq!(instances(trio.at(broken)), 7);
}

/// What it had applied is in its log, but it cannot know of all that it is
/// committed: the commit index on disk is a little older.
#[test]
fn what_was_shown_stays_until_the_replica_knows_as_much_again() {
    let (mut trio, leader) = with_instances(5);
    let broken = trio.others(leader)[0];
    trio.break_disk(broken, true);
    trio.propose(leader, "i5");
    let applied = trio.at(broken).status().applied;
    trio.break_disk(broken, false);
    for _ in 0..12 {
        trio.at(broken).round([], 1).expect("works");
    }
    let status = trio.at(broken).status();
    assert_eq!(status.halted, None);
    assert!(trio.at(broken).replica().applied() < applied);
    assert_eq!(status.applied, applied);
    assert_eq!(instances(trio.at(broken)), 5);
    assert_eq!(trio.shown(broken).last(), Some(&5));

    // It fails again before it has caught up.
    trio.break_disk(broken, true);
    trio.propose(leader, "i6");
    assert!(trio.at(broken).status().halted.is_some());
    assert_eq!(instances(trio.at(broken)), 5);
    trio.break_disk(broken, false);
    trio.await_return(broken);
    for _ in 0..5 {
        trio.tick();
    }
    assert_eq!(instances(trio.at(broken)), 7);
    let shown = trio.shown(broken);
    assert!(shown.is_sorted(), "{shown:?}");
}

#[test]
fn alone_it_leads_again_when_there_is_room_again() {
    let disk = TestDisk::default();
    let mut engine = engine_on(&disk, 1, 1);
    assert!(matches!(propose(&mut engine, "i0").try_recv(), Ok(Ok(_))));
    disk.leave_room_for(0);
    let mut tried = 0;
    while engine.status().halted.is_none() {
        tried += 1;
        let answer = propose(&mut engine, &format!("j{tried}")).try_recv();
        assert!(answer.is_ok(), "whoever asked is told");
    }
    let words = engine.status().halted.unwrap_or_default();
    assert!(words.contains("no storage space"), "{words}");
    let before = instances(&mut engine);
    disk.leave_room_for(1_000);
    for _ in 0..50 {
        engine.round([], 1).expect("works");
    }
    assert_eq!(engine.status().role, Role::Leader);
    assert!(instances(&mut engine) >= before);
    assert!(matches!(propose(&mut engine, "i1").try_recv(), Ok(Ok(_))));
}

#[test]
fn a_file_that_opens_is_not_yet_a_disk_with_room() {
    let disk = TestDisk::default();
    let mut engine = engine_on(&disk, 1, 1);
    disk.leave_room_for(0);
    let mut tried = 0;
    while engine.status().halted.is_none() {
        tried += 1;
        drop(propose(&mut engine, &format!("i{tried}")));
    }
    for _ in 0..400 {
        engine.round([], 1).expect("works");
        assert!(engine.status().halted.is_some());
    }
    // Not anew each time as if it had worked in between.
    assert_eq!(engine.parts().store.reopened, 6);
}

#[test]
fn it_looks_for_the_disk_ever_more_rarely() {
    let (mut trio, leader) = with_instances(1);
    trio.break_disk(leader, true);
    drop(propose(trio.at(leader), "i1"));
    let mut looked = Vec::new();
    for tick in 1..=400 {
        let before = trio.at(leader).parts().store.reopened;
        trio.at(leader).round([], 1).expect("works");
        if trio.at(leader).parts().store.reopened > before {
            looked.push(tick);
        }
    }
    assert_eq!(looked, [10, 30, 70, 150, 250, 350]);
}

#[test]
fn a_disk_that_comes_back_without_what_was_promised_ends_the_replica() {
    for forgets_all in [true, false] {
        let disk = TestDisk::default();
        let mut engine = engine_on(&disk, 1, 1);
        let old = disk.bytes();
        assert!(matches!(propose(&mut engine, "i0").try_recv(), Ok(Ok(_))));
        disk.set_broken(true);
        drop(propose(&mut engine, "i1"));
        assert!(engine.status().halted.is_some());
        disk.set_broken(false);
        disk.replace(if forgets_all { Vec::new() } else { old });
        let ended = (0..20).find_map(|_| engine.round([], 1).err());
        let ended = ended.expect("does not go on");
        match forgets_all {
            true => assert!(matches!(ended, FatalError::Storage(_)), "{ended}"),
            false => assert!(matches!(ended, FatalError::Forgotten { .. }), "{ended}"),
        }
    }
}

#[test]
fn damage_is_not_waited_out() {
    let disk = TestDisk::default();
    let mut engine = engine_on(&disk, 1, 1);
    disk.set_broken(true);
    drop(propose(&mut engine, "i0"));
    disk.set_broken(false);
    disk.replace(vec![7; 1 << 16]);
    let ended = (0..20).find_map(|_| engine.round([], 1).err());
    assert!(matches!(ended, Some(FatalError::Storage(_))), "{ended:?}");
}

#[test]
fn a_halted_replica_stops_when_it_is_told_to() {
    let disk = TestDisk::default();
    let mut engine = engine_on(&disk, 1, 1);
    disk.set_broken(true);
    drop(propose(&mut engine, "i0"));
    assert!(!engine.is_done());
    engine.round([Input::Stop], 0).expect("works");
    assert!(engine.is_done());
}

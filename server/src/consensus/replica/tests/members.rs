//! Members come, get a vote, are replaced and go, while leaders change.

use super::super::super::change::{Change, ChangeError, Proposed};
use super::super::super::membership::Member;
use super::*;

/// More deliveries than any change takes.
const DELIVERIES_MAX: usize = 120;

fn add(id: u64, disk_id: u64) -> Change {
    let address = format!("replica-{disk_id}:1");
    let member = Member { address, disk_id };
    Change::Add { id, member }
}

fn promote(id: u64) -> Change {
    Change::Promote {
        id,
        replacing: None,
    }
}

fn replace(replaced: u64, id: u64) -> Change {
    Change::Promote {
        id,
        replacing: Some(replaced),
    }
}

fn remove(id: u64) -> Change {
    Change::Remove { id, force: false }
}

impl Cluster {
    fn ask(&mut self, leader: u64, change: &Change) -> Result<Proposed, ChangeError> {
        let mark = ProposalId {
            incarnation: 7,
            sequence: 1,
        };
        self.at(leader).propose_change(mark, change)
    }

    /// Asks and sees it through.
    fn change(&mut self, leader: u64, change: &Change) {
        assert_eq!(self.ask(leader, change), Ok(Proposed::Taken));
        self.settle();
        self.tick(5);
        assert!(!self.at(leader).is_changing(), "{change:?}");
    }

    /// A learner that has caught up.
    fn learner(&mut self, leader: u64, id: u64) {
        self.join(id, 10 + id);
        self.change(leader, &add(id, 10 + id));
        assert_eq!(self.at(leader).lag_of(id), 0);
    }

    fn voters(&mut self, at: u64) -> Vec<u64> {
        self.at(at).roles().voters.clone()
    }

    fn ended(&self, id: u64) -> Option<&FatalError> {
        self.members[&id].ended.as_ref()
    }

    /// As [`Cluster::settle`], up to a number of messages.
    fn deliver_some(&mut self, deliveries: usize) {
        for _ in 0..deliveries {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in ids {
                self.work(id);
            }
            let Some(message) = self.on_the_way.pop_front() else {
                return;
            };
            self.deliver(message);
        }
    }
}

#[test]
fn one_replica_grows_to_three_and_all_have_everything() {
    let mut cluster = Cluster::new(1, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=5);
    for id in [2, 3] {
        cluster.learner(1, id);
        assert_eq!(cluster.members[&id].restorations, 1);
        cluster.change(1, &promote(id));
    }
    assert_eq!(cluster.voters(3), [1, 2, 3]);
    cluster.propose_all(1, 6..=7);
    cluster.agree();
    assert_eq!(cluster.instances(3), 7);
    // Two of three are enough now.
    cluster.isolate(1);
    let leader = cluster.tick_until_led_by(&[2, 3]);
    cluster.propose_all(leader, 8..=8);
    assert_eq!(cluster.instances(leader), 8);
    // Who is told of an applied change is the one who asked.
    let marks = cluster.members[&1].changed.len();
    assert_eq!(marks, 4);
}

#[test]
fn a_learner_follows_but_has_no_vote_and_is_not_waited_for() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.learner(1, 4);
    cluster.isolate(4);
    cluster.propose_all(1, 1..=3);
    assert_eq!(cluster.instances(1), 3);
    cluster.heal();
    cluster.tick(5);
    cluster.agree();
    assert_eq!(cluster.instances(4), 3);
    assert!(cluster.at(4).can_read());
    cluster.at(4).read_index(9);
    cluster.settle();
    assert_eq!(cluster.members[&4].reads.len(), 1);
    // One voter and the learner are no quorum of three.
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.tick(60);
    assert_ne!(cluster.at(3).role(), Role::Leader);
    // And it does not go on believing in a leader that it does not hear.
    assert_eq!(cluster.at(4).leader_id(), 0);
    assert!(!cluster.at(4).can_read());
    assert_eq!(cluster.at(4).role(), Role::Follower);
}

#[test]
fn one_change_at_a_time() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.join(4, 14);
    assert_eq!(cluster.ask(1, &add(4, 14)), Ok(Proposed::Taken));
    assert_eq!(cluster.ask(1, &add(5, 15)), Err(ChangeError::InProgress));
    cluster.settle();
    assert_eq!(cluster.ask(1, &add(4, 14)), Ok(Proposed::AlreadySo));
    assert_eq!(cluster.ask(2, &add(5, 15)), Err(ChangeError::NotLeader));
    cluster.tick(3);
    cluster.agree();
    assert!(cluster.at(1).membership().get(5).is_none());
}

#[test]
fn a_dead_voter_is_replaced_in_one_step_and_finds_out() {
    let mut cluster = Cluster::new(3, 10, 2);
    cluster.elect(1);
    cluster.propose_all(1, 1..=20);
    cluster.isolate(3);
    cluster.learner(1, 4);
    cluster.tick(25);
    cluster.change(1, &replace(3, 4));
    assert_eq!(cluster.voters(1), [1, 2, 4]);
    assert!(cluster.at(1).membership().was_removed(13));
    // It is back, calls elections in vain, and disturbs no one.
    let term = cluster.at(1).term();
    cluster.heal();
    cluster.tick(40);
    assert_eq!(cluster.at(1).term(), term);
    assert_eq!(cluster.at(1).role(), Role::Leader);
    assert_eq!(cluster.ask(1, &remove(3)), Ok(Proposed::AlreadySo));
    assert_eq!(
        cluster.ask(1, &remove(9)),
        Err(ChangeError::NotAMember { id: 9 })
    );
}

#[test]
fn a_removed_replica_that_learns_of_it_stops() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.learner(1, 4);
    // While the vote moves, the leaving voter takes part, so it hears of it.
    cluster.change(1, &replace(3, 4));
    cluster.propose_all(1, 1..=2);
    cluster.agree();
    assert_eq!(cluster.voters(2), [1, 2, 4]);
    if let Some(ended) = cluster.ended(3) {
        assert_eq!(*ended, FatalError::Removed { id: 3 });
        assert!(ended.to_string().contains("trimtab cluster add"));
    }
}

#[test]
fn whoever_led_when_a_vote_moved_the_next_leader_ends_it() {
    let mut joint = 0;
    for deliveries in 0..DELIVERIES_MAX {
        // A snapshot after each entry: some are of the state in between.
        let mut cluster = Cluster::new(3, 1 + (deliveries as u64 % 2) * 50, 5);
        cluster.elect(1);
        cluster.learner(1, 4);
        assert_eq!(cluster.ask(1, &replace(3, 4)), Ok(Proposed::Taken));
        cluster.deliver_some(deliveries);
        joint += usize::from(!cluster.at(1).roles().voters_outgoing.is_empty());
        cluster.isolate(1);
        cluster.settle();
        let leader = cluster.tick_until_led_by(&[2, 3, 4]);
        // It restarts from its disk, whatever stands there.
        cluster.restart(leader);
        let leader = cluster.tick_until_led_by(&[2, 3, 4]);
        cluster.propose_all(leader, 1..=1);
        cluster.tick(5);
        assert!(!cluster.at(leader).is_changing(), "{deliveries}");
        cluster.heal();
        cluster.tick(30);
        let leader = cluster.tick_until_led_by(&[1, 2, 3, 4]);
        cluster.propose_all(leader, 2..=2);
        cluster.tick(5);
        let voters = cluster.voters(leader);
        assert!(voters == [1, 2, 3] || voters == [1, 2, 4], "{voters:?}");
        for id in voters {
            assert_eq!(cluster.instances(id), 2, "{deliveries}");
            assert_eq!(cluster.ended(id), None);
        }
    }
    assert!(joint > 0, "no crash fell into the state in between");
}

#[test]
fn a_leader_that_finds_itself_removed_stops_and_the_others_go_on() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    assert_eq!(cluster.ask(1, &remove(2)), Ok(Proposed::Taken));
    cluster.work(1);
    // The entry reaches its object, which comes to lead before it is applied.
    cluster.isolate(1);
    cluster.cut.remove(&(1, 2));
    cluster.deliver_some(4);
    cluster.isolate(1);
    for _ in 0..TICKS_MAX {
        if cluster.at(2).is_removed() {
            break;
        }
        cluster.tick(1);
    }
    // Without it neither of the others could be elected, were 3 lost.
    assert!(cluster.at(2).is_removed());
    assert_eq!(cluster.ended(2), None);
    cluster.heal();
    cluster.tick(60);
    assert_eq!(cluster.ended(2), Some(&FatalError::Removed { id: 2 }));
    let leader = cluster.tick_until_led_by(&[1, 3]);
    cluster.propose_all(leader, 1..=1);
    cluster.agree();
    assert_eq!(cluster.voters(leader), [1, 3]);
}

#[test]
fn a_leader_that_removed_itself_stays_until_the_others_can_go_on_without_it() {
    let mut cluster = Cluster::new(2, 1_000, 100);
    cluster.elect(2);
    cluster.learner(2, 3);
    assert_eq!(cluster.ask(2, &replace(1, 3)), Ok(Proposed::Taken));
    while cluster.at(2).roles().voters_outgoing.is_empty() {
        cluster.deliver_some(1);
    }
    // All have what ends the change, and nobody hears that all have it.
    cluster.cut.insert((3, 2));
    cluster.tick(3);
    cluster.heal();
    // The one that is to go comes to lead, and ends what the other began.
    let resignation = cluster.at(2).resignation().expect("it leads");
    let to_first = Message {
        to: 1,
        ..resignation
    };
    cluster.at(1).step(12, to_first).expect("is taken");
    for _ in 0..DELIVERIES_MAX {
        if cluster.at(1).is_removed() {
            break;
        }
        cluster.deliver_some(1);
    }
    assert!(cluster.at(1).is_removed());
    for id in [2, 3] {
        assert!(!cluster.at(id).membership().was_removed(11), "{id}");
    }
    // What it said is lost, and all forget what they may.
    cluster.on_the_way.clear();
    for id in [1, 2, 3] {
        cluster.restart(id);
    }
    let leader = cluster.tick_until_led_by(&[2, 3]);
    cluster.propose_all(leader, 1..=1);
    cluster.tick(5);
    assert_eq!(cluster.voters(leader), [2, 3]);
    assert_eq!(cluster.ended(1), Some(&FatalError::Removed { id: 1 }));
}

#[test]
fn once_a_change_is_over_the_others_can_bear_what_they_should_without_the_leader() {
    let mut cluster = Cluster::new(2, 1_000, 100);
    cluster.elect(1);
    cluster.learner(1, 3);
    let before = cluster.members[&1].changed.len();
    assert_eq!(cluster.ask(1, &promote(3)), Ok(Proposed::Taken));
    for _ in 0..DELIVERIES_MAX {
        if cluster.members[&1].changed.len() > before {
            break;
        }
        assert_eq!(cluster.ask(1, &remove(3)), Err(ChangeError::InProgress));
        cluster.deliver_some(1);
    }
    assert_eq!(cluster.voters(1), [1, 2, 3]);
    // The leader is lost with its disk, and what it said last.
    cluster.isolate(1);
    cluster.on_the_way.clear();
    for id in [2, 3] {
        cluster.restart(id);
    }
    let leader = cluster.tick_until_led_by(&[2, 3]);
    assert_eq!(cluster.voters(leader), [1, 2, 3]);
}

#[test]
fn a_replica_that_was_away_follows_a_leader_that_took_anothers_place_and_id() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.learner(1, 4);
    cluster.isolate(4);
    // Replica 2 comes back on another disk while 4 is away, and leads.
    cluster.change(1, &remove(2));
    cluster.join(2, 22);
    cluster.isolate(4);
    cluster.change(1, &add(2, 22));
    cluster.change(1, &promote(2));
    cluster.at(1).hand_over(Some(2)).expect("has it all");
    cluster.tick_until_led_by(&[2]);
    cluster.propose_all(2, 1..=2);
    cluster.heal();
    cluster.tick(30);
    assert!(cluster.leads(2), "nothing is wrong with it");
    assert_eq!(cluster.instances(4), 2);
    assert_eq!(
        cluster.at(4).membership().get(2).map(|it| it.disk_id),
        Some(22)
    );
}

#[test]
fn a_replica_that_was_away_votes_for_one_that_took_anothers_place_and_id() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.isolate(3);
    // Replica 2 comes back on another disk while 3 is away; then 1 is lost.
    // With 2 and 3 there is a majority, and 2 alone can lead it.
    cluster.join(4, 14);
    cluster.change(1, &add(4, 14));
    cluster.change(1, &replace(2, 4));
    cluster.join(2, 22);
    cluster.isolate(3);
    cluster.change(1, &add(2, 22));
    cluster.change(1, &replace(4, 2));
    cluster.heal();
    cluster.isolate(1);
    cluster.isolate(4);
    let leader = cluster.tick_until_led_by(&[2, 3]);
    assert_eq!(leader, 2);
    cluster.propose_all(2, 1..=1);
    cluster.tick(5);
    assert_eq!(cluster.instances(3), 1);
}

#[test]
fn whoever_is_alone_after_a_removal_knows_it_before_the_removed_one_does() {
    let mut cluster = Cluster::new(2, 1_000, 100);
    cluster.elect(1);
    assert_eq!(cluster.ask(1, &remove(2)), Ok(Proposed::Taken));
    cluster.settle();
    assert_eq!(cluster.ended(2), Some(&FatalError::Removed { id: 2 }));
    // It must not ask for a vote that nobody can give any more.
    cluster.restart(1);
    cluster.tick_until_led_by(&[1]);
    assert_eq!(cluster.voters(1), [1]);
}

#[test]
fn an_id_may_come_back_on_another_disk_and_its_past_is_not_held_against_it() {
    let mut cluster = Cluster::new(3, 10, 50);
    cluster.elect(1);
    cluster.propose_all(1, 1..=15);
    cluster.isolate(3);
    cluster.tick(25);
    // Its disk is lost. What it once said must not count for the new one.
    let mut stale = Message::default();
    stale.set_msg_type(MessageType::MsgAppendResponse);
    stale.from = 3;
    stale.to = 1;
    stale.term = cluster.at(1).term();
    stale.index = cluster.at(1).last_index();
    cluster.join(3, 33);
    cluster.heal();
    assert_eq!(
        cluster.ask(1, &add(3, 33)),
        Err(ChangeError::OtherDisk { id: 3 })
    );
    let refused = cluster.at(1).step(33, stale.clone());
    let Err(StepError::Refused(MessageError::Impostor { from: 3, .. })) = refused else {
        panic!("{refused:?}");
    };
    cluster.change(1, &remove(3));
    assert_eq!(
        cluster.ask(1, &add(3, 13)),
        Err(ChangeError::DiskRemoved { id: 3 })
    );
    cluster.change(1, &add(3, 33));
    let refused = cluster.at(1).step(13, stale);
    let Err(StepError::Refused(MessageError::Impostor { from: 3, .. })) = refused else {
        panic!("{refused:?}");
    };
    cluster.tick(5);
    cluster.change(1, &promote(3));
    cluster.agree();
    assert_eq!(cluster.ended(3), None);
    assert_eq!(cluster.instances(3), 15);
    assert_eq!(cluster.voters(3), [1, 2, 3]);
}

#[test]
fn changes_that_would_do_harm_are_refused_with_the_reason() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.tick(3);
    let refused = [
        (add(2, 99), ChangeError::OtherDisk { id: 2 }),
        (add(4, 12), ChangeError::DiskTaken { id: 4, other: 2 }),
        (promote(9), ChangeError::NotAMember { id: 9 }),
        (remove(1), ChangeError::Leads { id: 1 }),
    ];
    for (change, error) in refused {
        assert_eq!(cluster.ask(1, &change), Err(error));
    }
    assert_eq!(cluster.ask(1, &promote(2)), Ok(Proposed::AlreadySo));
    let address = "replica-2:1".to_owned();
    let member = Member {
        address: address.clone(),
        disk_id: 77,
    };
    let taken = cluster.ask(1, &Change::Add { id: 4, member });
    let (id, other) = (4, 2);
    assert_eq!(taken, Err(ChangeError::AddressTaken { id, address, other }));

    cluster.isolate(2);
    cluster.tick(25);
    let lost = cluster.ask(1, &remove(3)).expect_err("1 alone of two");
    assert!(lost.to_string().contains("replica 2"), "{lost}");
    let insisted = Change::Remove { id: 3, force: true };
    assert_eq!(cluster.ask(1, &insisted), Ok(Proposed::Taken));

    let mut alone = Cluster::new(1, 1_000, 100);
    alone.elect(1);
    assert_eq!(
        alone.ask(1, &remove(1)),
        Err(ChangeError::LastVoter { id: 1 })
    );
}

#[test]
fn a_learner_gets_a_vote_only_when_it_has_caught_up_and_is_heard() {
    let mut cluster = Cluster::new(1, 5_000, 5_000);
    cluster.elect(1);
    cluster.learner(1, 2);
    cluster.isolate(2);
    cluster.propose_all(1, 1..=1_100);
    let behind = cluster.ask(1, &promote(2)).expect_err("it lacks 1,100");
    let ChangeError::Behind { id: 2, behind } = behind else {
        panic!("{behind:?}");
    };
    assert!(behind >= 1_000);
    cluster.heal();
    cluster.tick(5);
    cluster.isolate(2);
    cluster.tick(25);
    assert_eq!(
        cluster.ask(1, &promote(2)),
        Err(ChangeError::NotHeard { id: 2 })
    );
    cluster.heal();
    cluster.tick(5);
    cluster.change(1, &promote(2));
    assert_eq!(cluster.voters(2), [1, 2]);
}

#[test]
fn leadership_goes_to_whom_it_is_given_and_never_to_a_learner() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.learner(1, 4);
    let refused = cluster.at(1).hand_over(Some(4));
    assert_eq!(refused, Err(HandOverError::NotAVoter { id: 4 }));
    assert_eq!(cluster.at(1).hand_over(Some(1)), Ok(()));
    assert_eq!(cluster.at(1).hand_over(Some(3)), Ok(()));
    cluster.settle();
    assert_eq!(cluster.at(3).role(), Role::Leader);

    let mut pair = Cluster::new(1, 1_000, 100);
    pair.elect(1);
    pair.learner(1, 2);
    let nobody = pair.at(1).hand_over(None);
    assert_eq!(nobody, Err(HandOverError::NoSuccessor));
}

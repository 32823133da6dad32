//! What replicas do when they are told that their leader's process has ended.

use super::*;

fn led_by_one(size: u64) -> Cluster {
    let mut cluster = Cluster::new(size, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=3);
    cluster.agree();
    cluster
}

fn kill(cluster: &mut Cluster, id: u64) {
    let ended = FatalError::Raft("killed".to_owned());
    cluster.members.get_mut(&id).expect("a member").ended = Some(ended);
}

#[test]
fn the_first_of_those_who_are_told_leads_without_a_timeout() {
    let mut cluster = led_by_one(3);
    kill(&mut cluster, 1);
    cluster.at(3).report_gone(1);
    cluster.at(2).report_gone(1);
    cluster.settle();
    assert!(cluster.leads(2));
    assert_eq!(cluster.at(3).leader_id(), 2);
    cluster.propose(2, 9).expect("it leads");
    cluster.settle();
    assert_eq!(cluster.at(2).applied(), cluster.at(3).applied());
}

#[test]
fn it_asks_again_while_the_others_hear_of_it() {
    let mut cluster = led_by_one(3);
    kill(&mut cluster, 1);
    cluster.at(2).report_gone(1);
    cluster.settle();
    assert!(!cluster.leads(2), "nobody else was told");
    cluster.at(3).report_gone(1);
    cluster.tick(2);
    assert!(cluster.leads(2) || cluster.leads(3));
}

#[test]
fn another_one_asks_when_the_first_lacks_what_was_committed() {
    let mut cluster = led_by_one(3);
    cluster.isolate(2);
    cluster.propose_all(1, 4..=6);
    let committed = cluster.at(1).commit();
    cluster.heal();
    kill(&mut cluster, 1);
    cluster.at(2).report_gone(1);
    cluster.at(3).report_gone(1);
    cluster.tick(2);
    assert!(cluster.leads(3));
    cluster.agree();
    assert!(cluster.at(2).applied() >= committed);
}

#[test]
fn five_replicas_with_two_dead_elect_one_as_well() {
    let mut cluster = led_by_one(5);
    kill(&mut cluster, 1);
    kill(&mut cluster, 2);
    for id in 3..=5 {
        cluster.at(id).report_gone(1);
    }
    cluster.tick(2);
    let leader = cluster.tick_until_led_by(&[3, 4, 5]);
    assert_eq!(leader, 3);
}

#[test]
fn a_rumour_costs_a_living_leader_nothing() {
    let mut cluster = led_by_one(3);
    let term = cluster.at(1).term();
    cluster.at(2).report_gone(1);
    cluster.settle();
    cluster.tick(3);
    assert!(cluster.leads(1));
    assert_eq!(cluster.at(2).leader_id(), 1);
    assert_eq!(cluster.at(1).term(), term);
    // Nor does one about somebody who does not lead.
    cluster.at(2).report_gone(3);
    cluster.at(1).report_gone(3);
    cluster.settle();
    assert!(cluster.leads(1));
    assert_eq!(cluster.at(2).leader_id(), 1);
}

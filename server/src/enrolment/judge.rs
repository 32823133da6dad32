//! What the answers of other replicas mean for one whose data directory is empty. Pure.

use std::collections::BTreeMap;

use trimtab_proto::internal::v1::IntroduceResponse;

use super::EnrolError;
use crate::consensus::membership::{Member, cluster_id};

/// A replica without a cluster.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    pub(super) id: u64,
    pub(super) disk_id: u64,
    pub(super) address: String,
}

/// What a replica said, or why it did not.
pub(super) type Answer = Result<IntroduceResponse, String>;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask again; these words say what is waited for.
    Wait(String),
    /// A cluster knows this replica, and was founded by others than those who
    /// answer now: it is to be taken for a member without a log.
    Join(u64),
    /// All founders are known.
    Found(BTreeMap<u64, Member>),
}

/// For a founder: `addresses` are those of all founders, `answers` those of
/// all others. A cluster is founded by all of them or by none: a founder that
/// was founded with others, or lost its disk since, would give votes twice.
pub(super) fn judge_founders(
    own: &Newcomer,
    addresses: &BTreeMap<u64, String>,
    answers: &BTreeMap<u64, Answer>,
) -> Result<Verdict, EnrolError> {
    let mut founders = BTreeMap::from([(
        own.id,
        Member {
            address: own.address.clone(),
            disk_id: own.disk_id,
        },
    )]);
    let (mut silent, mut doubts, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
    for (id, answer) in answers {
        let Ok(answer) = answer else {
            silent.push(*id);
            continue;
        };
        if let Some(doubt) = doubt(*id, answer, addresses) {
            doubts.push(doubt);
            continue;
        }
        if answer.cluster_id != 0 {
            check_known(own, *id, answer)?;
            clusters.push(answer.cluster_id);
        }
        let member = Member {
            address: answer.address.clone(),
            disk_id: answer.disk_id,
        };
        founders.insert(*id, member);
    }
    let is_whole = silent.is_empty() && doubts.is_empty();
    if is_whole && clusters.iter().all(|it| *it == cluster_id(&founders)) {
        return Ok(Verdict::Found(founders));
    }
    if let Some(cluster) = clusters.first() {
        return Ok(Verdict::Join(*cluster));
    }
    let mut words = doubts;
    if !silent.is_empty() {
        words.push(format!("{} to answer", list(&silent)));
    }
    Ok(Verdict::Wait(words.join("; ")))
}

/// Why this founder's answer is of no use yet.
fn doubt(id: u64, answer: &IntroduceResponse, addresses: &BTreeMap<u64, String>) -> Option<String> {
    if answer.replica_id != id {
        let address = addresses.get(&id).map_or("", String::as_str);
        let found = answer.replica_id;
        return Some(format!(
            "replica {id} to be at {address}, where replica {found} answers: compare --id and --peers of both"
        ));
    }
    if answer.cluster_id != 0 {
        return None;
    }
    let others: Vec<u64> = answer.founders.clone();
    if others.iter().copied().eq(addresses.keys().copied()) {
        return None;
    }
    Some(match others.is_empty() {
        true => format!(
            "replica {id}, which was started with --join and founds no cluster: start it with the same --peers"
        ),
        false => format!(
            "replica {id} to be started with the same --peers: it names {}",
            list(&others)
        ),
    })
}

/// For a replica that waits to be taken in: whether one of those it asked
/// knows it.
pub(super) fn judge_join(own: &Newcomer, answers: &[Answer]) -> Result<Verdict, EnrolError> {
    let heard = || answers.iter().flatten();
    if heard().any(|answer| answer.removed) {
        return Err(EnrolError::Removed { id: own.id });
    }
    let mut members = heard().filter(|answer| answer.cluster_id != 0);
    if let Some(knows) = members.clone().find(|it| it.known_disk == own.disk_id) {
        return Ok(Verdict::Join(knows.cluster_id));
    }
    if members.any(|answer| answer.known_disk != 0) {
        return Ok(Verdict::Wait(format!(
            "replica {} to be forgotten, which is known there with another data directory: if that one is lost, `trimtab cluster remove {}` first, then `trimtab cluster add {}`",
            own.id, own.id, own.address
        )));
    }
    let silent: Vec<&str> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err().map(String::as_str))
        .collect();
    Ok(Verdict::Wait(match silent.len() == answers.len() {
        true => format!("a member to answer: {}", silent.join("; ")),
        false => format!(
            "a member to take it in: `trimtab cluster add {}`",
            own.address
        ),
    }))
}

/// A replica that has a cluster must know this one by its very disk.
fn check_known(own: &Newcomer, by: u64, answer: &IntroduceResponse) -> Result<(), EnrolError> {
    let id = own.id;
    if answer.removed {
        return Err(EnrolError::Removed { id });
    }
    match answer.known_disk {
        known if known == own.disk_id => Ok(()),
        0 => Err(EnrolError::Unknown { id, by }),
        _ => Err(EnrolError::LostDisk { id, by }),
    }
}

fn list(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    match ids.len() {
        1 => format!("replica {}", ids.concat()),
        _ => format!("replicas {}", ids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::protocol::PROTOCOL;

    fn own() -> Newcomer {
        Newcomer {
            id: 1,
            disk_id: 11,
            address: "a:1".to_owned(),
        }
    }

    fn addresses() -> BTreeMap<u64, String> {
        (1..=3).map(|id| (id, format!("a:{id}"))).collect()
    }

    fn fresh(id: u64) -> IntroduceResponse {
        IntroduceResponse {
            protocol: PROTOCOL,
            replica_id: id,
            disk_id: 10 + id,
            address: format!("a:{id}"),
            founders: vec![1, 2, 3],
            ..IntroduceResponse::default()
        }
    }

    fn founded(id: u64, known_disk: u64) -> IntroduceResponse {
        IntroduceResponse {
            cluster_id: cluster_id(&all()),
            founders: Vec::new(),
            known_disk,
            ..fresh(id)
        }
    }

    fn all() -> BTreeMap<u64, Member> {
        let member = |id| Member {
            address: format!("a:{id}"),
            disk_id: 10 + id,
        };
        (1..=3).map(|id| (id, member(id))).collect()
    }

    fn judged(second: Answer, third: Answer) -> Result<Verdict, EnrolError> {
        let answers = BTreeMap::from([(2, second), (3, third)]);
        judge_founders(&own(), &addresses(), &answers)
    }

    fn waits(verdict: Result<Verdict, EnrolError>) -> String {
        match verdict {
            Ok(Verdict::Wait(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cluster_is_founded_when_all_founders_have_answered() {
        let down = || Err("is down".to_owned());
        assert_eq!(
            judged(Ok(fresh(2)), Ok(fresh(3))),
            Ok(Verdict::Found(all()))
        );
        assert!(waits(judged(down(), down())).contains("replicas 2, 3"));
        assert!(waits(judged(Ok(fresh(2)), down())).contains("replica 3"));
        // One of them was quicker, with the same founders.
        let quicker = judged(Ok(founded(2, 11)), Ok(fresh(3)));
        assert_eq!(quicker, Ok(Verdict::Found(all())));
    }

    #[test]
    fn whoever_is_known_to_a_cluster_of_other_founders_joins_it() {
        let cluster = cluster_id(&all());
        let silent = judged(Ok(founded(2, 11)), Err("is down".to_owned()));
        assert_eq!(silent, Ok(Verdict::Join(cluster)));
        let mut other = fresh(3);
        other.disk_id = 99;
        let wiped = judged(Ok(founded(2, 11)), Ok(other));
        assert_eq!(wiped, Ok(Verdict::Join(cluster)));
    }

    #[test]
    fn a_replica_that_lost_its_disk_or_its_place_is_refused_with_what_to_do() {
        let lost = judged(Ok(founded(2, 99)), Ok(fresh(3))).expect_err("another disk");
        assert!(
            lost.to_string().contains("trimtab cluster remove 1"),
            "{lost}"
        );
        let unknown = judged(Ok(founded(2, 0)), Ok(fresh(3))).expect_err("not known");
        assert!(unknown.to_string().contains("--join"), "{unknown}");
        let mut removed = founded(2, 0);
        removed.removed = true;
        let removed = judged(Ok(removed), Ok(fresh(3)));
        assert_eq!(removed, Err(EnrolError::Removed { id: 1 }));
    }

    #[test]
    fn contradictions_are_waited_out_and_named() {
        let mut pair = fresh(2);
        pair.founders = vec![1, 2];
        assert!(waits(judged(Ok(pair), Ok(fresh(3)))).contains("names replicas 1, 2"));
        let mut joins = fresh(2);
        joins.founders.clear();
        assert!(waits(judged(Ok(joins), Ok(fresh(3)))).contains("--join"));
        assert!(waits(judged(Ok(fresh(3)), Ok(fresh(3)))).contains("replica 3 answers"));
    }

    #[test]
    fn a_replica_joins_as_soon_as_one_member_knows_it() {
        let down = || Err("a:9 is down".to_owned());
        let joins = judge_join(&own(), &[down(), Ok(founded(2, 11))]);
        assert_eq!(joins, Ok(Verdict::Join(cluster_id(&all()))));
        assert!(waits(judge_join(&own(), &[down()])).contains("a:9 is down"));
        let asks = waits(judge_join(&own(), &[down(), Ok(founded(2, 0))]));
        assert!(asks.contains("trimtab cluster add a:1"), "{asks}");
        let other = waits(judge_join(&own(), &[Ok(founded(2, 99))]));
        assert!(other.contains("remove 1"), "{other}");
    }
}

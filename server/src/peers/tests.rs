//! Who is known, and what is known of a call that failed.

use tokio::net::TcpListener;

use super::*;

fn contact(address: &str, disk_id: u64) -> Contact {
    let address = address.to_owned();
    Contact { address, disk_id }
}

fn own() -> Own {
    Own {
        id: 1,
        cluster_id: 7,
        contact: contact("127.0.0.1:1", 11),
    }
}

fn peers(address: &str) -> Peers {
    let peers = Peers::new(own(), BTreeMap::new()).expect("no addresses");
    let members = [(1, own().contact), (2, contact(address, 12))];
    peers.follow(members.into_iter());
    peers
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    drop(listener);
    let peers = peers(&address);
    let error = peers.replica_status(2).await.expect_err("no one listens");
    assert!(error.happened_not(), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn silence_after_connecting_means_that_no_one_knows() {
    // It accepts connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    let peers = peers(&address);
    // Long enough to connect on a busy machine.
    let timeout = Duration::from_secs(2);
    let asked = peers.propose(2, Bytes::from_static(b"x"), false, timeout);
    let error = asked.await.expect_err("no one answers");
    assert!(!error.happened_not(), "{error:?}");
    assert!(matches!(error, PeerError::Lost { .. }), "{error:?}");
}

#[tokio::test]
async fn strangers_and_bad_addresses_are_named() {
    let peers = peers("127.0.0.1:2");
    assert_eq!(peers.ids(), [2]);
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:2"));
    assert_eq!(peers.address(1), None);
    let error = peers.replica_status(3).await.expect_err("is no member");
    assert!(error.to_string().contains("replica 3"), "{error}");
    let flags = BTreeMap::from([(2, "no address".to_owned())]);
    let error = Peers::new(own(), flags).expect_err("has a space");
    assert!(error.to_string().contains("no address"), "{error}");
}

#[tokio::test]
async fn flags_count_more_than_the_log_and_a_members_own_word_more_than_both() {
    let flags = BTreeMap::from([(2, "127.0.0.1:22".to_owned())]);
    let peers = Peers::new(own(), flags).expect("addresses");
    let logged = || [(2, contact("127.0.0.1:2", 12))].into_iter();
    peers.follow(logged());
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:22"));
    // Another data directory's word is not the member's.
    peers.meet(2, contact("127.0.0.1:99", 99), false);
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:22"));
    peers.meet(2, contact("127.0.0.1:222", 12), false);
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:222"));
    peers.follow(logged());
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:222"));
}

#[tokio::test]
async fn whoever_is_no_member_yet_is_answered_but_not_counted() {
    let peers = peers("127.0.0.1:2");
    peers.meet(4, contact("127.0.0.1:4", 14), false);
    assert_eq!(peers.ids(), [2]);
    assert!(peers.correspondent(4).is_some());
    for id in 100..200 {
        peers.meet(id, contact("127.0.0.1:4", id), false);
    }
    assert_eq!(peers.read().guests.len(), GUESTS_MAX);
    let members = [(199, contact("127.0.0.1:4", 199))];
    peers.follow(members.into_iter());
    assert_eq!(peers.ids(), [199]);
    assert!(!peers.read().guests.contains_key(&199));
}

#[tokio::test]
async fn a_leader_on_another_disk_than_its_members_is_answered_there() {
    let peers = peers("127.0.0.1:2");
    let answered = |peers: &Peers| peers.correspondent(2).map(|peer| peer.contact);
    // It leads, and this replica has not heard yet how it came to.
    let there = contact("127.0.0.1:99", 99);
    peers.meet(2, there.clone(), true);
    assert_eq!(answered(&peers), Some(there.clone()));
    assert_eq!(peers.address(2).as_deref(), Some("127.0.0.1:2"));
    // The member speaks for itself.
    let member = contact("127.0.0.1:2", 12);
    peers.meet(2, member.clone(), false);
    assert_eq!(answered(&peers), Some(member));
    // The log says it, too.
    peers.meet(2, there.clone(), true);
    peers.follow([(2, there.clone())].into_iter());
    assert_eq!(answered(&peers), Some(there));
    assert!(peers.read().guests.is_empty());
}

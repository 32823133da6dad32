//! What is known of a call that failed.

use tokio::net::TcpListener;

use super::*;

fn members(address: &str) -> BTreeMap<u64, String> {
    BTreeMap::from([(1, "127.0.0.1:1".to_owned()), (2, address.to_owned())])
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    drop(listener);
    let peers = Peers::new(1, 7, &members(&address)).expect("addresses");
    let error = peers.replica_status(2).await.expect_err("no one listens");
    assert!(error.happened_not(), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn silence_after_connecting_means_that_no_one_knows() {
    // It accepts connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound").to_string();
    let peers = Peers::new(1, 7, &members(&address)).expect("addresses");
    let timeout = Duration::from_millis(200);
    let asked = peers.propose(2, Bytes::from_static(b"x"), false, timeout);
    let error = asked.await.expect_err("no one answers");
    assert!(!error.happened_not(), "{error:?}");
    assert!(matches!(error, PeerError::Lost { .. }), "{error:?}");
}

#[tokio::test]
async fn strangers_and_bad_addresses_are_named() {
    let peers = Peers::new(1, 7, &members("127.0.0.1:2")).expect("addresses");
    assert_eq!(peers.ids().collect::<Vec<_>>(), [2]);
    assert_eq!(peers.address(2), Some("127.0.0.1:2"));
    assert_eq!(peers.address(1), None);
    let error = peers.replica_status(3).await.expect_err("is no member");
    assert!(error.to_string().contains("replica 3"), "{error}");
    let error = Peers::new(1, 7, &members("no address")).expect_err("has a space");
    assert!(error.to_string().contains("no address"), "{error}");
}

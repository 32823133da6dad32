//! Which replica is asked, and what may be asked twice.

use super::*;

#[tokio::test]
async fn endpoints_are_read_with_and_without_scheme() {
    let cluster = Cluster::parse("127.0.0.1:7070, http://127.0.0.1:7071/,[::1]:7072").unwrap();
    let read: Vec<_> = cluster.endpoints().collect();
    assert_eq!(read, ["127.0.0.1:7070", "127.0.0.1:7071", "[::1]:7072"]);
}

#[tokio::test]
async fn a_bad_endpoint_is_named() {
    for bad in ["", "127.0.0.1", "https://127.0.0.1:1", "a b:1"] {
        let error = Cluster::parse(bad).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{bad}: {error}");
        assert!(error.to_string().contains(bad), "{bad}: {error}");
    }
}

#[tokio::test]
async fn moving_on_is_done_once_for_all_who_saw_the_same_replica_fail() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3").unwrap();
    let (position, _) = cluster.channel();
    cluster.move_on(position);
    cluster.move_on(position);
    assert_eq!(cluster.current_endpoint(), "127.0.0.1:2");
    assert_eq!(
        cluster.clone().starting_at(5).current_endpoint(),
        "127.0.0.1:3"
    );
}

#[tokio::test]
async fn a_server_that_refuses_the_request_is_final() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
    let error = cluster
        .call::<(), _, _>("Shift", Repeat::Safe, DEFAULT_DEADLINE, |_| async {
            Err(Status::failed_precondition("2 ready, 10 needed"))
        })
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::Refused(text) if text == "2 ready, 10 needed"));
    assert_eq!(cluster.current_endpoint(), "127.0.0.1:1");
}

#[tokio::test(start_paused = true)]
async fn replicas_are_tried_until_the_deadline_and_named() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
    let error = cluster
        .call::<(), _, _>("Resolve", Repeat::Read, DEFAULT_DEADLINE, |_| async {
            Err(Status::unavailable("no quorum"))
        })
        .await
        .unwrap_err();
    let Error::Unavailable { after, tried, .. } = error else {
        panic!("{error}");
    };
    assert!(after >= DEFAULT_DEADLINE);
    assert_eq!(tried.0.len(), 2);
    assert_eq!(tried.0[1].said, "no quorum");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_what_must_not_be_repeated_is_an_unknown_outcome() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
    let mut attempts = 0;
    let error = cluster
        .call::<(), _, _>("Shift", Repeat::IfUnsent, DEFAULT_DEADLINE, |_| {
            attempts += 1;
            std::future::pending()
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error}");
    assert_eq!(attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_be_done_is_not_said_to_be_not_done() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
    let mut attempts = 0;
    let error = cluster
        .call::<(), _, _>("Shift", Repeat::Safe, DEFAULT_DEADLINE, |_| {
            attempts += 1;
            let status = match attempts {
                1 => Status::unknown("leadership was lost"),
                _ => Status::unavailable("no quorum"),
            };
            async { Err(status) }
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error}");
    assert!(error.to_string().contains("no quorum"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_too_much_to_do_is_asked_again_when_it_says() {
    let cluster = Cluster::parse("127.0.0.1:1,127.0.0.1:2").unwrap();
    let busy = || {
        let mut status = Status::resource_exhausted("too many requests wait");
        status
            .metadata_mut()
            .insert(PUSHBACK, "400".parse().unwrap());
        status
    };
    let begun = Instant::now();
    let mut attempts = 0;
    let answered = cluster
        .call("Register", Repeat::IfUnsent, DEFAULT_DEADLINE, |_| {
            attempts += 1;
            let answer = if attempts > 2 {
                Ok(Response::new(7))
            } else {
                Err(busy())
            };
            async { answer }
        })
        .await;
    assert_eq!(answered.unwrap(), 7);
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );

    let error = cluster
        .call::<(), _, _>("Register", Repeat::Safe, DEFAULT_DEADLINE, |_| async {
            Err(busy())
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    // What says nothing of later is full for good.
    let error = cluster
        .call::<(), _, _>("Register", Repeat::Safe, DEFAULT_DEADLINE, |_| async {
            Err(Status::resource_exhausted("20,000 instances"))
        })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Other(_)), "{error}");
}

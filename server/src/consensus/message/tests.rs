//! Messages there and back, and what must not get in.

use super::*;

fn append() -> wire::Message {
    wire::Message {
        msg_type: 3,
        to: 1,
        from: 2,
        term: 5,
        log_term: 4,
        index: 9,
        entries: vec![entry(10, 4), entry(11, 5)],
        commit: 9,
        commit_term: 4,
        request_snapshot: 1,
        reject: true,
        reject_hint: 3,
        context: Bytes::from_static(b"context"),
        priority: -1,
        snapshot: None,
    }
}

fn entry(index: u64, term: u64) -> wire::Entry {
    wire::Entry {
        entry_type: 0,
        term,
        index,
        data: Bytes::from_static(b"data"),
        context: Bytes::from_static(b"id"),
    }
}

fn snapshot() -> wire::Message {
    wire::Message {
        msg_type: 7,
        to: 1,
        from: 2,
        term: 5,
        snapshot: Some(wire::Snapshot {
            data: Bytes::from_static(b"state"),
            metadata: Some(wire::SnapshotMetadata {
                index: 8,
                term: 5,
                conf_state: Some(voters(&[1, 2, 3])),
            }),
        }),
        ..wire::Message::default()
    }
}

fn voters(ids: &[u64]) -> wire::ConfState {
    wire::ConfState {
        voters: ids.to_vec(),
        ..wire::ConfState::default()
    }
}

fn snapshot_naming(members: wire::ConfState) -> wire::Message {
    let mut message = snapshot();
    if let Some(metadata) = message.snapshot.as_mut().and_then(|s| s.metadata.as_mut()) {
        metadata.conf_state = Some(members);
    }
    message
}

fn rule(message: wire::Message) -> String {
    match from_wire(message) {
        Err(MessageError::Malformed { rule, .. }) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_comes_back_as_it_was() {
    for message in [append(), snapshot()] {
        let converted = from_wire(message.clone()).expect("is fine");
        assert_eq!(to_wire(converted), message);
    }
}

#[test]
fn only_kinds_that_replicas_send_each_other_get_in() {
    let accepted: Vec<u32> = (0..30).filter(|kind| peer_kind(*kind).is_ok()).collect();
    assert_eq!(accepted, [3, 4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 18]);
    for found in [0, 2, 13, 19, u32::MAX] {
        let message = wire::Message {
            msg_type: found,
            ..append()
        };
        assert_eq!(from_wire(message), Err(MessageError::Kind { found }));
    }
}

#[test]
fn an_unknown_entry_kind_is_refused() {
    let mut message = append();
    message.entries[1].entry_type = 3;
    let expected = MessageError::EntryKind {
        index: 11,
        found: 3,
    };
    assert_eq!(from_wire(message), Err(expected));
}

#[test]
fn gaps_and_impossible_terms_are_refused() {
    let mut gap = append();
    gap.entries.remove(0);
    assert!(rule(gap).contains("entry 11 follows 9"));

    let mut overflow = append();
    overflow.index = u64::MAX;
    assert!(rule(overflow).contains("follows"));

    let mut backwards = append();
    backwards.entries[1].term = 3;
    assert!(rule(backwards).contains("term 3"));

    let mut from_the_future = append();
    from_the_future.entries[1].term = 6;
    assert!(rule(from_the_future).contains("term 6"));

    let mut timeless = append();
    timeless.entries.clear();
    timeless.term = 0;
    assert!(rule(timeless).contains("term 0"));
}

#[test]
fn reads_carry_exactly_their_id() {
    for msg_type in [15, 16] {
        let message = wire::Message {
            msg_type,
            ..append()
        };
        assert!(rule(message).contains("one entry"));
    }
}

#[test]
fn a_snapshot_names_its_receiver_and_roles_that_can_be() {
    let mut none = snapshot();
    none.snapshot = None;
    assert!(rule(none).contains("metadata"));
    assert!(rule(snapshot_naming(voters(&[]))).contains("at least one"));
    assert!(rule(snapshot_naming(voters(&[2, 3]))).contains("receiver"));
    assert!(rule(snapshot_naming(voters(&[1, 2, 2]))).contains("once"));
    assert!(rule(snapshot_naming(voters(&[1, 0]))).contains("above 0"));
    let mut twice = voters(&[1, 2]);
    twice.learners = vec![2];
    assert!(rule(snapshot_naming(twice)).contains("no one as voter and learner"));
    let mut learner = voters(&[2, 3]);
    learner.learners = vec![1];
    assert!(from_wire(snapshot_naming(learner)).is_ok());
    let mut leaving = voters(&[2, 3]);
    leaving.voters_outgoing = vec![1, 2, 3];
    leaving.auto_leave = true;
    assert!(from_wire(snapshot_naming(leaving)).is_ok());
}

#[test]
fn a_change_of_members_that_raft_could_not_read_does_not_get_in() {
    let with = |data: &'static [u8]| {
        let mut message = append();
        message.entries[1].entry_type = 2;
        message.entries[1].data = Bytes::from_static(data);
        from_wire(message)
    };
    // Raft's own way out of a change says nothing.
    assert!(with(b"").is_ok());
    assert!(matches!(
        with(b"\xff\xff"),
        Err(MessageError::Change { index: 11, .. })
    ));
    // A step of a kind that is not known, for replica 3.
    assert!(matches!(
        with(b"\x12\x04\x08\x07\x10\x03"),
        Err(MessageError::Change { index: 11, .. })
    ));
    let mut older = append();
    older.entries[0].entry_type = 1;
    assert!(matches!(
        from_wire(older),
        Err(MessageError::EntryKind { found: 1, .. })
    ));
}

fn hex(message: &impl prost::Message) -> String {
    let bytes = message.encode_to_vec();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_stored_of_the_library_s_values_keeps_its_bytes() {
    let mut entry = eraftpb::Entry::default();
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry.term = 5;
    entry.index = 300;
    entry.data = Bytes::from_static(b"\x12\x02\x10\x03");
    entry.context = Bytes::from_static(b"id");
    assert_eq!(
        hex(&entry_to_wire(entry.clone())),
        "0802100518ac022204120210032a026964"
    );
    assert_eq!(entry_from_wire(entry_to_wire(entry.clone())), Ok(entry));

    let hard_state = eraftpb::HardState {
        term: 5,
        vote: 2,
        commit: 300,
    };
    let stored = hard_state_to_wire(&hard_state);
    assert_eq!(hex(&stored), "0805100218ac02");
    assert_eq!(hard_state_from_wire(stored), hard_state);

    let mut snapshot = eraftpb::Snapshot::default();
    snapshot.mut_metadata().index = 8;
    snapshot.mut_metadata().term = 5;
    snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2, 300];
    snapshot.data = Bytes::from_static(b"state");
    let stored = snapshot_to_wire(snapshot.clone());
    assert_eq!(hex(&stored), "0a057374617465120c0a060a040102ac0210081805");
    assert_eq!(snapshot_from_wire(stored), snapshot);
}

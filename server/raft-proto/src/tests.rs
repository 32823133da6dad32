//! The encodings, byte by byte as raft-proto 0.7.0 over rust-protobuf 2.28 wrote them, and the conversions.

use std::fmt::Debug;

use bytes::Bytes;
use protobuf::Message as _;

use crate::eraftpb::{
    ConfChange, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
    HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};
use crate::{ConfChangeI, conf_state_eq, new_conf_change_single, parse_conf_change};

fn entry() -> Entry {
    Entry {
        entry_type: EntryType::EntryConfChangeV2.into(),
        term: 5,
        index: 300,
        data: Bytes::from_static(b"data"),
        context: Bytes::from_static(b"id"),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        data: Bytes::from_static(b"state"),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(ConfState::from(([1, 2, 3], []))),
            index: 8,
            term: 5,
        }),
    }
}

fn message() -> Message {
    Message {
        msg_type: MessageType::MsgRequestPreVoteResponse.into(),
        to: 1,
        from: 2,
        term: 5,
        log_term: 4,
        index: 9,
        entries: vec![entry()],
        commit: 7,
        snapshot: Some(Box::new(snapshot())),
        reject: true,
        reject_hint: 3,
        context: Bytes::from_static(b"context"),
        request_snapshot: 6,
        deprecated_priority: 8,
        commit_term: 3,
        priority: -1,
    }
}

fn members() -> ConfState {
    ConfState {
        voters: vec![1, 2, 300],
        learners: vec![4],
        voters_outgoing: vec![1],
        learners_next: vec![2],
        auto_leave: true,
    }
}

fn change() -> ConfChange {
    ConfChange {
        id: 9,
        change_type: ConfChangeType::AddLearnerNode.into(),
        node_id: 4,
        context: Bytes::from_static(b"addr"),
    }
}

fn changes() -> ConfChangeV2 {
    ConfChangeV2 {
        transition: ConfChangeTransition::Explicit.into(),
        changes: vec![
            new_conf_change_single(4, ConfChangeType::AddNode),
            new_conf_change_single(3, ConfChangeType::RemoveNode),
        ],
        context: Bytes::from_static(b"addr"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[track_caller]
fn is_read_from<M: protobuf::Message + PartialEq + Debug>(message: &M, encoded: &str) {
    let mut read = M::default();
    read.merge_from_bytes(&bytes(encoded)).expect("decodes");
    assert_eq!(&read, message);
    let length = u32::try_from(encoded.len() / 2).expect("short");
    assert_eq!(message.compute_size(), length);
}

#[track_caller]
fn is_encoded_as<M: protobuf::Message + PartialEq + Debug>(message: &M, encoded: &str) {
    is_read_from(message, encoded);
    let written = message.write_to_bytes().expect("encodes");
    assert_eq!(hex(&written), encoded);
}

#[test]
fn what_is_stored_has_the_bytes_it_always_had() {
    is_encoded_as(&Entry::default(), "");
    is_encoded_as(&entry(), "0802100518ac0222046461746132026964");
    let hard_state = HardState {
        term: 5,
        vote: 2,
        commit: 300,
    };
    is_encoded_as(&hard_state, "0805100218ac02");
    is_encoded_as(&members(), "0801080208ac021004180120022801");
    is_encoded_as(&snapshot(), "0a057374617465120c0a0608010802080310081805");
    is_encoded_as(&changes(), "0802120210041204080110031a0461646472");
}

// rust-protobuf wrote these fields in the order they were declared in, prost
// writes them in the order of their numbers. Both read both.
#[test]
fn messages_and_old_changes_are_read_as_they_were_written() {
    let message = message();
    is_read_from(
        &message,
        concat!(
            "0812100118022005280430093a110802100518ac0222046461746132026964400778034a15",
            "0a057374617465120c0a06080108020803100818056806500158036207636f6e74657874",
            "70088001ffffffffffffffffff01",
        ),
    );
    let written = message.write_to_bytes().expect("encodes");
    is_encoded_as(&message, &hex(&written));

    is_read_from(&change(), "100218042204616464720809");
    is_encoded_as(&change(), "080910021804220461646472");
}

#[test]
fn members_packed_together_are_read_too() {
    let mut read = ConfState::default();
    read.merge_from_bytes(&bytes("0a040102ac02"))
        .expect("decodes");
    assert_eq!(read.voters, [1, 2, 300]);
}

#[test]
fn a_number_that_is_not_known_is_kept_and_reads_as_the_first() {
    let mut read = Message::default();
    read.merge_from_bytes(&[0x08, 0x63]).expect("decodes");
    assert_eq!(read.msg_type, 99);
    assert_eq!(read.get_msg_type(), MessageType::MsgHup);
    assert!(MessageType::try_from(read.msg_type).is_err());
}

#[test]
fn a_part_that_is_not_there_reads_as_empty() {
    let mut message = Message::default();
    assert!(message.get_snapshot().is_empty());
    assert_eq!(message.get_snapshot().get_metadata().index, 0);
    let metadata = message.get_snapshot().get_metadata();
    assert!(metadata.get_conf_state().get_voters().is_empty());
    assert_eq!(message.take_snapshot(), Snapshot::default());

    message.set_snapshot(snapshot());
    assert!(!message.get_snapshot().is_empty());
    assert_eq!(message.take_snapshot(), snapshot());
    assert_eq!(message.snapshot, None);

    let mut made = Snapshot::default();
    made.mut_metadata().mut_conf_state().voters = vec![1];
    assert_eq!(made.get_metadata().get_conf_state().get_voters(), [1]);
    assert_eq!(made.take_metadata().take_conf_state().voters, [1]);
    assert_eq!(made.metadata, None);
}

#[test]
fn members_are_compared_whatever_their_order() {
    let left = members();
    let mut right = left.clone();
    right.voters.reverse();
    assert!(conf_state_eq(&left, &right));
    for change in [
        |members: &mut ConfState| members.voters = vec![1, 2, 4],
        |members: &mut ConfState| members.learners.push(5),
        |members: &mut ConfState| members.voters_outgoing.clear(),
        |members: &mut ConfState| members.learners_next = vec![3],
        |members: &mut ConfState| members.auto_leave = false,
    ] {
        let mut other = left.clone();
        change(&mut other);
        assert!(!conf_state_eq(&left, &other), "{other:?}");
    }
}

#[test]
fn changes_are_read_from_words() {
    let expected = vec![
        new_conf_change_single(1, ConfChangeType::AddNode),
        new_conf_change_single(20, ConfChangeType::AddLearnerNode),
        new_conf_change_single(3, ConfChangeType::RemoveNode),
    ];
    assert_eq!(parse_conf_change(" v1 l20\nr3 "), Ok(expected));
    assert_eq!(parse_conf_change(" \n"), Ok(Vec::new()));
    for wrong in ["v", "x1", "1", "v-1", "vé", "é1"] {
        let refused = parse_conf_change(&format!("v1 {wrong}"));
        assert!(refused.is_err_and(|error| error.contains(wrong)), "{wrong}");
    }
}

#[test]
fn an_older_change_is_the_same_newer_one() {
    let older = change();
    let newer = ConfChangeV2 {
        transition: ConfChangeTransition::Auto.into(),
        changes: vec![new_conf_change_single(4, ConfChangeType::AddLearnerNode)],
        context: Bytes::from_static(b"addr"),
    };
    assert_eq!(older.as_v1(), Some(&older));
    assert_eq!(older.as_v2().as_ref(), &newer);
    assert_eq!(older.into_v2(), newer);
    assert_eq!(newer.as_v1(), None);
    assert_eq!(newer.as_v2().as_ref(), &newer);
}

#[test]
fn a_joint_configuration_is_for_more_than_one_change_or_on_request() {
    let of = |transition: ConfChangeTransition, words: &str| ConfChangeV2 {
        transition: transition.into(),
        changes: parse_conf_change(words).expect("fine"),
        context: Bytes::from_static(b"says nothing"),
    };
    use ConfChangeTransition::{Auto, Explicit, Implicit};
    for (transition, words, enters, leaves) in [
        (Auto, "", None, true),
        (Auto, "v1", None, false),
        (Auto, "v1 r2", Some(true), false),
        (Implicit, "", Some(true), false),
        (Implicit, "v1", Some(true), false),
        (Explicit, "", Some(false), false),
        (Explicit, "v1 r2", Some(false), false),
    ] {
        let change = of(transition, words);
        assert_eq!(change.enter_joint(), enters, "{change:?}");
        assert_eq!(change.leave_joint(), leaves, "{change:?}");
    }
}

//! Saving the registry's state, looking at it, and beginning anew from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use trimtab_registry::command::{Command as Ask, Register};
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::revision::Position;
use trimtab_registry::state::Registry as State;
use trimtab_server::backup::format;
use trimtab_server::backup::header::{Header, Source};
use trimtab_server::consensus::entry::encode_state;
use trimtab_server::consensus::membership::Membership;

use crate::golden;
use crate::process::{Held, Registry, run, trimtab};

/// `catalog` with all of its traffic on v42, and a route to go back to.
fn registry() -> (Registry, Vec<Held>) {
    let registry = Registry::start();
    let held = vec![
        registry.register("catalog", "v41", "a1", "127.0.0.1:9001"),
        registry.register("catalog", "v42", "b1", "127.0.0.1:9003"),
    ];
    registry.json(&["switch", "catalog", "v42", "--no-wait"]);
    (registry, held)
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    run(&all).json()
}

/// Starts a replica on a directory; its handle and its address.
fn serve(data_dir: &str) -> (Held, String) {
    let replica = Held::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data_dir,
        "--output",
        "json",
    ]);
    let ready: Value = serde_json::from_str(&replica.line()).unwrap();
    let address = ready["address"].as_str().unwrap().to_owned();
    (replica, address)
}

#[test]
fn a_snapshot_of_a_running_registry_becomes_another_registry() {
    let (registry, held) = registry();
    let history = registry.json(&["history", "catalog"]);
    let file = registry.beside("registry.snap");
    let saved = registry.json(&["snapshot", "save", &file]);
    golden::check_json("snapshot-save.json", &saved);
    let inspected = json(&["snapshot", "inspect", &file]);
    assert_eq!(inspected, saved);

    let data = registry.beside("restored");
    let restore = ["snapshot", "restore", &file, "--data-dir", &data];
    let restored = json(&[&restore[..], &["--settle", "0s"]].concat());
    golden::check_json("snapshot-restore.json", &restored);
    let jumped = saved["index"].as_u64().unwrap() + 1_000_000_000;
    assert_eq!(restored["revision"].as_u64(), Some(jumped));
    assert_ne!(restored["cluster_id"], saved["cluster_id"]);

    let (replica, address) = serve(&data);
    let there = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--endpoints", &address]);
        json(&all)
    };
    assert_eq!(there(&["history", "catalog"]), history);
    let view = there(&["resolve", "catalog"]);
    assert_eq!(view["revision"].as_u64(), Some(jumped));
    let rolled_back = there(&["rollback", "catalog", "--no-wait"]);
    assert!(rolled_back["revision"].as_u64() > Some(jumped));
    let back = there(&["resolve", "catalog"]);
    assert_eq!(back["route"]["weights"]["v41"], 10_000);
    drop((replica, held));
}

#[test]
fn people_are_told_what_is_in_a_file_and_what_to_do_with_it() {
    let (registry, _held) = registry();
    let file = registry.beside("registry.snap");
    let saved = registry.run(&["snapshot", "save", &file]);
    assert_eq!(saved.code, Some(0), "{}", saved.stderr);
    let line = |name: &str| {
        let found = saved.stdout.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("{}", saved.stdout))
            .to_owned()
    };
    assert!(line("what").ends_with("running registry, confirmed by a quorum"));
    assert!(line("contents").ends_with("1 service, 2 groups, 2 instances"));
    assert_eq!(run(&["snapshot", "inspect", &file]).stdout, saved.stdout);
    let data = registry.beside("restored");
    let restored = run(&["snapshot", "restore", &file, "--data-dir", &data]);
    assert!(
        restored
            .stdout
            .starts_with("restored 1 service, 2 groups, 2 instances into ")
    );
    let next =
        format!("start it: trimtab serve --id 1 --advertise 127.0.0.1:7070 --data-dir {data}");
    assert!(restored.stderr.contains(&next), "{}", restored.stderr);
}

#[test]
fn a_stopped_replica_is_looked_at_and_saved_and_a_running_one_is_not() {
    let (mut registry, held) = registry();
    let (data, file) = (registry.data_dir(), registry.beside("survivor.snap"));
    let save = ["snapshot", "save", &file, "--data-dir", &data];
    for arguments in [&save[..], &["snapshot", "inspect", "--data-dir", &data]] {
        let refused = run(arguments);
        assert_eq!(refused.code, Some(5), "{}", refused.stderr);
        let told = "is in use by another process";
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    assert!(!Path::new(&file).exists());
    drop(held);
    assert_eq!(registry.stop(), Some(0));
    let inspected = json(&["snapshot", "inspect", "--data-dir", &data]);
    golden::check_json("snapshot-inspect-directory.json", &inspected);
    let saved = json(&save);
    for field in [
        "index",
        "term",
        "cluster_id",
        "replica",
        "instances",
        "members",
    ] {
        assert_eq!(saved[field], inspected[field], "{field}");
    }
    assert_eq!(saved["source"], "directory");

    let nowhere = registry.beside("nowhere");
    let missing = run(&["snapshot", "inspect", "--data-dir", &nowhere]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.stderr.contains("there is no "),
        "{}",
        missing.stderr
    );
    assert!(!Path::new(&nowhere).exists(), "looking makes nothing");
}

#[test]
fn nothing_is_overwritten_or_mixed_unasked() {
    let (registry, _held) = registry();
    let file = registry.beside("registry.snap");
    fs::write(&file, "precious").unwrap();
    let refused = registry.run(&["snapshot", "save", &file]);
    assert_eq!(refused.code, Some(5));
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    registry.json(&["snapshot", "save", &file, "--force"]);

    let data = registry.data_dir();
    let refused = run(&["snapshot", "restore", &file, "--data-dir", &data]);
    assert_eq!(refused.code, Some(5));
    assert!(
        refused
            .stderr
            .contains("is not empty: it holds \"replica.redb\"")
    );
    assert_eq!(names(&data), ["replica.redb"]);
}

#[test]
fn what_is_not_a_whole_snapshot_is_refused_with_what_is_wrong() {
    let (registry, _held) = registry();
    let file = registry.beside("registry.snap");
    registry.json(&["snapshot", "save", &file]);
    let whole = fs::read(&file).unwrap();
    let data = registry.beside("restored");
    let refused = |content: &[u8]| {
        let damaged = registry.beside("damaged.snap");
        fs::write(&damaged, content).unwrap();
        let inspected = run(&["snapshot", "inspect", &damaged]);
        assert_eq!(inspected.code, Some(1));
        let restored = run(&["snapshot", "restore", &damaged, "--data-dir", &data]);
        assert_eq!(restored.code, Some(1));
        assert_eq!(restored.stderr, inspected.stderr);
        assert!(!Path::new(&data).exists());
        restored.stderr
    };
    let short = refused(&whole[..whole.len() - 9]);
    assert!(short.contains("it is cut short, or damaged: "), "{short}");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let flipped = refused(&flipped);
    assert!(flipped.contains("its checksum does not match"), "{flipped}");
    let long = refused(&[&whole[..], b"x"].concat());
    assert!(long.contains("1 bytes follow its end"), "{long}");
    let foreign = refused(b"#!/bin/sh");
    assert!(
        foreign.contains("does not begin as a snapshot"),
        "{foreign}"
    );
    let missing = run(&["snapshot", "inspect", "no such file"]);
    assert!(
        missing
            .stderr
            .contains("cannot read no such file: No such file")
    );
}

/// Runs a command that may write no file longer than so many blocks, as on a
/// disk that is full.
fn run_on_a_full_disk(blocks: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let command = trimtab(arguments);
    let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limit])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let (registry, _held) = registry();
    let directory = registry.beside("disk");
    fs::create_dir(&directory).unwrap();
    let file = format!("{directory}/registry.snap");
    let save = ["snapshot", "save", &file, "--endpoints", &registry.endpoint];
    let (code, stderr) = run_on_a_full_disk(0, &save);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("cannot write {file}: ")),
        "{stderr}"
    );
    assert_eq!(names(&directory), [""; 0]);
    // Nor is what was there before lost.
    assert_eq!(run(&save).code, Some(0));
    let before = fs::read(&file).unwrap();
    let force = [&save[..], &["--force"]].concat();
    assert_eq!(run_on_a_full_disk(0, &force).0, Some(1));
    assert_eq!(fs::read(&file).unwrap(), before);

    let data = registry.beside("restored");
    let restore = ["snapshot", "restore", &file, "--data-dir", &data];
    let (code, stderr) = run_on_a_full_disk(8, &restore);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(names(&data), [""; 0], "{stderr}");
    assert_eq!(run(&restore).code, Some(0));
}

#[test]
fn a_restore_that_was_broken_off_is_not_taken_for_a_replica() {
    let (registry, _held) = registry();
    let file = registry.beside("registry.snap");
    registry.json(&["snapshot", "save", &file]);
    let data = registry.beside("restored");
    fs::create_dir(&data).unwrap();
    let unfinished = format!("{data}/replica.redb.unfinished");
    fs::write(&unfinished, "half").unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", &data][..],
        &["snapshot", "restore", &file, "--data-dir", &data],
        &["snapshot", "inspect", "--data-dir", &data],
    ] {
        let refused = run(arguments);
        assert_ne!(refused.code, Some(0));
        let told = "was left by a restore that was broken off, and no replica starts on it; \
                    remove it, and run `trimtab snapshot restore` again";
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    assert_eq!(names(&data), ["replica.redb.unfinished"]);
    fs::remove_file(unfinished).unwrap();
    assert_eq!(
        run(&["snapshot", "restore", &file, "--data-dir", &data]).code,
        Some(0)
    );
}

/// Instances in the snapshot that is restored under fire: a few megabytes.
const MANY: u64 = 20_000;

/// A snapshot file of one service with many instances.
fn large_snapshot(path: &str) {
    let mut state = State::new();
    for number in 1..=MANY {
        let spec = InstanceSpec {
            id: InstanceId::parse(&format!("instance-{number}")).unwrap(),
            group: GroupName::parse("v1").unwrap(),
            address: Address::parse("127.0.0.1:8080").unwrap(),
            zone: Zone::parse("eu-west-1a").unwrap(),
            capacity: Capacity::default(),
            metadata: Metadata::new(BTreeMap::from([("build".into(), "x".repeat(100))])).unwrap(),
            status: DeclaredStatus::Ready,
        };
        let register = Ask::Register(Register {
            service: ServiceName::parse("catalog").unwrap(),
            instance: spec,
            ttl: Ttl::default(),
            at_ms: 0,
        });
        let at = Position {
            index: number,
            term: 1,
        };
        state.apply(at, &register).outcome.unwrap();
    }
    let members = BTreeMap::from([(1, "127.0.0.1:7070".to_owned())]);
    let header = Header {
        cluster_id: 1,
        applied: state.applied(),
        members: members.clone(),
        saved_at_ms: 0,
        saved_by: 1,
        version: "test".to_owned(),
        source: Source::Quorum,
    };
    let parts: Vec<Bytes> = format::encode(
        &header,
        encode_state(&Membership::default(), &state).unwrap(),
    );
    fs::write(path, parts.concat()).unwrap();
}

/// `kill -9` at any time: the directory is whole, or says that it is not.
#[test]
fn a_restore_killed_at_any_time_is_whole_or_says_that_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.snap");
    let file = file.to_str().unwrap();
    large_snapshot(file);
    let mut unfinished = 0;
    let mut whole = 0;
    for attempt in 0.. {
        let data = directory.path().join(format!("restored-{attempt}"));
        let data = data.to_str().unwrap();
        let mut restore = trimtab(&["snapshot", "restore", file, "--data-dir", data])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Later each time, until there is nothing left to kill.
        thread::sleep(Duration::from_millis(20 * attempt));
        restore.kill().unwrap();
        let ended = restore.wait().unwrap();
        let looked = run(&[
            "snapshot",
            "inspect",
            "--data-dir",
            data,
            "--output",
            "json",
        ]);
        if looked.code == Some(0) {
            assert_eq!(looked.json()["instances"], MANY);
            whole += 1;
        } else if looked
            .stderr
            .contains("was left by a restore that was broken off")
        {
            unfinished += 1;
        } else {
            assert!(looked.stderr.contains("there is no "), "{}", looked.stderr);
        }
        if ended.success() {
            break;
        }
    }
    assert!(
        unfinished > 0 && whole > 0,
        "killed in the middle: {unfinished}, whole: {whole}"
    );
}

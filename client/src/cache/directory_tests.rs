//! The directory of views: what is found in it, what is not, and what it never does.

use super::*;
use tempfile::TempDir;

const HERE: &str = "127.0.0.1:7070";

fn directory(dir: &TempDir) -> Directory {
    Directory::new(dir.path().join("views"), vec![HERE.to_owned()])
}

fn entry(service: &str, revision: u64) -> Entry {
    Entry {
        cluster: 7,
        endpoints: vec![HERE.to_owned()],
        saved_at_ms: revision,
        service: service.to_owned(),
        revision,
        checksum: 1,
        view: Bytes::from(vec![0; 100]),
    }
}

fn loaded(directory: &Directory, service: &str) -> Option<u64> {
    let (entry, ignored) = directory.load(service);
    assert!(ignored.is_empty(), "{ignored:?}");
    entry.map(|entry| entry.revision)
}

fn files(directory: &Directory) -> usize {
    directory.paths(|_| true).unwrap().len()
}

#[test]
fn each_service_has_its_newest_view() {
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    assert_eq!(loaded(&directory, "catalog"), None);
    for revision in [5, 9, 7] {
        directory.store(&entry("catalog", revision)).unwrap();
        directory.store(&entry("cart", revision + 1)).unwrap();
    }
    // 7 came from a process that lags.
    assert_eq!(loaded(&directory, "catalog"), Some(9));
    assert_eq!(loaded(&directory, "cart"), Some(10));
    assert_eq!(files(&directory), 2);
    directory.remove("catalog", 7).unwrap();
    directory.remove("catalog", 7).unwrap();
    assert_eq!(loaded(&directory, "catalog"), None);
}

#[test]
fn of_several_clusters_the_one_followed_last_counts() {
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    directory.store(&entry("catalog", 1_000)).unwrap();
    let mut founded_anew = entry("catalog", 3);
    founded_anew.cluster = 8;
    founded_anew.saved_at_ms = 2_000;
    directory.store(&founded_anew).unwrap();
    assert_eq!(loaded(&directory, "catalog"), Some(3));
}

#[test]
fn another_registrys_view_is_not_used() {
    let dir = TempDir::new().unwrap();
    let mut theirs = entry("catalog", 5);
    theirs.endpoints = vec!["127.0.0.9:7070".to_owned()];
    let directory = directory(&dir);
    directory.store(&theirs).unwrap();
    let (found, ignored) = directory.load("catalog");
    assert_eq!(found, None);
    assert!(
        ignored[0].why.contains("another registry, at 127.0.0.9"),
        "{ignored:?}"
    );
    // Nor does it keep ours from being written.
    directory.store(&entry("catalog", 4)).unwrap();
    assert_eq!(loaded(&directory, "catalog"), Some(4));
}

#[test]
fn a_name_is_never_a_path() {
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    for name in [
        "",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "A",
        "a@b",
        ".a",
        &"a".repeat(64),
    ] {
        assert!(directory.store(&entry(name, 1)).is_err(), "{name}");
        assert_eq!(loaded(&directory, name), None);
        directory.remove(name, 7).unwrap();
    }
    assert!(!directory.path().exists());
}

#[test]
fn what_is_no_regular_file_or_holds_another_service_is_ignored() {
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    directory.store(&entry("cart", 5)).unwrap();
    let path = |service: &str| directory.file_of(service, 7);
    fs::rename(path("cart"), path("catalog")).unwrap();
    let (found, ignored) = directory.load("catalog");
    assert!(found.is_none() && ignored[0].why.contains("\"cart\""));
    fs::create_dir(path("cart")).unwrap();
    assert_eq!(loaded(&directory, "cart"), None);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(path("catalog"), path("link")).unwrap();
        assert_eq!(loaded(&directory, "link"), None);
    }
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    directory.store(&entry("catalog", 1)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory.path()), 0o700);
    assert_eq!(mode(&directory.file_of("catalog", 7)), 0o600);
}

#[test]
fn old_views_and_what_was_abandoned_make_room() {
    let dir = TempDir::new().unwrap();
    let directory = directory(&dir);
    directory.store(&entry("first", 1)).unwrap();
    let long_ago = SystemTime::now() - 2 * ABANDONED_AFTER;
    let age = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
    };
    age(&directory.file_of("first", 7));
    let abandoned = directory.path().join(".trimtab-0123.tmp");
    let being_written = directory.path().join(".trimtab-4567.tmp");
    let not_ours = directory.path().join("notes.txt");
    for path in [&abandoned, &being_written, &not_ours] {
        fs::write(path, "x").unwrap();
    }
    age(&abandoned);
    age(&not_ours);
    for number in 1..FILES_MAX {
        fs::write(directory.file_of(&format!("s{number}"), 7), "x").unwrap();
    }
    directory.store(&entry("last", 1)).unwrap();
    assert!(!directory.file_of("first", 7).exists() && !abandoned.exists());
    assert!(being_written.exists() && not_ours.exists());
    assert_eq!(files(&directory), FILES_MAX + 2);
}

/// Writers in one directory, and a reader that must see whole views only.
#[test]
fn processes_that_share_a_directory_do_no_harm() {
    let dir = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let directory = directory(&dir);
            scope.spawn(move || {
                for revision in 1..60 {
                    directory
                        .store(&entry("catalog", revision * 4 + writer))
                        .unwrap();
                }
            });
        }
        let directory = directory(&dir);
        scope.spawn(move || {
            let mut last = None;
            for _ in 0..200 {
                last = loaded(&directory, "catalog").or(last);
            }
        });
    });
    let directory = directory(&dir);
    assert!(loaded(&directory, "catalog").is_some());
    assert_eq!(files(&directory), 1, "nothing unfinished is left");
}

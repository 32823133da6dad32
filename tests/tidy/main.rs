//! What lints cannot check: rules of this tree that anyone can break by accident.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and so does what sets it up"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the project's root").to_owned()
}

/// Every file below `directory` whose name ends with `ending`.
fn files(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.') || name == "target");
        if hidden {
            continue;
        }
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), ".rs", &mut found);
    assert!(found.len() > 50, "looked in the wrong place");
    found
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| {
            !fs::read_to_string(path)
                .expect("readable")
                .starts_with("//! ")
        })
        .collect();
    assert!(silent.is_empty(), "no `//!` line first: {silent:#?}");
}

#[test]
fn neither_protoc_nor_rust_protobuf_is_needed() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("readable");
    let published: Vec<&str> = lock
        .split("[[package]]\n")
        .filter(|package| package.contains("\nsource = "))
        .filter_map(|package| package.strip_prefix("name = \"")?.split('"').next())
        .collect();
    assert!(published.contains(&"raft"), "looked in the wrong place");
    // ARCHITECTURE.md, "Formats", tells what stands in their place. Cargo only
    // warns when a version of raft comes along that takes the published ones.
    for name in [
        "protobuf",
        "protobuf-build",
        "protobuf-codegen",
        "raft-proto",
    ] {
        assert!(!published.contains(&name), "{name} is back in Cargo.lock");
    }
}

#[test]
fn the_state_machine_depends_on_data_alone() {
    let manifest = fs::read_to_string(root().join("server/registry/Cargo.toml"));
    let manifest = manifest.expect("readable");
    let (_, rest) = manifest.split_once("[dependencies]\n").expect("has some");
    let section = rest.split("\n[").next().unwrap_or_default();
    let dependencies: Vec<&str> = section
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default())
        .collect();
    assert_eq!(dependencies, ["arcstr", "serde", "thiserror"]);
}

#[test]
fn versions_are_named_once() {
    let mut manifests = Vec::new();
    files(&root(), "Cargo.toml", &mut manifests);
    for path in manifests {
        if path == root().join("Cargo.toml") {
            continue;
        }
        let manifest = fs::read_to_string(&path).expect("readable");
        // What stands in for a published crate has the version raft asks for.
        let stands_in = ["server/protobuf/Cargo.toml", "server/raft-proto/Cargo.toml"]
            .iter()
            .any(|manifest| path.ends_with(manifest));
        let (package, dependencies) = manifest.split_once("\n[").expect("has dependencies");
        let versioned = (if stands_in { "" } else { package })
            .lines()
            .chain(dependencies.lines())
            .find(|line| line.contains("version = \"") || line.contains("path = \"../"));
        assert_eq!(versioned, None, "in {}", path.display());
    }
}

/// A block of Rust in the README names in its first line the file it is from.
#[test]
fn the_readme_shows_code_that_is_compiled() {
    let readme = fs::read_to_string(root().join("README.md")).expect("readable");
    let mut blocks = 0;
    for block in readme.split("```rust\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let (from, shown) = block.split_once('\n').expect("has a first line");
        let path = from.trim_start_matches("// ");
        let source = fs::read_to_string(root().join(path));
        let source = source.unwrap_or_else(|_| panic!("no file {path:?}"));
        let source = dedented(&source);
        let shown = dedented(shown);
        assert!(!shown.is_empty(), "{path}: nothing is shown");
        assert!(
            source.windows(shown.len()).any(|window| window == shown),
            "{path} has no such lines:\n{}",
            shown.join("\n")
        );
        blocks += 1;
    }
    assert!(blocks >= 2, "a caller and an instance are shown");
}

/// The table of what the client promises names tests, as `module::test`.
#[test]
fn promises_of_the_client_name_tests_that_exist() {
    let door = root().join("client/src/lib.rs");
    let door = fs::read_to_string(door).expect("readable");
    let mut sources = Vec::new();
    files(&root().join("client"), ".rs", &mut sources);
    let named = door
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.rsplit_once(" | "))
        .flat_map(|(_, tests)| tests.split('`').filter(|name| name.contains("::")));
    let mut found = 0;
    for name in named {
        let (module, test) = name.split_once("::").expect("module and test");
        let has_test = |path: &PathBuf| {
            let is_module = path.to_string_lossy().contains(module);
            let source = fs::read_to_string(path).expect("readable");
            // Some are made by a macro from a list of names.
            let forms = [format!("fn {test}("), format!("    {test}: ")];
            is_module && forms.iter().any(|form| source.contains(form))
        };
        assert!(sources.iter().any(has_test), "no test {name}");
        found += 1;
    }
    assert!(found >= 30, "the table is not where it was: {found} tests");
}

fn dedented(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).collect()
}

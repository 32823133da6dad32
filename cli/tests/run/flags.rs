//! What cannot be run says why, before anything is started.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::stage::free_address;
use crate::supervisor::trimtab;

/// Exit code and stderr of `trimtab run` with these arguments.
async fn run(arguments: &[&str]) -> (i32, String) {
    let output = trimtab().arg("run").args(arguments).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr)
}

const NAMED: [&str; 4] = ["--service", "catalog", "--group", "v1"];

#[tokio::test]
async fn an_unreadable_command_line_is_usage() {
    let port = ["--port", "80"];
    for arguments in [
        // No program, or not behind the dashes.
        [&NAMED[..], &port].concat(),
        [&NAMED[..], &port, &["true"]].concat(),
        // No address, or two.
        [&NAMED[..], &["--", "true"]].concat(),
        [&NAMED[..], &port, &["--address", "a:1", "--", "true"]].concat(),
        [&["--service", "catalog"], &port[..], &["--", "true"]].concat(),
        [&NAMED[..], &port, &["--restart", "sometimes", "--", "true"]].concat(),
        [&NAMED[..], &port, &["--check-interval", "0s", "--", "true"]].concat(),
        [&NAMED[..], &port, &["--unready-after", "0", "--", "true"]].concat(),
    ] {
        let (code, stderr) = run(&arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn an_invalid_flag_is_named_before_the_program_is_started() {
    for (flags, said) in [
        ("--port 0", "port 0"),
        ("--address web-1", "--address"),
        ("--port 80 --check https://a/", "--check"),
        ("--port 80 --capacity 0", "--capacity"),
        ("--port 80 --ttl 11m", "--ttl"),
        ("--port 80 --id A", "--id"),
        ("--port 80 --host 0.0.0.0", "0.0.0.0"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        let program = ["--", "sh", "-c", "echo started >&2"];
        let (code, stderr) = run(&[&NAMED[..], &flags, &program].concat()).await;
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert!(!stderr.contains("started"), "{stderr}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_has_the_exit_code_of_a_shell() {
    let address = ["--address", "127.0.0.1:80"];
    let (code, stderr) = run(&[&NAMED[..], &address, &["--", "no-such-program"]].concat()).await;
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("no-such-program"), "{stderr}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let (code, stderr) = run(&[&NAMED[..], &address, &["--", path]].concat()).await;
    assert_eq!(code, 126, "{stderr}");
    assert!(stderr.contains(path), "{stderr}");
}

#[tokio::test]
async fn stdin_and_stdout_are_the_programs_own() {
    let nowhere = free_address();
    let mut command = trimtab();
    command
        .arg("run")
        .args(NAMED)
        .args(["--address", &nowhere, "--endpoints", &nowhere, "--"])
        .args([
            "sh",
            "-c",
            "read line; echo \"out $line\"; echo err >&2; exit 9",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"in\n").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "out in\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.lines().any(|line| line == "err"), "{stderr}");
    assert!(stderr.contains("trimtab run catalog v1 "), "{stderr}");
}

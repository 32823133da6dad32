//! Runs `trimtab`: replicas, held registrations and single commands.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A command without the settings of whoever runs the tests.
pub(crate) fn trimtab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trimtab"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TRIMTAB_") {
            command.env_remove(variable);
        }
    }
    command
        .args(arguments)
        // As wide in every terminal.
        .env_remove("COLUMNS")
        .env("USER", "tester")
        .env("TRIMTAB_LOG", "warn")
        .stdin(Stdio::null());
    command
}

/// A process that is killed at the end, and what it printed so far.
pub(crate) struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Held {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = trimtab(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            stdin,
            lines,
        }
    }

    /// The next line it prints.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Asks it to stop as a service manager does, and gives its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.ended()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Closes its stdin, and gives its exit code.
    pub(crate) fn close_stdin(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.ended()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one command did.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its stdout, when it went well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}", self.stdout))
    }
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Done {
    Done::of(trimtab(arguments).output().unwrap())
}

/// One replica with its data.
pub(crate) struct Registry {
    pub(crate) endpoint: String,
    replica: Option<Held>,
    directory: TempDir,
    settings: &'static [&'static str],
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more flags of `trimtab serve`.
    pub(crate) fn start_with(settings: &'static [&'static str]) -> Self {
        let mut registry = Self {
            endpoint: "127.0.0.1:0".into(),
            replica: None,
            directory: tempfile::tempdir().unwrap(),
            settings,
        };
        registry.start_replica();
        registry
    }

    fn start_replica(&mut self) {
        let data = self.directory.path().join("data");
        let arguments = [
            "serve",
            "--listen",
            &self.endpoint,
            "--data-dir",
            data.to_str().unwrap(),
            "--output",
            "json",
        ];
        let replica = Held::start(&[&arguments, self.settings].concat());
        let ready: Value = serde_json::from_str(&replica.line()).unwrap();
        self.endpoint = ready["address"].as_str().unwrap().to_owned();
        self.replica = Some(replica);
    }

    /// `kill -9`, then the same again.
    pub(crate) fn kill_and_restart(&mut self) {
        drop(self.replica.take());
        self.start_replica();
    }

    /// Where the replica keeps its log.
    pub(crate) fn data_dir(&self) -> String {
        let data = self.directory.path().join("data");
        data.to_str().unwrap().to_owned()
    }

    /// A path beside it, for a file of a test's own.
    pub(crate) fn beside(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// It stands still for so long, whatever happens meanwhile.
    pub(crate) fn pause(&self, time: Duration) {
        let replica = self.replica.as_ref().expect("it runs");
        replica.signal("-STOP");
        thread::sleep(time);
        replica.signal("-CONT");
    }

    /// Stops it in order, and gives its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.replica.take().and_then(Held::terminate)
    }

    /// Registers an instance, which is held until it is dropped or terminated.
    pub(crate) fn register(&self, service: &str, group: &str, id: &str, address: &str) -> Held {
        let arguments = ["register", service, group, address, "--id", id];
        let held = Held::start(&self.here(&arguments));
        let line = held.line();
        assert!(line.contains(id), "{line}");
        held
    }

    /// Runs a command against this registry.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        run(&self.here(arguments))
    }

    /// As [`Registry::run`], with JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        self.run(&arguments).json()
    }

    /// Starts a command that goes on.
    pub(crate) fn start_command(&self, arguments: &[&str]) -> Held {
        Held::start(&self.here(arguments))
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut all = arguments.to_vec();
            all.extend(["--output", "json"]);
            let done = self.run(&all);
            let answer = serde_json::from_str(&done.stdout).unwrap_or(Value::Null);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:#}\n{}", done.stderr);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn here<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = arguments.to_vec();
        all.extend(["--endpoints", &self.endpoint]);
        all
    }
}

/// An address that nobody listens on.
pub(crate) fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Reads what a child wrote, to the end.
pub(crate) fn read_all(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

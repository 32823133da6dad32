//! Servers as processes of their own: started, watched in /proc, and killed when dropped.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// How much of a server's log is told when it fails.
const LOG_SHOWN_BYTES: usize = 2_000;

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a process holds in memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// All of its pages that are in memory, mapped files too.
    pub(crate) resident: u64,
    /// Of these, what it allocated.
    pub(crate) anonymous: u64,
}

impl Process {
    /// Starts a server; what it prints goes to a file in `directory`.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let log = directory.join(format!("{name}.log"));
        let doing = || format!("starting {name} ({:?})", command.get_program());
        let failed = |source: io::Error| Failure::System {
            doing: doing(),
            source,
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            .spawn();
        let child = spawned.map_err(|source| Failure::System {
            doing: format!("starting {name} ({:?})", command.get_program()),
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What the system knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that its threads have used. The kernel knows it to the nanosecond for each thread, and only
    /// in hundredths of a second for all of them.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let used = |thread: fs::DirEntry| -> Option<u64> {
            let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse().ok()
        };
        let threads = threads.into_iter().flatten().flatten();
        Duration::from_nanos(threads.filter_map(used).sum())
    }

    /// What it holds in memory now.
    pub(crate) fn memory(&self) -> Memory {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kibibytes = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let digits = line.and_then(|rest| rest.split_whitespace().next());
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        Memory {
            resident: kibibytes("VmRSS:") * 1024,
            anonymous: kibibytes("RssAnon:") * 1024,
        }
    }

    /// Is it still there? If not, why, by its last words.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::Wrong(format!(
                "{} ended by itself ({status}): {}",
                self.name,
                self.last_words()
            ))),
            Err(source) => Err(Failure::System {
                doing: format!("waiting for {}", self.name),
                source,
            }),
        }
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// The end of what it printed.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
        let from = (from..log.len()).find(|&at| log.is_char_boundary(at));
        from.map_or("", |from| &log[from..]).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Addresses on loopback where nobody listens now. Somebody may before they are
/// used, though the kernel gives out ports in turns that make it unlikely; then
/// the server fails and says so.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let listeners: io::Result<Vec<TcpListener>> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect();
    let listeners = listeners.map_err(Failure::system("looking for free ports"))?;
    let addresses: io::Result<Vec<SocketAddr>> =
        listeners.iter().map(TcpListener::local_addr).collect();
    addresses.map_err(Failure::system("looking for free ports"))
}

/// Lets this process, and those it starts, open as many files as the system allows: a watcher with a connection of its
/// own is one on each side.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused, what there was stays.
    let _as_before = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

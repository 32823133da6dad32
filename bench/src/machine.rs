//! What a run was made on, and how busy it was with other things.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::Failure;

/// How long the disk is tried.
const DISK_TRIAL: Duration = Duration::from_millis(300);
/// What is written before each sync: about a small log entry.
const WRITE_BYTES: usize = 256;
/// A load average above this part of the cores says that others are at work.
const QUIET_LOAD_PER_CORE: f64 = 0.25;

/// A machine, as a reader of figures wants to know it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Appends of 256 bytes with fdatasync, one after another, in a second.
    pub(crate) syncs_per_second: f64,
    /// Processes that ran or waited to, averaged over a minute, before the run.
    pub(crate) load_before: f64,
}

impl Machine {
    /// Looks at the machine; the disk is that of `directory`.
    pub(crate) fn look(directory: &Path) -> Result<Self, Failure> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kibibytes: f64 = field(&read("/proc/meminfo"), "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0.0);
        Ok(Self {
            processor: field(&cpuinfo, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kibibytes / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            syncs_per_second: syncs(directory).map_err(Failure::system("trying the disk"))?,
            load_before: load(),
        })
    }

    /// Are its figures those of the servers alone?
    pub(crate) fn is_quiet(&self) -> bool {
        self.load_before <= QUIET_LOAD_PER_CORE * self.cores as f64
    }

    /// In one line.
    pub(crate) fn described(&self) -> String {
        let load = match self.is_quiet() {
            true => String::new(),
            false => format!(
                "; NOT quiet: other work ran at the start (load average {:.1})",
                self.load_before
            ),
        };
        format!(
            "{} cores of {}, {:.0} GiB, Linux {}, {:.0} synced appends/s{load}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.syncs_per_second
        )
    }
}

/// The load average over a minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|text| text.parse().ok());
    first.unwrap_or(0.0)
}

fn syncs(directory: &Path) -> std::io::Result<f64> {
    let path = directory.join("disk-trial");
    let mut file = File::create(&path)?;
    let begun = Instant::now();
    let mut synced = 0.0;
    while begun.elapsed() < DISK_TRIAL {
        file.write_all(&[0xa5; WRITE_BYTES])?;
        file.sync_data()?;
        synced += 1.0;
    }
    let rate = synced / begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

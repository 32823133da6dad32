//! What this process is called where it watches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::meter::InstanceMeter;
use crate::view::{Group, Instance};

/// Bounds of the protocol.
const WATCHER_ID_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

/// Who the registry is told is watching.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) zone: String,
    /// Overrides how often the replica asks for load reports.
    pub(crate) report_interval: Option<Duration>,
    /// Calls are counted by instance, too.
    pub(crate) instance_metrics: bool,
}

/// From where a process looks at a service, as far as its choice of instances
/// depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Standpoint {
    /// Its id as a watcher, by which its subsets are drawn.
    pub(crate) caller: Arc<str>,
    /// The failure domain it is in; empty when that was not said.
    pub(crate) zone: Arc<str>,
    /// What latencies are dated by.
    pub(crate) origin: Instant,
    /// Calls are counted by instance, too.
    pub(crate) instance_metrics: bool,
}

impl Standpoint {
    /// What counts the calls to an instance, if that is wanted.
    pub(crate) fn meter_of(
        &self,
        service: &Arc<str>,
        group: &Group,
        instance: &Instance,
    ) -> Option<InstanceMeter> {
        self.instance_metrics
            .then(|| InstanceMeter::of(service, &group.name, &instance.id))
    }
}

impl Watcher {
    /// Holds it against the bounds of the protocol.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the id or name that breaks them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let id = self.id.as_bytes();
        let of_set = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > WATCHER_ID_MAX || !id.iter().all(of_set) {
            return Err(Error::Invalid(format!(
                "watcher id {:?} must be 1 to {WATCHER_ID_MAX} of [a-z0-9._-]",
                self.id
            )));
        }
        if self.name.len() > NAME_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "name {:?} has {} bytes, at most {NAME_BYTES_MAX} are allowed",
                self.name,
                self.name.len()
            )));
        }
        Ok(())
    }
}

/// The name of the program and its process id.
pub(crate) fn process_name() -> String {
    let program = std::env::args_os()
        .next()
        .and_then(|path| {
            std::path::Path::new(&path)
                .file_name()
                .map(|n| n.to_owned())
        })
        .and_then(|name| name.into_string().ok())
        .filter(|name| name.len() < NAME_BYTES_MAX / 2)
        .unwrap_or_else(|| "caller".to_owned());
    format!("{program}/{}", std::process::id())
}

//! How large the file is, and what the disk has left for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// A disk that takes longer hangs; whoever asked shall not.
const MEASURE_TIMEOUT: Duration = Duration::from_millis(500);

/// What was measured; nothing of what could not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The size of the file.
    pub data_bytes: u64,
    /// What its file system has left for this user.
    pub free_bytes: Option<u64>,
}

/// Measures one file, once at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gauge {
    file: PathBuf,
    in_use: Arc<Mutex<()>>,
}

impl Gauge {
    /// For this file.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            in_use: Arc::default(),
        }
    }

    /// What there is now, as far as the disk says so in time.
    pub async fn measure(&self) -> Space {
        // A disk that hangs would else be asked by one thread after the other.
        let Ok(guard) = Arc::clone(&self.in_use).try_lock_owned() else {
            return Space::default();
        };
        let file = self.file.clone();
        let measured = spawn_blocking(move || {
            let _guard = guard;
            Space {
                data_bytes: fs::metadata(&file).map_or(0, |it| it.len()),
                free_bytes: free_bytes(&file),
            }
        });
        let measured = timeout(MEASURE_TIMEOUT, measured).await;
        measured.ok().and_then(Result::ok).unwrap_or_default()
    }
}

#[cfg(unix)]
fn free_bytes(file: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(file).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_measured_and_a_missing_one_is_nothing() {
        let directory = tempfile::tempdir().expect("tempdir");
        let file = directory.path().join("data");
        let gauge = Gauge::new(file.clone());
        assert_eq!(gauge.measure().await, Space::default());
        fs::write(file, [7; 5_000]).expect("writes");
        let space = gauge.measure().await;
        assert_eq!(space.data_bytes, 5_000);
        assert_eq!(space.free_bytes.is_some(), cfg!(unix));
    }
}

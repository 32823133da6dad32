//! A disk that fails when told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

/// Memory that can be told to fail.
#[derive(Debug)]
pub(crate) struct BreakableDisk {
    disk: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl BreakableDisk {
    /// A disk, and the switch that breaks it.
    pub(crate) fn new() -> (Self, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        let disk = Self {
            disk: InMemoryBackend::new(),
            broken: Arc::clone(&broken),
        };
        (disk, broken)
    }

    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("no space left"));
        }
        Ok(())
    }
}

impl StorageBackend for BreakableDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write(offset, data)
    }
}

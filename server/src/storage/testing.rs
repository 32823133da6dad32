//! A disk that fails, fills up, and survives those who use it, when told to.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What a file system gives away at a time.
const BLOCK_BYTES: u64 = 4_096;

/// Memory that can be told to fail. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct TestDisk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    image: Mutex<Image>,
    is_broken: AtomicBool,
    /// Operations until it breaks.
    fuse: AtomicU64,
    blocks_max: AtomicU64,
}

#[derive(Debug, Default)]
struct Image {
    bytes: Vec<u8>,
    /// Which blocks were ever written: a longer file alone takes no room.
    blocks: BTreeSet<u64>,
    /// What a power loss leaves, and what it may leave besides.
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Default for TestDisk {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl TestDisk {
    /// A disk that holds this file.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let blocks = (0..bytes.len() as u64).step_by(BLOCK_BYTES as usize);
        let blocks = blocks.map(|at| at / BLOCK_BYTES).collect();
        Self(Arc::new(Inner {
            image: Mutex::new(Image {
                synced: bytes.clone(),
                bytes,
                blocks,
                unsynced: Vec::new(),
            }),
            is_broken: AtomicBool::new(false),
            fuse: AtomicU64::new(u64::MAX),
            blocks_max: AtomicU64::new(u64::MAX),
        }))
    }

    /// From now on, whether every write and sync fails.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.0.is_broken.store(is_broken, Ordering::Relaxed);
    }

    /// Breaks after so many more writes and syncs.
    pub(crate) fn break_after(&self, operations: u64) {
        self.0.fuse.store(operations, Ordering::Relaxed);
    }

    /// What is on it after the power was cut: of what was written since the
    /// last sync only what `is_kept`, by its number.
    pub(crate) fn after_power_loss(&self, is_kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let image = self.image();
        let mut bytes = image.synced.clone();
        let unsynced = image.unsynced.iter().enumerate();
        for (_, (at, data)) in unsynced.filter(|(number, _)| is_kept(*number)) {
            let end = at + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at..end].copy_from_slice(data);
        }
        bytes
    }

    /// Leaves room for so many more blocks.
    pub(crate) fn leave_room_for(&self, blocks: u64) {
        let used = self.image().blocks.len() as u64;
        let max = used.saturating_add(blocks);
        self.0.blocks_max.store(max, Ordering::Relaxed);
    }

    /// From now on it holds something else.
    pub(crate) fn replace(&self, bytes: Vec<u8>) {
        self.image().bytes = bytes;
    }

    /// What it holds.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.image().bytes.clone()
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> io::Result<()> {
        let fuse = self.0.fuse.load(Ordering::Relaxed);
        if fuse != u64::MAX {
            self.0.fuse.store(fuse.saturating_sub(1), Ordering::Relaxed);
        }
        if fuse == 0 || self.0.is_broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image();
        let start = offset as usize;
        let found = image.bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let mut image = self.image();
        image.bytes.resize(len as usize, 0);
        image.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
        // A file system keeps its lengths in order.
        image.synced.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        let mut image = self.image();
        image.synced = image.bytes.clone();
        image.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let mut image = self.image();
        let max = self.0.blocks_max.load(Ordering::Relaxed);
        image.unsynced.push((offset as usize, data.to_vec()));
        let mut at = offset;
        for piece in data.chunks(BLOCK_BYTES as usize) {
            let block = at / BLOCK_BYTES;
            if !image.blocks.contains(&block) && image.blocks.len() as u64 >= max {
                return Err(io::ErrorKind::StorageFull.into());
            }
            image.blocks.insert(block);
            let start = at as usize;
            image.bytes[start..start + piece.len()].copy_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }
}

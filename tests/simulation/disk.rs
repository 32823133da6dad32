//! A disk beneath the real storage: it forgets what was not synced, tears, fills up and fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::chance::Chance;

/// What is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// One replica's disk. It outlives the processes that use it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Image>>);

#[derive(Debug, Default)]
struct Image {
    /// What survives.
    synced: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    unsynced: Vec<Change>,
    /// Which attachment may use it.
    generation: u64,
    /// Operations until the next one fails.
    fails_after: Option<u64>,
    failing: bool,
    /// It fails because its process is killed.
    doomed: bool,
    full: bool,
    syncs: u64,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Disk {
    /// The disk as one process has it. Another attachment, or a crash, ends
    /// this one.
    pub(crate) fn attach(&self) -> Attached {
        let mut image = self.image();
        image.generation += 1;
        Attached {
            image: Arc::clone(&self.0),
            generation: image.generation,
        }
    }

    /// The power goes: of every unsynced write all, nothing, or some sectors
    /// are there afterwards, whatever their order was.
    pub(crate) fn crash(&self, chance: &mut Chance) {
        let mut image = self.image();
        image.generation += 1;
        image.fails_after = None;
        let unsynced = std::mem::take(&mut image.unsynced);
        // Some crashes lose everything, some nothing, some are mixed.
        let style = chance.between(0, 3);
        for change in unsynced {
            let lost = match style {
                0 => true,
                1 => false,
                _ => chance.per_mille(400),
            };
            match change {
                _ if lost => {}
                Change::Length(length) => image.synced.resize(length, 0),
                Change::Write { offset, data } => {
                    for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        let torn = style == 2 && chance.per_mille(300);
                        if !torn {
                            put(&mut image.synced, offset + number * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        image.seen = image.synced.clone();
    }

    /// After so many more operations the disk fails, until it is repaired.
    pub(crate) fn fail_after(&self, operations: u64) {
        self.image().fails_after = Some(operations);
    }

    /// After so many more operations the process that makes them is killed.
    pub(crate) fn doom_after(&self, operations: u64) {
        let mut image = self.image();
        image.fails_after = Some(operations);
        image.doomed = true;
    }

    /// Whether a failure means that the process is dead.
    pub(crate) fn is_doomed(&self) -> bool {
        self.image().doomed
    }

    /// No room to grow.
    pub(crate) fn fill(&self) {
        self.image().full = true;
    }

    /// Works again, and has room.
    pub(crate) fn repair(&self) {
        let mut image = self.image();
        image.fails_after = None;
        image.failing = false;
        image.doomed = false;
        image.full = false;
    }

    /// Turns one synced bit over, where something is written.
    pub(crate) fn flip_bit(&self, chance: &mut Chance) {
        let mut image = self.image();
        let written = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
        let count = written(&image.synced);
        if count == 0 {
            return;
        }
        let chosen = chance.index(count);
        let mut places = image
            .synced
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 0);
        let Some((at, _)) = places.nth(chosen) else {
            return;
        };
        let bit = 1 << chance.between(0, 7);
        image.synced[at] ^= bit;
        image.seen = image.synced.clone();
    }

    /// How often it was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.image().syncs
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process's use of a disk.
#[derive(Debug)]
pub(crate) struct Attached {
    image: Arc<Mutex<Image>>,
    generation: u64,
}

impl Attached {
    fn image(&self) -> io::Result<MutexGuard<'_, Image>> {
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        if image.generation != self.generation {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(image)
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, Image>> {
        let mut image = self.image()?;
        match image.fails_after {
            Some(0) => image.failing = true,
            Some(left) => image.fails_after = Some(left - 1),
            None => {}
        }
        if image.failing {
            return Err(io::Error::other("input/output error"));
        }
        Ok(image)
    }
}

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image()?;
        let start = offset as usize;
        let bytes = image
            .seen
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut image = self.writable()?;
        let length = length as usize;
        if image.full && length > image.seen.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        image.seen.resize(length, 0);
        image.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut image = match self.writable() {
            Ok(image) => image,
            Err(error) => {
                // What a failed sync leaves in memory looks written to whoever
                // reads it, and no later sync writes it: so Linux does it.
                if let Ok(mut image) = self.image()
                    && !image.doomed
                {
                    image.unsynced.clear();
                }
                return Err(error);
            }
        };
        for change in std::mem::take(&mut image.unsynced) {
            match change {
                Change::Length(length) => image.synced.resize(length, 0),
                Change::Write { offset, data } => put(&mut image.synced, offset, &data),
            }
        }
        image.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.writable()?;
        let offset = offset as usize;
        put(&mut image.seen, offset, data);
        image.unsynced.push(Change::Write {
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[test]
fn a_crash_keeps_what_was_synced_and_ends_the_process() {
    let disk = Disk::default();
    for seed in 0..50 {
        let attached = disk.attach();
        attached.set_len(4096).expect("works");
        attached.write(0, &[7; 2048]).expect("works");
        attached.sync_data().expect("works");
        attached.write(2048, &[9; 2048]).expect("works");
        disk.crash(&mut Chance::new(seed));
        assert!(attached.write(0, &[0]).is_err(), "it is dead");
        let mut read = [0; 2048];
        disk.attach().read(0, &mut read).expect("works");
        assert_eq!(read, [7; 2048]);
    }
}

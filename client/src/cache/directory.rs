//! The files: one for each service and cluster, replaced whole, never believed blindly. Blocking.
//!
//! Several processes may share a directory. Each writes to a file of its own
//! and renames it, so a reader sees the one or the other view, whole.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::cache::codec::{Entry, FILE_BYTES_MAX, decode, encode};

/// More services than one process can follow, twice: a directory may be
/// shared.
const FILES_MAX: usize = 2_048;

/// What all files together may take: a handful of the largest views, or
/// thousands of ordinary ones.
const DIRECTORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Names looked at in one go through the directory: somebody may have given us
/// one that holds other things.
const NAMES_MAX: usize = 16 * FILES_MAX;

/// A file that was being written this long ago never will be complete.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

const ENDING: &str = ".view";
const UNFINISHED_BEGINNING: &str = ".trimtab-";
const UNFINISHED_ENDING: &str = ".tmp";

/// What the protocol allows as the name of a service, and thus of a file.
const SERVICE_BYTES_MAX: usize = 63;

/// A directory of views.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Of the registry this process knows.
    endpoints: Vec<String>,
}

/// A file that is there and is not used.
#[derive(Debug)]
pub(crate) struct Ignored {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

impl Directory {
    pub(crate) fn new(path: PathBuf, endpoints: Vec<String>) -> Self {
        Self { path, endpoints }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the replicas are that this process knows.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The view of a service that was written last, by this registry as far as
    /// can be told while it is silent: one of its replicas must be among those
    /// this process knows. And what is not used, with the reason.
    pub(crate) fn load(&self, service: &str) -> (Option<Entry>, Vec<Ignored>) {
        let mut ignored = Vec::new();
        let mut found: Option<Entry> = None;
        if !is_service(service) {
            return (None, ignored);
        }
        let beginning = format!("{service}@");
        let paths = self.paths(|name| name.starts_with(&beginning) && name.ends_with(ENDING));
        for path in paths.unwrap_or_default() {
            match self.read(&path, service) {
                Ok(entry) => {
                    let is_newer = |found: &Entry| entry.saved_at_ms > found.saved_at_ms;
                    if found.as_ref().is_none_or(is_newer) {
                        found = Some(entry);
                    }
                }
                Err(why) => ignored.push(Ignored { path, why }),
            }
        }
        (found, ignored)
    }

    fn read(&self, path: &Path, service: &str) -> Result<Entry, String> {
        let file = read_file(path).map_err(|error| error.to_string())?;
        let entry = decode(&file).map_err(|unusable| unusable.to_string())?;
        if entry.service != service {
            return Err(format!("it holds a view of {:?}", entry.service));
        }
        let is_known = |endpoint: &String| self.endpoints.contains(endpoint);
        if !entry.endpoints.iter().any(is_known) {
            return Err(format!(
                "it is of another registry, at {}",
                entry.endpoints.join(", ")
            ));
        }
        Ok(entry)
    }

    /// Writes a view, so that after a loss of power there is this one or the
    /// one before. One that another process wrote and that is newer stays.
    pub(crate) fn store(&self, entry: &Entry) -> io::Result<()> {
        if !is_service(&entry.service) {
            return Err(io::Error::other("its name is not that of a service"));
        }
        let file = encode(entry);
        if file.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the view has {} bytes, at most {FILE_BYTES_MAX} are kept",
                file.len()
            )));
        }
        let target = self.file_of(&entry.service, entry.cluster);
        let is_new = match self.read(&target, &entry.service) {
            Ok(there) if there.revision > entry.revision => return Ok(()),
            Ok(_) => false,
            Err(_) => true,
        };
        create_directory(&self.path)?;
        if is_new {
            self.make_room(file.len() as u64)?;
        }
        let number = rand::random::<u64>();
        let unfinished = format!("{UNFINISHED_BEGINNING}{number:016x}{UNFINISHED_ENDING}");
        let unfinished = self.path.join(unfinished);
        let written = write_new(&unfinished, &file).and_then(|()| fs::rename(&unfinished, &target));
        if written.is_err() {
            // What cannot be written can often be removed: a full disk.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        File::open(&self.path)?.sync_all()
    }

    /// Forgets the view of a service that a cluster says is no more.
    pub(crate) fn remove(&self, service: &str, cluster: u64) -> io::Result<()> {
        if !is_service(service) {
            return Ok(());
        }
        match fs::remove_file(self.file_of(service, cluster)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn file_of(&self, service: &str, cluster: u64) -> PathBuf {
        self.path.join(format!("{service}@{cluster:016x}{ENDING}"))
    }

    /// Removes the oldest views until one more fits, and what a process that
    /// died left unfinished.
    fn make_room(&self, for_bytes: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        let now = SystemTime::now();
        for path in self.paths(is_ours)? {
            // Another process may have removed it meanwhile.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if path.extension() == Some(OsStr::new("tmp")) {
                let age = now.duration_since(modified).unwrap_or_default();
                if age > ABANDONED_AFTER {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            kept.push((modified, metadata.len(), path));
        }
        kept.sort();
        let mut files = kept.len();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, its_bytes, path) in kept {
            let fits = files < FILES_MAX && bytes + for_bytes <= DIRECTORY_BYTES_MAX;
            if fits {
                break;
            }
            fs::remove_file(path)?;
            files -= 1;
            bytes -= its_bytes;
        }
        Ok(())
    }

    /// Files in the directory whose names suit.
    fn paths(&self, suits: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(NAMES_MAX) {
            let entry = entry?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && entry.file_name().to_str().is_some_and(&suits) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }
}

/// Whether the name of a file is one that this room gives.
fn is_ours(name: &str) -> bool {
    let view = name.strip_suffix(ENDING).and_then(|it| it.split_once('@'));
    let is_view = view.is_some_and(|(service, cluster)| is_service(service) && cluster.len() == 16);
    is_view || name.starts_with(UNFINISHED_BEGINNING) && name.ends_with(UNFINISHED_ENDING)
}

/// The protocol's own rule. A name that breaks it never becomes a path.
fn is_service(name: &str) -> bool {
    let of_set = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= SERVICE_BYTES_MAX
        && name.bytes().all(of_set)
        && is_end(name.bytes().next())
        && is_end(name.bytes().last())
}

/// A whole file, if it is a regular one and not too large.
fn read_file(path: &Path) -> io::Result<Bytes> {
    // Looked at before it is opened: to open a pipe would wait for its writer.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let most = FILE_BYTES_MAX as u64;
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!(
            "it is longer than {most} bytes, the most that is written"
        )));
    }
    Ok(bytes.into())
}

/// Readable by this user alone: it says where everything is.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;

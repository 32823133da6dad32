//! A file that is there whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::BackupError;

/// A file that is being written under another name, beside the one it is to
/// have. Dropped before [`Target::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    overwrite: bool,
    is_finished: bool,
}

impl Target {
    /// Begins a file that is to be called `path`.
    ///
    /// # Errors
    /// When there is one already and `overwrite` is not set, or the directory
    /// cannot be written.
    pub fn begin(path: &Path, overwrite: bool) -> Result<Self, BackupError> {
        let taken = match fs::symlink_metadata(path) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(failed("look at", path)(source)),
        };
        if taken && !overwrite {
            return Err(BackupError::Exists {
                path: path.to_owned(),
            });
        }
        let temporary = temporary(path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file,
            overwrite,
            is_finished: false,
        })
    }

    /// Appends.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, chunk: &Bytes) -> Result<(), BackupError> {
        let written = self.file.write_all(chunk);
        written.map_err(failed("write", &self.path))
    }

    /// Where the file is until it is finished: for looking at what was
    /// written.
    pub fn so_far(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name, once its bytes are on the disk.
    ///
    /// # Errors
    /// When they are not, or the name was taken meanwhile.
    pub fn finish(mut self) -> Result<(), BackupError> {
        let path = self.path.clone();
        self.file.sync_all().map_err(failed("write", &path))?;
        if self.overwrite {
            fs::rename(&self.temporary, &path).map_err(failed("write", &path))?;
        } else {
            self.claim()?;
        }
        self.is_finished = true;
        File::open(parent(&path))
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync the directory of", &path))
    }

    /// Takes the name if nobody has: a link is refused where a renaming would
    /// overwrite.
    fn claim(&self) -> Result<(), BackupError> {
        let exists = || BackupError::Exists {
            path: self.path.clone(),
        };
        match fs::hard_link(&self.temporary, &self.path) {
            Ok(()) => {
                // The file has its name; a second one does no harm.
                let _ = fs::remove_file(&self.temporary);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
            // Not every file system has links.
            Err(_) if fs::symlink_metadata(&self.path).is_ok() => Err(exists()),
            Err(_) => fs::rename(&self.temporary, &self.path).map_err(failed("write", &self.path)),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed is not under the name that was asked for.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A name of this process's own in the same directory, so that it can be
/// renamed.
fn temporary(path: &Path) -> Result<PathBuf, BackupError> {
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it names no file");
        return Err(failed("write", path)(source));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:016x}.partial", rand::random::<u64>()));
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("readable");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn write(path: &Path, content: &'static str, overwrite: bool) -> Result<(), BackupError> {
        let mut target = Target::begin(path, overwrite)?;
        target.write(&Bytes::from_static(content.as_bytes()))?;
        target.finish()
    }

    #[test]
    fn a_file_appears_whole_and_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("backup");
        let mut target = Target::begin(&path, false).expect("begins");
        target.write(&Bytes::from_static(b"one ")).expect("written");
        assert!(!path.exists());
        assert_eq!(fs::read(target.so_far()).expect("readable"), b"one ");
        target.write(&Bytes::from_static(b"two")).expect("written");
        target.finish().expect("finished");
        assert_eq!(fs::read(&path).expect("readable"), b"one two");
        assert_eq!(names(directory.path()), ["backup"]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut target = Target::begin(&directory.path().join("backup"), false).expect("begins");
        target.write(&Bytes::from_static(b"half")).expect("written");
        drop(target);
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("backup");
        write(&path, "old", false).expect("written");
        let refused = write(&path, "new", false).expect_err("exists");
        assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
        assert_eq!(fs::read(&path).expect("readable"), b"old");
        write(&path, "new", true).expect("overwritten");
        assert_eq!(fs::read(&path).expect("readable"), b"new");

        // Nor when the name is taken in the middle.
        let late = directory.path().join("late");
        let target = Target::begin(&late, false).expect("begins");
        fs::write(&late, "other").expect("written");
        assert!(matches!(target.finish(), Err(BackupError::Exists { .. })));
        assert_eq!(fs::read(&late).expect("readable"), b"other");
        assert_eq!(names(directory.path()), ["backup", "late"]);
    }

    #[test]
    fn a_name_that_cannot_be_written_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let nowhere = directory.path().join("no such directory").join("backup");
        let refused = write(&nowhere, "x", false).expect_err("nowhere");
        assert!(refused.to_string().contains("cannot create"), "{refused}");
        assert!(write(Path::new("/"), "x", true).is_err());
    }
}

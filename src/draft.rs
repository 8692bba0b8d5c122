//! A file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Names that are tried before giving up: the leftovers of killed processes of the same id.
const NAMES_MAX: u32 = 100;

/// A file in the making, beside its target. Dropped before it is finished, it is gone, and the
/// target is what it was.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Draft {
    /// Begins a file that is to become `target`. A link is followed, so that it stays one.
    pub fn begin(target: &Path) -> Result<Draft, Error> {
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let process = std::process::id();
        let failed = |path: PathBuf, source| Error::Io { path, doing: "create it", source };
        for number in 0..NAMES_MAX {
            let path = target.with_file_name(format!(".{name}.{process}-{number}.part"));
            // Only a file that is new is surely nobody else's.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Draft { file, path, target, finished: false }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(failed(path, source)),
            }
        }
        Err(failed(target, ErrorKind::AlreadyExists.into()))
    }

    /// The target is whole: from here on its name leads to it, after a power cut, too.
    pub fn finish(mut self) -> Result<(), Error> {
        let renamed = self.file.sync_all().and_then(|()| fs::rename(&self.path, &self.target));
        renamed.map_err(|source| self.failure(source))?;
        self.finished = true;
        Ok(())
    }

    /// Names the target in an error of writing.
    pub fn failure(&self, source: io::Error) -> Error {
        Error::Io { path: self.target.clone(), doing: "write it", source }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing is left to do where even this fails; the name says what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_target_changes_only_when_its_draft_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.csv");
        fs::write(&target, "old").unwrap();
        let mut draft = Draft::begin(&target).unwrap();
        draft.write_all(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        drop(draft);
        assert_eq!(
            (names(dir.path()), fs::read(&target).unwrap()),
            (vec!["out.csv".into()], b"old".to_vec())
        );

        let (mut draft, other) = (Draft::begin(&target).unwrap(), Draft::begin(&target).unwrap());
        draft.write_all(b"new").unwrap();
        draft.finish().unwrap();
        drop(other);
        assert_eq!(
            (names(dir.path()), fs::read(&target).unwrap()),
            (vec!["out.csv".into()], b"new".to_vec())
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("out.csv"), dir.path().join("latest.csv"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Draft::begin(&link).unwrap().finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"");
    }
}

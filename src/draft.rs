//! A file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Names that are tried before giving up: drafts of other threads of this process.
const NAMES_MAX: u32 = 100;

/// A file in the making, beside its target. Dropped before it is finished, it is gone, and the
/// target is what it was.
///
/// **Invariant:** it is locked for as long as somebody writes it. So one that is not is left over
/// from a process that was killed, and the next draft of the same target removes it.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

/// Where a path leads, over all links, though there may be nothing yet.
///
/// # Errors
///
/// The links lead in a circle, or what they lead through cannot be looked at.
pub fn destination(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_link(path) {
            // A circle is another error, so this ends.
            Ok(link) => destination(&path.parent().unwrap_or(Path::new("")).join(link)),
            Err(_) => Ok(path.to_owned()),
        },
        found => found,
    }
}

impl Draft {
    /// Begins a file that is to become `target`. A link is followed, so that it stays one.
    pub fn begin(target: &Path) -> Result<Draft, Error> {
        let failed = |source| {
            let doing = "make a file in its folder";
            Error::Io { path: target.to_owned(), doing, source }
        };
        let target = destination(target).map_err(failed)?;
        remove_leftovers(&target);
        let process = std::process::id();
        for number in 0..NAMES_MAX {
            let path = target.with_file_name(format!("{}{process}-{number}{END}", lead(&target)));
            // Only a file that is new is surely nobody else's.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) if !is_taken(&file, &path) => {
                    return Ok(Draft { file, path, target, finished: false });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Err(failed(ErrorKind::AlreadyExists.into()))
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

/// How the names of all drafts of a target begin; the process and a number follow.
fn lead(target: &Path) -> String {
    format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy())
}

/// How they end.
const END: &str = ".part";

/// Locks a draft that was just made; tells whether somebody took it for a leftover before that. A
/// file system without locks has no leftovers removed either.
fn is_taken(file: &File, path: &Path) -> bool {
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) || !leads_to(path, file)
}

/// Whether a name leads to an open file, and not to another one or to nothing.
fn leads_to(path: &Path, file: &File) -> bool {
    let inode = |found: fs::Metadata| (found.dev(), found.ino());
    let named = fs::symlink_metadata(path).map(inode);
    named.is_ok_and(|named| file.metadata().map(inode).is_ok_and(|opened| opened == named))
}

/// Removes the drafts of a target whose processes are gone. What cannot be looked at or removed
/// stays: it is in nobody's way.
fn remove_leftovers(target: &Path) {
    let lead = lead(target);
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix(&lead)?.strip_suffix(END));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_draft = middle
            .and_then(|middle| middle.split_once('-'))
            .is_some_and(|(process, number)| digits(process) && digits(number));
        if is_draft && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            // With the lock nobody writes it, and by its name still: nobody has finished it.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() && leads_to(&path, &file) {
                let _ = fs::remove_file(&path);
            }
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

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.csv");
        let stays = [".out.csv.12-x.part", ".out.csv.part", ".other.csv.12-0.part", "out.csv.12-0"];
        for name in stays.iter().chain(&[".out.csv.12-0.part", ".out.csv.1-7.part"]) {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        fs::create_dir(dir.path().join(".out.csv.3-0.part")).unwrap();
        let link = dir.path().join(".out.csv.4-0.part");
        std::os::unix::fs::symlink(dir.path().join("out.csv.12-0"), link).unwrap();
        let living = Draft::begin(&target).unwrap();
        let other = Draft::begin(&target).unwrap();
        assert!(living.path.exists() && other.path.exists(), "nobody who lives is robbed");
        living.finish().unwrap();
        drop(other);
        let mut expected = stays.map(str::to_owned).to_vec();
        expected.extend([".out.csv.3-0.part", ".out.csv.4-0.part", "out.csv"].map(str::to_owned));
        expected.sort();
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn a_link_stays_a_link_whether_or_not_it_leads_to_something() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("out.csv"), dir.path().join("latest.csv"));
        let chain = dir.path().join("chain.csv");
        std::os::unix::fs::symlink("out.csv", &link).unwrap();
        std::os::unix::fs::symlink(&link, &chain).unwrap();
        for (through, before) in [(&chain, None), (&link, Some("old"))] {
            if let Some(text) = before {
                fs::write(&target, text).unwrap();
            }
            Draft::begin(through).unwrap().finish().unwrap();
            assert!(fs::symlink_metadata(through).unwrap().is_symlink());
            assert_eq!(fs::read(&target).unwrap(), b"");
        }
        let circle = dir.path().join("circle.csv");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        let refused = Draft::begin(&circle).unwrap_err().to_string();
        assert!(refused.contains("circle.csv: cannot"), "{refused}");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named_as_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("none/out.csv");
        let refused = Draft::begin(&target).unwrap_err().to_string();
        let told = format!("{}: cannot make a file in its folder: ", target.display());
        assert!(refused.starts_with(&told), "{refused}");
    }
}

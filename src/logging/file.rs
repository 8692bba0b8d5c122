//! A log file that does not grow for ever: when it is full it becomes `NAME.1`, what was that
//! becomes `NAME.2`, and so on; the oldest goes.
//!
//! **Invariant:** no line is lost to that. Where files cannot be renamed, the one that is open is
//! written on, beyond its size. Where several processes write to one file, only the one that
//! holds its lock renames it, and the others follow. A file that somebody else has moved away or
//! deleted, with its folder perhaps, is followed by a new one before the next line.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that an editor still opens at once; at INFO it holds months of a calm daemon.
const BYTES_MAX: u64 = 10_000_000;
/// Old files that are kept: with them a log takes sixty megabytes at most, and even at DEBUG goes
/// back some days.
const KEPT: u32 = 5;
/// A rotation that failed is tried again when the file has grown by this part of its size.
const AGAIN_PART: u64 = 10;

/// A log file, open for adding to it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// What is in it, others' lines of late apart.
    bytes: u64,
    bytes_max: u64,
    /// With so many bytes in it, it is full. Something that is no file, such as a pipe, never is.
    full_at: u64,
}

impl LogFile {
    /// Opens a file at its end; it and its folder are made if they are not there.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        LogFile::open_of(path, BYTES_MAX)
    }

    fn open_of(path: &Path, bytes_max: u64) -> io::Result<LogFile> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let file = append_to(path)?;
        let found = file.metadata()?;
        let full_at = if found.is_file() { bytes_max } else { u64::MAX };
        Ok(LogFile { path: path.to_owned(), file, bytes: found.len(), bytes_max, full_at })
    }

    /// Goes on in a new file where this one is not found any more under its name; tells whether it
    /// has. Where that fails this one is written on.
    pub(super) fn follow(&mut self) -> bool {
        let found = |about: &Metadata| (about.dev(), about.ino());
        let is_same = match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => found(&named) == found(&open),
            (Err(error), _) => error.kind() != ErrorKind::NotFound,
            (_, Err(_)) => true,
        };
        let next = (!is_same).then(|| LogFile::open_of(&self.path, self.bytes_max));
        next.and_then(Result::ok).map(|next| *self = next).is_some()
    }

    /// Adds a line with its end, to a new file if this one is full.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.full_at {
            match self.rotate() {
                Ok(next) => *self = next,
                Err(_) => self.full_at = self.bytes + self.bytes_max / AGAIN_PART,
            }
        }
        self.file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }

    /// The file that comes after this one. This one stays open.
    fn rotate(&self) -> io::Result<LogFile> {
        let again = || LogFile::open_of(&self.path, self.bytes_max);
        // A shorter file of the same name is another one: somebody else has done it.
        let next = again()?;
        if next.bytes < self.bytes {
            return Ok(next);
        }
        next.file.try_lock()?;
        // The lock may have come after just that.
        if fs::metadata(&self.path)?.len() < self.bytes {
            return again();
        }
        for n in (1..KEPT).rev() {
            match fs::rename(self.old(n), self.old(n + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.old(1))?;
        again()
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{number}"));
        self.path.with_file_name(name)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a folder in the order of their names, as `NAME: TEXT`.
    fn files(dir: &Path) -> Vec<String> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let file = |path: &PathBuf| {
            let name = path.file_name().unwrap().display();
            format!("{name}: {}", fs::read_to_string(path).unwrap_or_default())
        };
        paths.iter().map(file).collect()
    }

    fn write(log: &mut LogFile, lines: std::ops::Range<u32>) {
        lines.for_each(|n| log.write_line(format!("{n:02}\n").as_bytes()).unwrap());
    }

    #[test]
    fn a_full_file_gives_way_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = LogFile::open_of(&path, 6).unwrap();
        write(&mut log, 0..5);
        let three = ["x.log: 04\n", "x.log.1: 02\n03\n", "x.log.2: 00\n01\n"];
        assert_eq!(files(dir.path()), three);
        drop(log);
        // It goes on where another process has ended.
        write(&mut LogFile::open_of(&path, 6).unwrap(), 5..20);
        let names = ["x.log: 18", "x.log.1: 16", "x.log.2: 14", "x.log.3: 12", "x.log.4: 10"];
        let found = files(dir.path());
        assert!(names.iter().zip(&found).all(|(name, found)| found.starts_with(name)), "{found:?}");
        assert_eq!((found.len(), found[5].as_str()), (6, "x.log.5: 08\n09\n"));
    }

    #[test]
    fn a_line_that_is_too_long_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open_of(&dir.path().join("x.log"), 6).unwrap();
        log.write_line(b"longer than that\n").unwrap();
        write(&mut log, 1..2);
        assert_eq!(files(dir.path()), ["x.log: 01\n", "x.log.1: longer than that\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_renamed_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        // A file does not take the place of a folder.
        fs::create_dir(dir.path().join("x.log.5")).unwrap();
        fs::write(dir.path().join("x.log.4"), "").unwrap();
        let mut log = LogFile::open_of(&dir.path().join("x.log"), 6).unwrap();
        write(&mut log, 0..5);
        assert_eq!(files(dir.path())[0], "x.log: 00\n01\n02\n03\n04\n");
        fs::remove_dir(dir.path().join("x.log.5")).unwrap();
        write(&mut log, 5..6);
        assert_eq!(files(dir.path())[0], "x.log: 05\n", "as soon as it can be");
    }

    #[test]
    fn a_file_that_is_taken_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let mut log = LogFile::open_of(&path, 100).unwrap();
        assert!(!log.follow());
        write(&mut log, 0..1);
        fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(log.follow() && !log.follow());
        write(&mut log, 1..2);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert!(log.follow());
        write(&mut log, 2..3);
        assert_eq!(fs::read_to_string(&path).unwrap(), "02\n");
        // As logrotate does it: the next file is there already.
        fs::rename(&path, dir.path().join("moved too")).unwrap();
        fs::write(&path, "").unwrap();
        assert!(log.follow());
        write(&mut log, 3..4);
        assert_eq!(files(path.parent().unwrap()), ["x.log: 03\n"]);
        // Where none can be made the open one is written on.
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.parent().unwrap(), "in the way").unwrap();
        assert!(!log.follow());
        log.write_line(b"04\n").unwrap();
    }

    #[test]
    fn of_several_processes_one_renames_and_all_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut logs = [0, 1].map(|_| LogFile::open_of(&path, 30).unwrap());
        for n in 0..40 {
            write(&mut logs[n as usize % 2], n..n + 1);
        }
        let text = files(dir.path()).concat();
        let missing = (0..40).filter(|n| text.matches(&format!("{n:02}\n")).count() != 1);
        assert_eq!(missing.count(), 0, "{text}");
        assert!(files(dir.path()).len() > 2, "{text}");

        // Whoever renames has the lock, and the others wait for that.
        let holder = append_to(&path).unwrap();
        holder.lock().unwrap();
        let before = files(dir.path()).len();
        write(&mut logs[0], 40..60);
        assert_eq!(files(dir.path()).len(), before);
        drop(holder);
    }
}

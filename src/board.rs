//! The board on which a daemon pins its [`Snapshot`]: a file in the data folder.
//!
//! **Invariant:** a reader finds a whole snapshot or none, and disturbs nobody.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::snapshot::Snapshot;

/// The file, in the data folder.
const FILE: &str = ".daemon.json";
/// The file in the making. There is one daemon for each folder, so it needs no name of its own.
const DRAFT: &str = ".daemon.json.part";
/// More than a thousand instruments of eight bars have to say.
const BYTES_MAX: u64 = 16 << 20;

impl Snapshot {
    /// Pins this in the place of what was there. The folder must be there, and the caller must
    /// hold its lock. It is not brought to the disk: after a power cut there is no daemon to show.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what was there before is then there still.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let draft = data_dir.join(DRAFT);
        // What a killed daemon has left, or a link that somebody put there: it is not written to.
        let _ = fs::remove_file(&draft);
        File::create_new(&draft)?.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&draft, data_dir.join(FILE))
    }

    /// Whether one could be pinned there, apart from the room for it. The same has to hold.
    ///
    /// # Errors
    ///
    /// No file can be made in the folder.
    pub fn try_place(data_dir: &Path) -> io::Result<()> {
        let draft = data_dir.join(DRAFT);
        let _ = fs::remove_file(&draft);
        match File::create_new(&draft) {
            Ok(_) => fs::remove_file(&draft),
            // A disk that is full is not so for ever.
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            Err(error) if error.kind() == ErrorKind::QuotaExceeded => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is pinned there, if anything is that can be read. It says what was, not that there is
    /// a daemon: that is proven by [`Lock::holder`](crate::lock::Lock::holder) alone.
    pub fn read(data_dir: &Path) -> Option<Snapshot> {
        let mut text = Vec::new();
        let file = File::open(data_dir.join(FILE)).ok()?;
        file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Snapshot::read(dir.path()), None);
        for pid in [1, 2] {
            let snapshot = Snapshot { pid, ..Snapshot::default() };
            snapshot.write(dir.path()).unwrap();
            assert_eq!(Snapshot::read(dir.path()), Some(snapshot));
        }
        Snapshot::try_place(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Snapshot::try_place(&dir.path().join("nowhere")).is_err());
        fs::write(dir.path().join(FILE), "{ \"pid\": ").unwrap();
        assert_eq!(Snapshot::read(dir.path()), None, "torn");
        assert!(Snapshot::default().write(&dir.path().join("nowhere")).is_err());
    }
}

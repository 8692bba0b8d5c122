//! Open files for those who ask often: a question costs microseconds, to open a file a hundred
//! times as much.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::house::House;
use crate::instrument::Instrument;
use crate::store::file_path;
use crate::store::read::Reader;

/// Files that are kept open while nobody reads them: each costs a few descriptors, and up to 2 MB.
const IDLE_MAX: usize = 16;

/// A file that is open for reading, and what the system knew it by when it was opened.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) reader: Reader,
    instrument: Instrument,
    inode: (u64, u64),
}

/// Files that nobody reads at this moment. Whoever reads one has it for himself.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Kept>>,
}

impl Pool {
    /// The file of an instrument, opened unless one waits here that is still the same.
    pub(super) fn take(
        &self,
        house: &House<'_>,
        instrument: &Instrument,
    ) -> Result<Kept, crate::store::StoreError> {
        let path = file_path(house.data_dir, instrument);
        let inode = inode(&path);
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().rposition(|kept| kept.instrument == *instrument);
            let Some(kept) = at.map(|at| idle.remove(at)) else { break };
            if inode == Some(kept.inode) {
                return Ok(kept);
            }
        }
        let reader = Reader::open(&path, house.identity)?;
        let (instrument, inode) = (instrument.clone(), inode.unwrap_or_default());
        Ok(Kept { reader, instrument, inode })
    }

    /// Keeps a file for the next question. One that would not see what is written later is not
    /// kept.
    pub(super) fn put(&self, kept: Kept) {
        if kept.reader.is_immutable {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(kept);
        if idle.len() > IDLE_MAX {
            idle.remove(0);
        }
    }

    /// Closes all files that nobody reads.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Device and number of the file that stands at a path.
fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

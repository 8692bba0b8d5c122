//! The files that are open for writing: a bounded number, the least recently used one gives way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::instrument::Instrument;
use crate::store::file::File;
use crate::store::{Identity, StoreError, file_path};

/// Descriptors left for sockets, logs and readers.
const RESERVED: u64 = 128;
/// Descriptors per open file: the database, its log, its shared memory.
const PER_FILE: u64 = 3;
/// Files that are kept open however low the limit.
const OPEN_MIN: u64 = 64;

/// All files of a folder, opened as they are needed.
#[derive(Debug)]
pub struct Files {
    data_dir: PathBuf,
    identity: Identity,
    open_max: usize,
    /// The open files and when each was last used, counted in uses.
    open: BTreeMap<Instrument, (u64, File)>,
    uses: u64,
}

impl Files {
    /// The files in `data_dir`, none open yet.
    pub fn new(data_dir: &Path, identity: Identity) -> Files {
        let open_max = usize::try_from(open_max(descriptor_limit())).unwrap_or(usize::MAX);
        let data_dir = data_dir.to_owned();
        Files { data_dir, identity, open_max, open: BTreeMap::new(), uses: 0 }
    }

    /// Whether an instrument has a file.
    pub fn exists(&self, instrument: &Instrument) -> bool {
        file_path(&self.data_dir, instrument).is_file()
    }

    /// The file of an instrument, opened if it is not.
    pub fn get(&mut self, instrument: &Instrument) -> Result<&mut File, StoreError> {
        self.uses += 1;
        if !self.open.contains_key(instrument) {
            if self.open.len() >= self.open_max {
                self.evict();
            }
            let path = file_path(&self.data_dir, instrument);
            let file = File::open(&path, &self.identity)?;
            self.open.insert(instrument.clone(), (0, file));
        }
        let (used, file) = self.open.get_mut(instrument).expect("because it was opened a line ago");
        *used = self.uses;
        Ok(file)
    }

    fn evict(&mut self) {
        let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used);
        if let Some(instrument) = oldest.map(|(instrument, _)| instrument.clone()) {
            self.open.remove(&instrument);
        }
    }

    /// Writes those open files anew to which many rows came. The first failure is told after all
    /// were tried.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        let tried: Vec<_> = self.open.values_mut().map(|(_, file)| file.compact()).collect();
        tried.into_iter().collect()
    }

    /// Closes every open file with its log moved into it. The first failure is told after all were
    /// tried.
    pub fn finish(self) -> Result<(), StoreError> {
        let tried: Vec<_> = self.open.into_values().map(|(_, file)| file.finish()).collect();
        tried.into_iter().collect()
    }

    /// Closes the file of an instrument.
    pub fn close(&mut self, instrument: &Instrument) {
        self.open.remove(instrument);
    }
}

fn open_max(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(RESERVED) / PER_FILE).max(OPEN_MIN)
}

/// The soft limit of open files, or what is usual where it cannot be known.
fn descriptor_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    match soft {
        Some("unlimited") => 65_536,
        soft => soft.and_then(|soft| soft.parse().ok()).unwrap_or(1_024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_leaves_room_for_sockets() {
        assert_eq!(open_max(1_024), 298);
        assert_eq!(open_max(8_192), 2_688);
        assert_eq!(open_max(20), 64);
    }

    #[test]
    fn the_least_recently_used_file_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { venue: "okx", region: "global".into(), demo: false };
        let mut files = Files { open_max: 2, ..Files::new(dir.path(), identity) };
        let names = ["A-USDT", "B-USDT", "C-USDT"].map(|name| name.parse().unwrap());
        for used in [0, 1, 0, 2] {
            files.get(&names[used]).unwrap();
        }
        assert_eq!(files.open.keys().collect::<Vec<_>>(), [&names[0], &names[2]]);
    }
}

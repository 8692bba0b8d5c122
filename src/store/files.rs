//! The files that are open for writing: a bounded number, the least recently used one gives way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::candle::Candle;
use crate::instrument::Instrument;
use crate::page::Stored;
use crate::store::file::{Entry, File};
use crate::store::{self, Identity, StoreError, file_path};
use crate::time::{MINUTE, Millis};

/// Descriptors left for sockets, logs and readers.
const RESERVED: u64 = 128;
/// Descriptors per open file: the database, its log, its shared memory, and one that a reader has
/// left. To close it would drop the lock that the writer has on the same file in this process, so
/// SQLite keeps it until the writer's own is closed, and gives it to the next reader.
const PER_FILE: u64 = 4;
/// Files that are kept open however low the limit.
const OPEN_MIN: u64 = 64;
/// After so many commits a log is moved into its file in a quiet moment. A commit writes two to
/// four pages, so the 1,000 at which SQLite does so in the middle of a commit are hardly reached.
const CHECKPOINT_COMMITS: u32 = 128;
/// Files are looked through for idle ones once in so long.
const LOOK_MS: Millis = MINUTE;

/// All files of a folder, opened as they are needed.
#[derive(Debug)]
pub struct Files {
    data_dir: PathBuf,
    identity: Identity,
    open_max: usize,
    /// The open files and when each was last used, counted in uses.
    open: BTreeMap<Instrument, (u64, File)>,
    uses: u64,
    /// Open files whose log has become long.
    ripe: BTreeSet<Instrument>,
    /// Files that gave way and have left their log, and when each was last used.
    evicted: BTreeMap<Instrument, u64>,
    /// The uses when the files were last looked through: since then an idle one has had none.
    looked_at: u64,
    /// When they are looked through again, local ms.
    look_due: Millis,
    /// Files found idle that still have a log.
    idle: BTreeSet<Instrument>,
    /// Of each page of the last commit the rows that it has changed.
    fresh: Vec<Vec<Candle>>,
}

impl Files {
    /// The files in `data_dir`, none open yet.
    pub fn new(data_dir: &Path, identity: Identity) -> Files {
        Files {
            data_dir: data_dir.to_owned(),
            identity,
            open_max: usize::try_from(open_files_max()).unwrap_or(usize::MAX),
            open: BTreeMap::new(),
            uses: 0,
            ripe: BTreeSet::new(),
            evicted: BTreeMap::new(),
            looked_at: 0,
            look_due: 0,
            idle: BTreeSet::new(),
            fresh: Vec::new(),
        }
    }

    /// Where the file of an instrument lies.
    pub fn path(&self, instrument: &Instrument) -> PathBuf {
        file_path(&self.data_dir, instrument)
    }

    /// Whether an instrument has a file.
    pub fn exists(&self, instrument: &Instrument) -> bool {
        self.path(instrument).is_file()
    }

    /// Stores pages of one instrument in one transaction.
    pub fn commit<'a>(
        &mut self,
        instrument: &Instrument,
        entries: impl IntoIterator<Item = &'a Entry>,
        clock_offset_ms: Millis,
    ) -> Result<Vec<Stored>, StoreError> {
        let file = self.get(instrument)?;
        let stored = file.commit(entries, clock_offset_ms)?;
        let (fresh, commits) = (file.take_fresh(), file.commits());
        self.fresh = fresh;
        if commits == CHECKPOINT_COMMITS {
            self.ripe.insert(instrument.clone());
        }
        Ok(stored)
    }

    /// Of each page of the last commit the rows that it has changed.
    pub fn fresh(&self) -> &[Vec<Candle>] {
        &self.fresh
    }

    /// The file of an instrument, opened if it is not.
    pub fn get(&mut self, instrument: &Instrument) -> Result<&mut File, StoreError> {
        self.uses += 1;
        if !self.open.contains_key(instrument) {
            if self.open.len() >= self.open_max {
                self.evict();
            }
            let file = File::open(&self.path(instrument), &self.identity)?;
            self.evicted.remove(instrument);
            self.open.insert(instrument.clone(), (0, file));
        }
        let (used, file) = self.open.get_mut(instrument).expect("because it was opened a line ago");
        *used = self.uses;
        Ok(file)
    }

    fn evict(&mut self) {
        let oldest = self.open.iter().min_by_key(|(_, (used, _))| *used);
        let Some(instrument) = oldest.map(|(instrument, _)| instrument.clone()) else { return };
        let Some((used, mut file)) = self.open.remove(&instrument) else { return };
        if self.ripe.remove(&instrument) {
            // What cannot be moved now stays in the log, for whoever opens the file next.
            let _ = file.checkpoint();
        }
        self.evicted.insert(instrument, used);
    }

    /// Moves one long log into its file; false if there is none. It may take as long as the disk
    /// needs to have written it, so it is for moments in which nobody waits.
    pub fn checkpoint(&mut self) -> Result<bool, StoreError> {
        let Some(instrument) = self.ripe.pop_first() else { return Ok(false) };
        if let Some((_, file)) = self.open.get_mut(&instrument) {
            file.checkpoint()?;
        }
        Ok(true)
    }

    /// Empties the log of one file that was not used for a while, so that many idle ones take no
    /// room; false if there is none. For moments in which nobody waits, like
    /// [`Files::checkpoint`]; `now` is local.
    pub fn settle(&mut self, now: Millis) -> Result<bool, StoreError> {
        if now >= self.look_due {
            self.look_due = now + LOOK_MS;
            let since = std::mem::replace(&mut self.looked_at, self.uses);
            let open = self.open.iter().filter(|(_, (_, file))| !file.is_settled());
            let used = open.map(|(name, (used, _))| (name, used)).chain(&self.evicted);
            let idle = used.filter(|(_, used)| **used <= since);
            self.idle = idle.map(|(name, _)| name.clone()).collect();
        }
        let Some(name) = self.idle.pop_first() else { return Ok(false) };
        if let Some((_, file)) = self.open.get_mut(&name) {
            file.settle()?;
        } else if self.evicted.contains_key(&name) {
            File::open(&self.path(&name), &self.identity)?.finish()?;
            self.evicted.remove(&name);
        }
        Ok(true)
    }

    /// Writes those open files anew to which many rows came. The first failure is told after all
    /// were tried.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        let tried: Vec<_> = self.open.values_mut().map(|(_, file)| file.compact()).collect();
        tried.into_iter().collect()
    }

    /// Closes every file with its log moved into it, those that gave way too. The first failure is
    /// told after all were tried. Once there is `hurry` the other logs stay where they are.
    pub fn finish(mut self, hurry: &AtomicBool) -> Result<(), StoreError> {
        let mut result = Ok(());
        let open = std::mem::take(&mut self.open).into_values().map(|(_, file)| Ok(file));
        let evicted = self.evicted.keys();
        let evicted = evicted.map(|name| File::open(&self.path(name), &self.identity));
        for file in open.chain(evicted).take_while(|_| !hurry.load(Ordering::Relaxed)) {
            let finished = file.and_then(File::finish);
            result = result.and(finished);
        }
        result
    }

    /// Closes the file of an instrument, and leaves it as it is.
    pub fn close(&mut self, instrument: &Instrument) {
        self.open.remove(instrument);
        self.ripe.remove(instrument);
        self.evicted.remove(instrument);
    }

    /// Deletes the file of an instrument.
    pub fn purge(&mut self, instrument: &Instrument) -> Result<(), StoreError> {
        self.close(instrument);
        store::delete(&self.path(instrument))
    }
}

/// How many files this process would keep open for writing.
pub fn open_files_max() -> u64 {
    open_max(descriptor_limit())
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
    use crate::page::Page;
    use crate::store::read::Reader;
    use crate::store::sample::{BASE, candle};
    use crate::time::MINUTE;

    #[test]
    fn the_limit_leaves_room_for_sockets() {
        assert_eq!(open_max(1_024), 224);
        assert_eq!(open_max(8_192), 2_016);
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

    /// Descriptors of this process that lie in a folder.
    #[cfg(target_os = "linux")]
    fn descriptors(dir: &Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        // Another test may close one between the listing and the look at it.
        let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(dir)).count()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn files_that_are_read_take_no_more_descriptors_than_are_counted_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { venue: "okx", region: "global".into(), demo: false };
        let mut files = Files::new(dir.path(), identity);
        for name in names() {
            files.commit(&name, [&running(0, 1.0)], 0).unwrap();
        }
        for round in 0..3 {
            for name in names() {
                let reader = Reader::open(&files.path(&name), &files.identity).unwrap();
                assert_eq!(reader.bars().unwrap().len(), 1);
                drop(reader);
                files.commit(&name, [&running(round, 1.0)], 0).unwrap();
            }
            assert_eq!(descriptors(dir.path()) as u64, 3 * PER_FILE, "round {round}");
        }
        names().iter().for_each(|name| files.close(name));
        assert_eq!(descriptors(dir.path()), 0);
    }

    fn small(dir: &tempfile::TempDir) -> Files {
        let identity = Identity { venue: "okx", region: "global".into(), demo: false };
        Files { open_max: 2, ..Files::new(dir.path(), identity) }
    }

    fn names() -> [Instrument; 3] {
        ["A-USDT", "B-USDT", "C-USDT"].map(|name| name.parse().unwrap())
    }

    fn running(minute: i64, close: f64) -> Entry {
        let rows = vec![candle(BASE + minute * MINUTE, close, false)];
        let page = Page::pushed(rows, Vec::new());
        Entry { bar: "1m".parse().unwrap(), grid: None, page, at: BASE + minute * MINUTE }
    }

    fn log_bytes(files: &Files, name: &Instrument) -> u64 {
        let log = files.path(name).with_extension("db-wal");
        std::fs::metadata(log).map_or(0, |log| log.len())
    }

    #[test]
    fn no_log_is_left_behind_whichever_files_gave_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = small(&dir);
        for name in names() {
            files.commit(&name, [&running(0, 1.0)], 0).unwrap();
            assert!(log_bytes(&files, &name) > 0);
        }
        assert_eq!(files.evicted.len(), 1);
        files.finish(&AtomicBool::new(false)).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["A-USDT.db", "B-USDT.db", "C-USDT.db"]);
    }

    #[test]
    fn whoever_is_in_a_hurry_leaves_the_logs() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = small(&dir);
        let name = &names()[0];
        files.commit(name, [&running(0, 1.0)], 0).unwrap();
        let path = files.path(name);
        files.finish(&AtomicBool::new(true)).unwrap();
        assert!(path.with_extension("db-wal").exists());
        let files = small(&dir);
        let reader = Reader::open(&path, &files.identity).unwrap();
        assert_eq!(reader.bars().unwrap().len(), 1, "nothing is lost by it");
    }

    #[test]
    fn a_long_log_is_moved_when_there_is_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = small(&dir);
        let name = &names()[0];
        for n in 0..CHECKPOINT_COMMITS {
            assert!(!files.checkpoint().unwrap(), "after {n} commits");
            files.commit(name, [&running(0, 1.0 + f64::from(n))], 0).unwrap();
        }
        let before = std::fs::metadata(files.path(name)).unwrap().len();
        assert!(files.checkpoint().unwrap() && !files.checkpoint().unwrap());
        let after = std::fs::metadata(files.path(name)).unwrap().len();
        assert!(before < after, "{before} {after}");
        // Once all is moved the log begins anew.
        let log = log_bytes(&files, name);
        files.commit(name, [&running(0, 999.0)], 0).unwrap();
        assert_eq!(log_bytes(&files, name), log);
    }

    #[test]
    fn an_idle_file_keeps_no_log_whether_it_is_open_or_gave_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = small(&dir);
        let [gone, idle, busy] = names();
        for name in [&gone, &idle, &busy] {
            files.commit(name, [&running(0, 1.0)], 0).unwrap();
        }
        let kept = |files: &Files| [&gone, &idle, &busy].map(|name| log_bytes(files, name) > 0);
        assert!(!files.settle(0).unwrap(), "nothing was idle for long");
        assert!(!files.settle(LOOK_MS - 1).unwrap(), "it is not looked all the time");
        files.commit(&busy, [&running(0, 2.0)], 0).unwrap();
        let path = files.path(&idle);
        let reader = Reader::open(&path, &files.identity).unwrap();
        let snapshot = reader.snapshot().unwrap();
        reader.bars().unwrap();
        let settled =
            |files: &mut Files, now| (0..9).take_while(|_| files.settle(now).unwrap()).count();
        assert_eq!(settled(&mut files, LOOK_MS), 2);
        assert_eq!(kept(&files), [false, true, true], "somebody reads one of them");
        drop(snapshot);
        files.commit(&busy, [&running(0, 3.0)], 0).unwrap();
        assert_eq!(settled(&mut files, 2 * LOOK_MS), 1);
        assert_eq!(kept(&files), [false, false, true]);
        assert_eq!(settled(&mut files, 3 * LOOK_MS), 1, "the last one has nothing to do any more");
        assert_eq!((kept(&files), settled(&mut files, 4 * LOOK_MS)), ([false; 3], 0));
        files.get(&idle).unwrap().note_error("1m".parse().unwrap(), "it is down").unwrap();
        assert_eq!(kept(&files), [false, true, false]);
        assert_eq!([5, 6].map(|look| settled(&mut files, look * LOOK_MS)), [0, 1]);
        assert_eq!(kept(&files), [false; 3]);
    }

    #[test]
    fn a_purged_file_is_gone_with_its_log_and_can_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = small(&dir);
        let name = &names()[0];
        files.commit(name, [&running(0, 1.0)], 0).unwrap();
        files.purge(name).unwrap();
        files.purge(name).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        files.commit(name, [&running(0, 1.0)], 0).unwrap();
        assert!(files.exists(name));
    }
}

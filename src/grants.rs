//! The record of granted requests in a data folder, so that a restart or a second command does not
//! spend the budget twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::lock::refuse_link;
use crate::time::{MINUTE, Millis};
use crate::wire::Endpoint;

/// The record is begun anew when it is longer, bytes.
const LENGTH_MAX: u64 = 128 << 10;
/// More grants than all limits together allow in a minute.
const RECENT_MAX: usize = 2_500;
/// What is kept of a record that is begun anew fits: a line has 30 bytes at most.
const _: () = assert!(30 * RECENT_MAX < LENGTH_MAX as usize);

/// The record, open for adding to it. Several processes may add at once: each line is one write.
#[derive(Debug)]
pub struct Grants {
    file: File,
    /// The bytes in it, less what other processes add.
    length: u64,
}

impl Grants {
    /// Opens the record of a folder; gives also what was granted in the last minute, oldest first.
    pub fn open(data_dir: &Path, now: Millis) -> io::Result<(Grants, Vec<(Endpoint, Millis)>)> {
        fs::create_dir_all(data_dir)?;
        let path = data_dir.join(".requests");
        refuse_link(&path)?;
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut grants = Grants { length: file.metadata()?.len(), file };
        let recent = grants.recent(now)?;
        if grants.length > LENGTH_MAX {
            grants.begin_anew(&recent)?;
        }
        Ok((grants, recent))
    }

    /// Adds one grant. A daemon does so for months: what is older than a minute goes now and then.
    pub fn record(&mut self, endpoint: Endpoint, at: Millis) -> io::Result<()> {
        let line = line(endpoint, at);
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        if self.length > LENGTH_MAX {
            let recent = self.recent(at)?;
            self.begin_anew(&recent)?;
        }
        Ok(())
    }

    /// The grants of the last minute, which stand at the end, however long the record is.
    fn recent(&mut self, now: Millis) -> io::Result<Vec<(Endpoint, Millis)>> {
        let whole = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(whole.saturating_sub(LENGTH_MAX)))?;
        let mut text = Vec::new();
        Read::take(&self.file, LENGTH_MAX).read_to_end(&mut text)?;
        let mut recent: Vec<(Endpoint, Millis)> = String::from_utf8_lossy(&text)
            .lines()
            .rev()
            .filter_map(read_line)
            .filter(|&(_, at)| at > now - MINUTE)
            // One from the future is a clock's mistake, and must grow old, too.
            .map(|(endpoint, at)| (endpoint, at.min(now)))
            .take(RECENT_MAX)
            .collect();
        recent.sort_by_key(|&(_, at)| at);
        Ok(recent)
    }

    fn begin_anew(&mut self, recent: &[(Endpoint, Millis)]) -> io::Result<()> {
        let lines: String = recent.iter().map(|&(endpoint, at)| line(endpoint, at)).collect();
        self.file.set_len(0)?;
        self.file.write_all(lines.as_bytes())?;
        self.length = lines.len() as u64;
        Ok(())
    }
}

const ENDPOINTS: [Endpoint; 4] =
    [Endpoint::Candles, Endpoint::History, Endpoint::Time, Endpoint::Instruments];

fn line(endpoint: Endpoint, at: Millis) -> String {
    format!("{at} {endpoint}\n")
}

/// A line that makes no sense, such as the torn last one of a killed process, counts for nothing.
fn read_line(line: &str) -> Option<(Endpoint, Millis)> {
    let (at, name) = line.split_once(' ')?;
    let endpoint = ENDPOINTS.into_iter().find(|endpoint| endpoint.to_string() == name)?;
    Some((endpoint, at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::Budget;
    use crate::okx;
    use crate::time::TIME_MAX;
    use crate::wire::wild;

    const NOW: Millis = 1_714_521_600_000;

    #[test]
    fn the_last_minute_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut grants, before) = Grants::open(dir.path(), 0).unwrap();
        assert!(before.is_empty());
        grants.record(Endpoint::Time, 1_000).unwrap();
        grants.record(Endpoint::History, 50_000).unwrap();
        grants.file.write_all(b"600").unwrap();
        let (_, recent) = Grants::open(dir.path(), 61_000).unwrap();
        assert_eq!(recent, [(Endpoint::History, 50_000)]);
    }

    #[test]
    fn a_record_stays_short_while_it_is_in_use_and_keeps_the_last_minute() {
        let dir = tempfile::tempdir().unwrap();
        let (mut grants, _) = Grants::open(dir.path(), NOW).unwrap();
        let (count, step_ms) = (20_000, 60);
        for n in 0..count {
            grants.record(Endpoint::History, NOW + n * step_ms).unwrap();
        }
        let length = fs::metadata(dir.path().join(".requests")).unwrap().len();
        assert!(length <= LENGTH_MAX, "{length}");
        let (_, recent) = Grants::open(dir.path(), NOW + count * step_ms).unwrap();
        assert_eq!(recent.len() as i64, MINUTE / step_ms - 1);
    }

    #[test]
    fn of_a_record_that_has_become_long_the_end_counts() {
        let dir = tempfile::tempdir().unwrap();
        let old = line(Endpoint::History, NOW - 2 * MINUTE).repeat(20_000);
        let future = line(Endpoint::Time, TIME_MAX).repeat(20_000);
        let recent = line(Endpoint::Candles, NOW - 1_000);
        for (before, count) in [(old, 1), (future, RECENT_MAX)] {
            fs::write(dir.path().join(".requests"), before + &recent).unwrap();
            for _ in 0..2 {
                let (_, found) = Grants::open(dir.path(), NOW).unwrap();
                assert_eq!(found.len(), count);
                assert!(found.contains(&(Endpoint::Candles, NOW - 1_000)));
            }
            let length = fs::metadata(dir.path().join(".requests")).unwrap().len();
            assert!(length <= LENGTH_MAX, "{length}");
        }
    }

    proptest! {
        /// Whatever stands in the record, it delays a request by no more than a minute.
        #[test]
        fn no_record_silences_us(
            lines in prop::collection::vec(
                prop_oneof![
                    (wild::number(), 0usize..4).prop_map(|(at, n)| line(ENDPOINTS[n], at)),
                    (NOW - 70_000..NOW + 70_000, 0usize..4)
                        .prop_map(|(at, n)| line(ENDPOINTS[n], at)),
                    any::<String>(),
                    any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into()),
                ],
                0..30,
            ),
            now in prop_oneof![3 => Just(NOW), 1 => 0..=TIME_MAX],
        ) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(".requests"), lines.concat()).unwrap();
            let (_, recent) = Grants::open(dir.path(), now).unwrap();
            let mut budget = Budget::new(1, okx::rate);
            budget.restore(&recent, now);
            for endpoint in ENDPOINTS {
                let free = budget.free_at(endpoint, now).unwrap();
                prop_assert!((now..=now + MINUTE).contains(&free), "{endpoint}: {}", free - now);
            }
        }
    }
}

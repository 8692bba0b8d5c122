//! The record of granted requests in a data folder, so that neither a restart nor a second process
//! spends the budget twice.
//!
//! Whoever asks the exchange adds a line before each request, and looks now and then at what others
//! have added since: the budget of each then counts the requests of all. Two that look at the same
//! moment may grant one request too many between them; the tenth of every limit that is never used
//! has room for it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
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
    /// Up to where it was read, bytes.
    seen: u64,
    /// When that was, local time.
    looked_at: Millis,
    /// Where the lines begin that were added here since, bytes.
    own: VecDeque<u64>,
    /// What others were granted and nobody has asked for yet.
    others: Vec<(Endpoint, Millis)>,
}

impl Grants {
    /// Opens the record of a folder; gives also what was granted in the last minute, oldest first.
    pub fn open(data_dir: &Path, now: Millis) -> io::Result<(Grants, Vec<(Endpoint, Millis)>)> {
        let path = data_dir.join(".requests");
        let opened = fs::create_dir_all(data_dir).and_then(|()| {
            refuse_link(&path)?;
            OpenOptions::new().create(true).append(true).read(true).open(&path)
        });
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = opened.map_err(named)?;
        let (own, others) = (VecDeque::new(), Vec::new());
        let mut grants = Grants { file, seen: 0, looked_at: now, own, others };
        grants.seen = grants.length()?;
        let recent = grants.recent(now)?;
        if grants.seen > LENGTH_MAX {
            grants.begin_anew(&recent)?;
        }
        Ok((grants, recent))
    }

    /// Adds one grant. A daemon does so for months: what is older than a minute goes now and then.
    pub fn record(&mut self, endpoint: Endpoint, at: Millis) -> io::Result<()> {
        let line = line(endpoint, at);
        self.file.write_all(line.as_bytes())?;
        // Whatever others add, the position is behind our own line.
        let end = self.file.stream_position()?;
        self.own.push_back(end - line.len() as u64);
        if end > LENGTH_MAX {
            self.look(at)?;
            let recent = self.recent(at)?;
            self.begin_anew(&recent)?;
        }
        Ok(())
    }

    /// What others were granted since the last call. Their clocks are not believed beyond that.
    pub fn others(&mut self, now: Millis) -> io::Result<Vec<(Endpoint, Millis)>> {
        self.look(now)?;
        Ok(std::mem::take(&mut self.others))
    }

    /// Reads on from where it was read last.
    fn look(&mut self, now: Millis) -> io::Result<()> {
        let since = std::mem::replace(&mut self.looked_at, now);
        if self.length()? < self.seen {
            // Somebody has begun it anew: what is older was heard of before. One of ours since then
            // counts twice, which is on the safe side.
            self.own.clear();
            self.seen = self.length()?;
            let recent = self.recent(now)?;
            self.others.extend(recent.into_iter().filter(|&(_, at)| at > since));
        }
        let bytes = self.read_from(self.seen)?;
        // A line that is still being written is read the next time.
        for piece in bytes.split_inclusive(|&byte| byte == b'\n').filter(|it| it.ends_with(b"\n")) {
            self.seen += piece.len() as u64;
            // A torn line of a killed process takes the next one with it, which may be ours.
            let ours = self.own.partition_point(|&own| own < self.seen);
            if self.own.drain(..ours).next().is_none() {
                let grant = read_line(String::from_utf8_lossy(piece).trim_end());
                let grant = grant.map(|(endpoint, at)| (endpoint, at.clamp(since.min(now), now)));
                self.others.extend(grant.filter(|_| self.others.len() < RECENT_MAX));
            }
        }
        Ok(())
    }

    /// The grants of the last minute, which stand at the end, however long the record is.
    fn recent(&self, now: Millis) -> io::Result<Vec<(Endpoint, Millis)>> {
        let bytes = self.read_from(self.length()?.saturating_sub(LENGTH_MAX))?;
        let mut recent: Vec<(Endpoint, Millis)> = String::from_utf8_lossy(&bytes)
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
        self.seen = self.file.stream_position()?;
        self.own.clear();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// What stands from a place on, twice as much at the most as may stand there. Meanwhile others
    /// may add to it, and may cut it.
    fn read_from(&self, mut at: u64) -> io::Result<Vec<u8>> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        while bytes.len() < 2 * LENGTH_MAX as usize {
            let read = self.file.read_at(&mut chunk, at)?;
            if read == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..read]);
            at += read as u64;
        }
        Ok(bytes)
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

    #[test]
    fn what_others_are_granted_is_heard_of_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, _) = Grants::open(dir.path(), 1_000).unwrap();
        let (mut other, _) = Grants::open(dir.path(), 1_000).unwrap();
        one.record(Endpoint::Time, 1_010).unwrap();
        other.record(Endpoint::History, 1_020).unwrap();
        one.record(Endpoint::Candles, 1_030).unwrap();
        assert_eq!(one.others(1_100).unwrap(), [(Endpoint::History, 1_020)]);
        let heard = [(Endpoint::Time, 1_010), (Endpoint::Candles, 1_030)];
        assert_eq!(other.others(1_100).unwrap(), heard);
        assert!(one.others(1_200).unwrap().is_empty() && other.others(1_200).unwrap().is_empty());
        // The clock of a third is wrong, and it is killed within its last line.
        let (mut third, _) = Grants::open(dir.path(), 0).unwrap();
        third.record(Endpoint::History, 99_000).unwrap();
        third.record(Endpoint::History, 5).unwrap();
        third.file.write_all(b"60").unwrap();
        let heard = [(Endpoint::History, 1_300), (Endpoint::History, 1_200)];
        assert_eq!(one.others(1_300).unwrap(), heard);
        one.record(Endpoint::Time, 1_310).unwrap();
        other.record(Endpoint::Time, 1_320).unwrap();
        let torn = one.others(1_400).unwrap();
        assert_eq!(torn, [(Endpoint::Time, 1_320)], "the torn line takes ours with it");
    }

    #[test]
    fn a_record_that_is_begun_anew_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, _) = Grants::open(dir.path(), NOW).unwrap();
        let (mut other, _) = Grants::open(dir.path(), NOW).unwrap();
        let (mut heard, count, step_ms) = (0, 20_000, 60);
        for n in 0..count {
            let now = NOW + n * step_ms;
            one.record(Endpoint::History, now).unwrap();
            if n % 100 == 99 {
                other.record(Endpoint::Time, now).unwrap();
                heard += other.others(now).unwrap().len() as i64;
                assert_eq!(one.others(now).unwrap(), [(Endpoint::Time, now)]);
            }
        }
        assert!((count..count + 10).contains(&heard), "{heard}");
        let length = fs::metadata(dir.path().join(".requests")).unwrap().len();
        assert!(length <= LENGTH_MAX, "{length}");
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

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

/// The record is begun anew when it is longer: the busiest minute has less.
const LENGTH_MAX: u64 = 64 << 10;

/// The record, open for adding to it. Several processes may add at once: each line is one write.
#[derive(Debug)]
pub struct Grants {
    file: File,
    /// Up to where it was read, bytes.
    seen: u64,
    /// Where the lines begin that were added here since, bytes.
    own: VecDeque<u64>,
    /// When it was read last, local time.
    looked_at: Millis,
}

impl Grants {
    /// Opens the record of a folder; gives also what was granted in the last minute, oldest first.
    pub fn open(data_dir: &Path, now: Millis) -> io::Result<(Grants, Vec<(Endpoint, Millis)>)> {
        fs::create_dir_all(data_dir)?;
        let path = data_dir.join(".requests");
        refuse_link(&path)?;
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut grants = Grants { file, seen: 0, own: VecDeque::new(), looked_at: now };
        let end = grants.file.metadata()?.len();
        let recent = grants.recent(end, now)?;
        grants.seen = end;
        grants.renew(end, now)?;
        Ok((grants, recent))
    }

    /// Adds one grant.
    pub fn record(&mut self, endpoint: Endpoint, at: Millis) -> io::Result<()> {
        let line = line(endpoint, at);
        self.file.write_all(line.as_bytes())?;
        // Whatever others add, the position is behind our own line.
        self.own.push_back(self.file.stream_position()? - line.len() as u64);
        Ok(())
    }

    /// What others were granted since the last call. Their clocks are not believed beyond that.
    pub fn others(&mut self, now: Millis) -> io::Result<Vec<(Endpoint, Millis)>> {
        let end = self.file.metadata()?.len();
        let since = std::mem::replace(&mut self.looked_at, now);
        if end < self.seen {
            // Somebody has begun it anew: what was there before was heard of before.
            (self.seen, self.own) = (0, VecDeque::new());
            let recent = self.recent(end, now)?;
            self.seen = end;
            return Ok(recent.into_iter().filter(|&(_, at)| at > since).collect());
        }
        let mut others = Vec::new();
        for (start, text) in self.lines(self.seen, end)? {
            self.seen = start + text.len() as u64;
            // A torn line of a killed process takes the next one with it, which may be ours.
            let ours = self.own.partition_point(|&own| own < self.seen);
            if self.own.drain(..ours).next().is_some() {
                continue;
            }
            if let Some((endpoint, at)) = read_line(text.trim_end()) {
                others.push((endpoint, at.clamp(since.min(now), now)));
            }
        }
        others.sort_by_key(|&(_, at)| at);
        self.renew(end, now)?;
        Ok(others)
    }

    /// All that was granted in the last minute, oldest first.
    fn recent(&self, end: u64, now: Millis) -> io::Result<Vec<(Endpoint, Millis)>> {
        let lines = self.lines(end.saturating_sub(2 * LENGTH_MAX), end)?;
        let read = lines.iter().filter_map(|(_, text)| read_line(text.trim_end()));
        let read = read.filter(|&(_, at)| at > now - MINUTE);
        // One from the future is a clock's mistake, and must grow old, too.
        let mut recent: Vec<_> = read.map(|(endpoint, at)| (endpoint, at.min(now))).collect();
        recent.sort_by_key(|&(_, at)| at);
        Ok(recent)
    }

    /// Begins the record anew with its last minute, if it has become long.
    fn renew(&mut self, end: u64, now: Millis) -> io::Result<()> {
        if end <= LENGTH_MAX {
            return Ok(());
        }
        let recent = self.recent(end, now)?;
        let lines: String = recent.iter().map(|&(endpoint, at)| line(endpoint, at)).collect();
        self.file.set_len(0)?;
        self.file.write_all(lines.as_bytes())?;
        (self.seen, self.own) = (self.file.stream_position()?, VecDeque::new());
        Ok(())
    }

    /// The whole lines between two places, each with where it begins and with its end.
    fn lines(&self, start: u64, end: u64) -> io::Result<Vec<(u64, String)>> {
        let start = start.max(end.saturating_sub(2 * LENGTH_MAX));
        let mut bytes = vec![0; (end - start) as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        let mut at = start;
        let pieces = bytes.split_inclusive(|&byte| byte == b'\n');
        let placed = pieces.map(|piece| {
            let end = at + piece.len() as u64;
            (std::mem::replace(&mut at, end), piece)
        });
        let whole = placed.filter(|(_, piece)| piece.ends_with(b"\n"));
        Ok(whole.map(|(at, piece)| (at, String::from_utf8_lossy(piece).into_owned())).collect())
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
    use super::*;

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
        let heard = [(Endpoint::History, 1_200), (Endpoint::History, 1_300)];
        assert_eq!(one.others(1_300).unwrap(), heard);
        one.record(Endpoint::Time, 1_310).unwrap();
        other.record(Endpoint::Time, 1_320).unwrap();
        let torn = one.others(1_400).unwrap();
        assert_eq!(torn, [(Endpoint::Time, 1_320)], "the torn line takes ours with it");
    }

    #[test]
    fn a_record_that_others_begin_anew_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, _) = Grants::open(dir.path(), 0).unwrap();
        for at in 0..8_000 {
            one.record(Endpoint::History, at).unwrap();
        }
        let (mut other, recent) = Grants::open(dir.path(), 67_990).unwrap();
        assert_eq!(recent.len(), 9);
        other.record(Endpoint::Time, 68_000).unwrap();
        one.seen = 100_000;
        one.looked_at = 67_995;
        assert_eq!(one.others(68_100).unwrap(), [(Endpoint::Time, 68_000)]);
        one.record(Endpoint::Candles, 68_110).unwrap();
        assert_eq!(other.others(68_200).unwrap(), [(Endpoint::Candles, 68_110)]);
        assert!(one.others(68_200).unwrap().is_empty());
    }

    #[test]
    fn the_record_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (mut grants, _) = Grants::open(dir.path(), 0).unwrap();
        for at in 0..8_000 {
            grants.record(Endpoint::History, at).unwrap();
        }
        assert!(grants.others(67_990).unwrap().is_empty());
        assert!(fs::metadata(dir.path().join(".requests")).unwrap().len() < 1_000);
        assert_eq!(Grants::open(dir.path(), 67_990).unwrap().1.len(), 9);
    }
}

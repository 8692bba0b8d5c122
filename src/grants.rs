//! The record of granted requests in a data folder, so that a restart or a second command does not
//! spend the budget twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::time::{MINUTE, Millis};
use crate::wire::Endpoint;

/// The record is begun anew when it is longer: a minute's worth has a few KiB.
const LENGTH_MAX: u64 = 64 << 10;

/// The record, open for adding to it. Several processes may add at once: each line is one write.
#[derive(Debug)]
pub struct Grants {
    file: File,
}

impl Grants {
    /// Opens the record of a folder; gives also what was granted in the last minute, oldest first.
    pub fn open(data_dir: &Path, now: Millis) -> io::Result<(Grants, Vec<(Endpoint, Millis)>)> {
        fs::create_dir_all(data_dir)?;
        let path = data_dir.join(".requests");
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut text = Vec::new();
        Read::take(&file, 2 * LENGTH_MAX).read_to_end(&mut text)?;
        let mut recent: Vec<(Endpoint, Millis)> = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(read_line)
            .filter(|&(_, at)| at > now - MINUTE)
            .collect();
        recent.sort_by_key(|&(_, at)| at);
        if text.len() as u64 > LENGTH_MAX {
            file.set_len(0)?;
            let lines: String = recent.iter().map(|&(endpoint, at)| line(endpoint, at)).collect();
            file.write_all(lines.as_bytes())?;
        }
        Ok((Grants { file }, recent))
    }

    /// Adds one grant.
    pub fn record(&mut self, endpoint: Endpoint, at: Millis) -> io::Result<()> {
        self.file.write_all(line(endpoint, at).as_bytes())
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
    fn the_record_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (mut grants, _) = Grants::open(dir.path(), 0).unwrap();
        for at in 0..8_000 {
            grants.record(Endpoint::History, at).unwrap();
        }
        Grants::open(dir.path(), 67_990).unwrap();
        assert!(fs::metadata(dir.path().join(".requests")).unwrap().len() < 1_000);
        assert_eq!(Grants::open(dir.path(), 67_990).unwrap().1.len(), 9);
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

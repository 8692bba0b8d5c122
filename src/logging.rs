//! Log lines: to the screen, and to a file where one is configured.
//!
//! The level comes from the configuration and from `-v` alone. `RUST_LOG` is not honoured: it
//! would be a second place to look, and could call up lines that show credentials.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use env_logger::{Builder, Target};
use log::{LevelFilter, Record};

use crate::spelling::printable;
use crate::time::{Millis, SECOND, format_stamp, wall_now};

/// Crates below us that log. Only their warnings are taken: their finer lines show whole requests,
/// and so might show the headers that carry credentials.
const FOREIGN: [&str; 4] = ["ureq", "ureq_proto", "rustls", "tungstenite"];

/// A log file that cannot be opened.
#[derive(Debug)]
pub struct LogError {
    file: PathBuf,
    cause: io::Error,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log file {} cannot be opened: {}", self.file.display(), self.cause)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Begins to log lines of `level` and above to `screen`, which is stderr or what keeps a progress
/// bar below them, and to the end of `file`, whose folder is made if it is not there.
///
/// A second call in one process changes nothing.
///
/// # Errors
///
/// The file cannot be opened.
pub fn start(
    level: LevelFilter,
    screen: Box<dyn Write + Send>,
    file: Option<&Path>,
) -> Result<(), LogError> {
    let file = file.map(open).transpose()?;
    let mut builder = Builder::new();
    builder.filter_level(level);
    for name in FOREIGN {
        builder.filter_module(name, level.min(LevelFilter::Warn));
    }
    builder.format(|line, record| writeln!(line, "{}", Line { at: wall_now(), record }));
    builder.target(Target::Pipe(Box::new(Both { screen, file })));
    // It fails only if a logger is set already, which then goes on.
    let _ = builder.try_init();
    Ok(())
}

/// The level to log at: the configured one, and with `-v` at least DEBUG.
pub fn level(configured: LevelFilter, verbose: bool) -> LevelFilter {
    if verbose { configured.max(LevelFilter::Debug) } else { configured }
}

/// How long the same complaint is not repeated.
const REPEAT_MS: Millis = 30 * SECOND;
/// Different complaints that are remembered; beyond them all are forgotten, and told anew.
const COMPLAINTS_MAX: usize = 64;

/// Keeps a log readable while something fails again and again: the first time is told, then every
/// half minute how often it was.
///
/// ```
/// use okx_local_store::logging::Repeats;
///
/// let mut repeats = Repeats::default();
/// assert_eq!(repeats.told("it is down", 0).as_deref(), Some("it is down"));
/// assert_eq!(repeats.told("it is down", 1_000), None);
/// assert_eq!(repeats.told("it is down", 30_000).as_deref(), Some("it is down (2 more times)"));
/// ```
#[derive(Debug, Default)]
pub struct Repeats {
    told: BTreeMap<String, (Millis, u32)>,
}

impl Repeats {
    /// What to log for a complaint that is heard now, if anything.
    pub fn told(&mut self, complaint: &str, now: Millis) -> Option<String> {
        if self.told.len() >= COMPLAINTS_MAX {
            self.told.clear();
        }
        let Some((at, unheard)) = self.told.get_mut(complaint) else {
            self.told.insert(complaint.to_owned(), (now, 0));
            return Some(complaint.to_owned());
        };
        *unheard += 1;
        if now < *at + REPEAT_MS {
            return None;
        }
        let times = std::mem::take(unheard);
        *at = now;
        Some(format!("{complaint} ({times} more times)"))
    }
}

fn open(file: &Path) -> Result<File, LogError> {
    let folder = file.parent().map_or(Ok(()), fs::create_dir_all);
    let opened = folder.and_then(|()| OpenOptions::new().append(true).create(true).open(file));
    opened.map_err(|cause| LogError { file: file.to_owned(), cause })
}

/// One line: `2026-11-20T10:00:00.123Z INFO  target message`.
struct Line<'a> {
    at: Millis,
    record: &'a Record<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { at, record } = self;
        write!(f, "{} {:<5} {} ", format_stamp(*at), record.level(), record.target())?;
        // A peer's text may be in the message.
        f.write_str(&printable(&record.args().to_string()))
    }
}

/// Writes each line to both. A screen that is gone, as a closed terminal is, does not keep a line
/// from the file, nor a full disk from the screen.
struct Both {
    screen: Box<dyn Write + Send>,
    file: Option<File>,
}

impl Write for Both {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let seen = self.screen.write_all(line);
        let kept = self.file.as_mut().map_or(Ok(()), |file| file.write_all(line));
        seen.and(kept).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.flush()
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn line(level: Level, target: &str, message: &str) -> String {
        let args = format_args!("{message}");
        let record = Record::builder().level(level).target(target).args(args).build();
        Line { at: 1_795_168_800_123, record: &record }.to_string()
    }

    #[test]
    fn lines_stand_in_columns() {
        assert_eq!(
            line(Level::Info, "sync", "BTC-USDT 1m: 300 rows"),
            "2026-11-20T10:00:00.123Z INFO  sync BTC-USDT 1m: 300 rows"
        );
        assert!(line(Level::Error, "store", "x").contains("Z ERROR store x"));
    }

    #[test]
    fn a_message_is_one_line_and_mute_to_the_terminal() {
        let text = line(Level::Warn, "http", "<html>\n2026 ERROR forged\x1b[2J é");
        assert!(text.ends_with("<html>\\n2026 ERROR forged\\u{1b}[2J é"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn verbose_raises_and_never_lowers() {
        assert_eq!(level(LevelFilter::Info, false), LevelFilter::Info);
        assert_eq!(level(LevelFilter::Info, true), LevelFilter::Debug);
        assert_eq!(level(LevelFilter::Trace, true), LevelFilter::Trace);
    }

    #[test]
    fn a_lost_screen_does_not_keep_lines_from_the_file() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/okx-store.log");
        for _ in 0..2 {
            let mut both = Both { screen: Box::new(Gone), file: Some(open(&path).unwrap()) };
            assert!(both.write_all(b"line\n").is_err());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n", "it is appended to");
        let blocked = open(&path.join("below/a/file.log")).unwrap_err().to_string();
        assert!(blocked.contains("file.log cannot be opened: "), "{blocked}");
    }
}

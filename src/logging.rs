//! Log lines: to the screen, and to files where they are configured.
//!
//! The level comes from the configuration and from `-v` alone. `RUST_LOG` is not honoured: it
//! would be a second place to look, and could call up lines that show credentials.
//!
//! **Invariant:** a screen or a disk that takes no line costs that line, and nothing else.

mod file;
mod screen;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use env_logger::{Builder, Logger};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::logging::file::LogFile;
use crate::logging::screen::Screen;
use crate::spelling::printable;
use crate::time::{Millis, SECOND, format_stamp, wall_now};

/// Crates below us that log. Only their warnings are taken: their finer lines show whole requests,
/// and so might show the headers that carry credentials.
const FOREIGN: [&str; 4] = ["ureq", "ureq_proto", "rustls", "tungstenite"];
/// The targets of lines about the stream, and the file that gets them besides.
const STREAM_TARGETS: [&str; 2] = ["stream", "mode"];
const STREAM_FILE: &str = "websocket.log";

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

/// What is logged, and where to.
pub struct Options {
    /// Lines of this level and above.
    pub level: LevelFilter,
    /// stderr, or what keeps a progress bar below the lines.
    pub screen: Box<dyn Write + Send>,
    /// A file, if there is to be one. Its folder is made if it is not there; it is rotated when it
    /// is full.
    pub file: Option<PathBuf>,
    /// Whether this is a daemon: it waits for no screen, and what is about the stream goes to
    /// `websocket.log` beside the file, too.
    pub is_daemon: bool,
}

/// Begins to log. A second call in one process changes nothing.
///
/// # Errors
///
/// A file cannot be opened, or a thread not be started.
pub fn start(options: Options) -> Result<(), LogError> {
    let lines = Lines::new(options)?;
    let level = lines.filter.filter();
    // It fails only if a logger is set already, which then goes on.
    if log::set_boxed_logger(Box::new(lines)).is_ok() {
        log::set_max_level(level);
    }
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

/// The logger.
struct Lines {
    /// Knows which lines are wanted, and writes none.
    filter: Logger,
    sinks: Mutex<Sinks>,
}

/// Where lines go. A screen that is gone, as a closed terminal is, does not keep a line from the
/// files, nor a full disk from the screen.
struct Sinks {
    screen: Box<dyn Write + Send>,
    file: Option<LogFile>,
    stream: Option<LogFile>,
}

impl Lines {
    fn new(options: Options) -> Result<Lines, LogError> {
        let Options { level, screen, file, is_daemon } = options;
        let open = |file: &Path| {
            LogFile::open(file).map_err(|cause| LogError { file: file.to_owned(), cause })
        };
        let stream = file.as_ref().map(|file| file.with_file_name(STREAM_FILE));
        let stream = stream.filter(|stream| is_daemon && file.as_ref() != Some(stream));
        let screen: Box<dyn Write + Send> = match is_daemon {
            true => {
                let named = |cause| LogError { file: "stderr".into(), cause };
                Box::new(Screen::start(screen).map_err(named)?)
            }
            false => screen,
        };
        let sinks = Sinks {
            screen,
            file: file.as_deref().map(open).transpose()?,
            stream: stream.as_deref().map(open).transpose()?,
        };
        let mut filter = Builder::new();
        filter.filter_level(level);
        for name in FOREIGN {
            filter.filter_module(name, level.min(LevelFilter::Warn));
        }
        Ok(Lines { filter: filter.build(), sinks: Mutex::new(sinks) })
    }
}

impl Lines {
    /// The first line of a file that takes the place of one that was moved or deleted.
    fn followed() -> String {
        let args = format_args!("a new file: the one before was moved away or deleted");
        let record = Record::builder().level(Level::Info).target("log").args(args).build();
        format!("{}\n", Line { at: wall_now(), record: &record })
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let line = format!("{}\n", Line { at: wall_now(), record });
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sinks.screen.write_all(line.as_bytes());
        let Sinks { file, stream, .. } = &mut *sinks;
        let stream = stream.as_mut().filter(|_| STREAM_TARGETS.contains(&record.target()));
        for file in file.iter_mut().chain(stream) {
            if file.follow() {
                let _ = file.write_line(Lines::followed().as_bytes());
            }
            let _ = file.write_line(line.as_bytes());
        }
    }

    fn flush(&self) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sinks.screen.flush();
    }
}

#[cfg(test)]
mod tests {
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

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn lines(file: &Path, is_daemon: bool) -> Result<Lines, LogError> {
        let (level, screen) = (LevelFilter::Info, Box::new(Gone));
        Lines::new(Options { level, screen, file: Some(file.to_owned()), is_daemon })
    }

    fn log(lines: &Lines, level: Level, target: &str) {
        let args = format_args!("line of {target}");
        let record = Record::builder().level(level).target(target).args(args).build();
        lines.log(&record);
    }

    #[test]
    fn a_lost_screen_does_not_keep_lines_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/okx-store.log");
        for is_daemon in [false, true] {
            let lines = lines(&path, is_daemon).unwrap();
            log(&lines, Level::Info, "sync");
            lines.flush();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2, "it is added to");
        let blocked = lines(&path.join("below/a/file.log"), false).err().unwrap().to_string();
        assert!(blocked.contains("file.log cannot be opened: "), "{blocked}");
    }

    #[test]
    fn a_daemon_tells_of_the_stream_in_a_file_besides() {
        let folder = tempfile::tempdir().unwrap();
        let (path, stream) =
            (folder.path().join("okx-store.log"), folder.path().join("websocket.log"));
        let targets = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
        };
        log(&lines(&path, false).unwrap(), Level::Info, "stream");
        assert!(!stream.exists(), "a command has one file at most");
        let daemon = lines(&path, true).unwrap();
        for target in ["stream", "sync", "mode", "tungstenite::protocol"] {
            log(&daemon, Level::Info, target);
        }
        log(&daemon, Level::Debug, "stream");
        assert_eq!(targets(&path), ["stream", "stream", "sync", "mode"]);
        assert_eq!(targets(&stream), ["stream", "mode"]);
        // A file of that name is one file.
        log(&lines(&stream, true).unwrap(), Level::Info, "stream");
        assert_eq!(targets(&stream), ["stream", "mode", "stream"]);
    }

    #[test]
    fn what_foreign_crates_say_in_detail_is_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let (level, screen) = (LevelFilter::Trace, Box::new(Gone));
        let file = Some(path.clone());
        let lines = Lines::new(Options { level, screen, file, is_daemon: false }).unwrap();
        for target in FOREIGN {
            log(&lines, Level::Info, target);
            log(&lines, Level::Trace, &format!("{target}::client"));
        }
        log(&lines, Level::Warn, "rustls::client");
        log(&lines, Level::Trace, "sync");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}

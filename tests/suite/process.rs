//! The real program as a process: in a folder of its own, with a configuration that leads to the
//! fixture exchange, and with nothing of the machine's environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use okx_local_store::instrument::Series;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::exchange::Exchange;
use crate::mirror::{assert_equals, series};

/// A moment in 2024, half a minute into a bar of any length.
pub const T0: i64 = 1_714_521_630_000;

/// The longest that a test waits for a process: none takes half of it, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Files by their paths.
pub type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

/// A folder to run the program in.
pub struct Home {
    dir: TempDir,
    keys: BTreeMap<&'static str, String>,
    instruments: BTreeMap<&'static str, String>,
    variables: BTreeMap<&'static str, String>,
    /// The series of all instruments, each with its days.
    pub wanted: Vec<(Series, u32)>,
}

impl Home {
    /// A folder whose configuration names this exchange, with no limit but the exchange's own.
    pub fn of(exchange: &Exchange) -> Home {
        let home = Home {
            dir: tempfile::tempdir().unwrap(),
            keys: BTreeMap::new(),
            instruments: BTreeMap::new(),
            variables: BTreeMap::new(),
            wanted: Vec::new(),
        };
        home.key("rest_url", &format!("{:?}", exchange.url())).key("rate_limit_per_minute", "0")
    }

    /// Sets a key to a value in JSON.
    pub fn key(mut self, key: &'static str, value: &str) -> Home {
        self.keys.insert(key, value.to_owned());
        self.write_config();
        self
    }

    /// Adds an instrument with its bars and days.
    pub fn instrument(mut self, symbol: &'static str, bars: &str, days: u32) -> Home {
        let names: Vec<&str> = bars.split(' ').collect();
        self.wanted.extend(names.iter().map(|bar| (series(symbol, bar), days)));
        let entry = format!("\"timeframes\": {names:?}, \"max_history_days\": {days}");
        self.instruments.insert(symbol, entry);
        self.write_config();
        self
    }

    /// Sets a variable of the environment.
    pub fn variable(mut self, name: &'static str, value: &str) -> Home {
        self.variables.insert(name, value.to_owned());
        self
    }

    /// Sets a key of a configuration that is in use, or changes it.
    pub fn set(&mut self, key: &'static str, value: &str) {
        self.keys.insert(key, value.to_owned());
        self.write_config();
    }

    /// Writes the entry of an instrument, its name apart, into a configuration that is in use.
    pub fn list(&mut self, symbol: &'static str, entry: &str) {
        self.instruments.insert(symbol, entry.to_owned());
        self.write_config();
    }

    /// Takes an instrument out of it.
    pub fn unlist(&mut self, symbol: &str) {
        self.instruments.remove(symbol);
        self.write_config();
    }

    fn write_config(&self) {
        let mut text = String::from("// A remark that every edit keeps.\n{\n");
        for (key, value) in &self.keys {
            text += &format!("  {key:?}: {value},\n");
        }
        text += "  \"instruments\": [\n";
        for (symbol, rest) in &self.instruments {
            text += &format!("    {{ \"symbol\": {symbol:?}, {rest} }}, // {symbol}\n");
        }
        fs::write(self.path("config.json"), text + "  ]\n}\n").unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder of the database files.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The file of an instrument, as anybody may open it.
    pub fn open(&self, instrument: &str) -> Connection {
        Connection::open(self.data_dir().join(format!("{instrument}.db"))).unwrap()
    }

    /// The number of rows in a table of candles.
    pub fn count(&self, instrument: &str, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table} WHERE confirmed = 1");
        self.open(instrument).query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// Fails unless every configured series is the exchange's equal as of [`T0`].
    pub fn assert_equals(&self, exchange: &Exchange) {
        for (series, days) in &self.wanted {
            assert_equals(&self.data_dir(), exchange, series, *days, T0);
        }
    }

    /// Every file below the folder with its bytes. What SQLite puts beside a database for those
    /// who read it is left out: it says nothing.
    pub fn snapshot(&self) -> Snapshot {
        let mut files = BTreeMap::new();
        read_folder(self.dir.path(), &mut files);
        files.retain(|path, bytes| {
            let name = path.to_string_lossy();
            !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty())
        });
        files
    }

    /// Fails if any file is another than before.
    #[track_caller]
    pub fn assert_unchanged(&self, before: &Snapshot, what: &str) {
        let now = self.snapshot();
        let paths = before.keys().chain(now.keys());
        let changed: BTreeSet<_> =
            paths.filter(|&path| before.get(path) != now.get(path)).collect();
        assert!(changed.is_empty(), "{what} has changed {changed:?}");
    }

    /// The program with these words, not yet started.
    pub fn command(&self, words: &str) -> Command {
        self.wrapped(Command::new(env!("CARGO_BIN_EXE_okx-store")), words)
    }

    /// The program as a shell starts it: `script` ends in `exec "$0" "$@"`.
    pub fn shell(&self, script: &str, words: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_okx-store")]);
        self.wrapped(shell, words)
    }

    fn wrapped(&self, mut command: Command, words: &str) -> Command {
        command.args(words.split_whitespace()).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.dir.path()).envs(&self.variables);
        command
    }

    /// Starts the program with these words.
    pub fn start(&self, words: &str) -> Running {
        Running::new(self.command(words), words)
    }

    /// Runs the program to its end.
    pub fn run(&self, words: &str) -> Finished {
        self.start(words).wait()
    }
}

fn read_folder(folder: &Path, files: &mut Snapshot) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// What a process has written to one of its outputs so far, and whether that was all.
#[derive(Clone, Default)]
struct Heard(Arc<(Mutex<(String, bool)>, Condvar)>);

impl Heard {
    /// Listens on a thread of its own, so that no process waits for us.
    fn listen(mut pipe: impl Read + Send + 'static) -> Heard {
        let heard = Heard::default();
        let told = heard.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                told.tell(&String::from_utf8_lossy(&chunk[..count]), false);
            }
            told.tell("", true);
        });
        heard
    }

    fn tell(&self, text: &str, ended: bool) {
        let (said, news) = &*self.0;
        let mut said = said.lock().unwrap();
        said.0 += text;
        said.1 = ended;
        news.notify_all();
    }

    /// The text, once `enough` of it has come, see [`Heard::comes`].
    fn until(
        &self,
        deadline: Instant,
        enough: impl Fn(&str, bool) -> bool,
    ) -> Result<String, String> {
        let has_come = self.comes(deadline, enough);
        let text = self.0.0.lock().unwrap().0.clone();
        if has_come { Ok(text) } else { Err(text) }
    }

    /// Whether `enough` comes in time: its second argument tells whether the text has ended.
    fn comes(&self, deadline: Instant, enough: impl Fn(&str, bool) -> bool) -> bool {
        let (said, news) = &*self.0;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited =
            news.wait_timeout_while(said.lock().unwrap(), left, |said| !enough(&said.0, said.1));
        !waited.unwrap().1.timed_out()
    }
}

/// A process under way. Dropped, it is killed.
pub struct Running {
    child: Child,
    words: String,
    out: Heard,
    err: Heard,
}

impl Running {
    /// Starts a command; `words` are its name in messages.
    pub fn new(mut command: Command, words: &str) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Heard::listen(child.stdout.take().unwrap());
        let err = Heard::listen(child.stderr.take().unwrap());
        Running { child, words: words.to_owned(), out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until this text stands on stderr.
    pub fn wait_for(&self, text: &str) {
        let found =
            self.err.until(Instant::now() + DEADLINE, |said, ended| said.contains(text) || ended);
        let words = &self.words;
        let said = found.unwrap_or_else(|said| panic!("{words}: waited for {text:?} in:\n{said}"));
        assert!(said.contains(text), "{words}: ended without {text:?}:\n{said}");
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.pid());
        let status = Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
        assert!(status.success(), "{}: no signal could be sent", self.words);
    }

    /// Kills the process as nothing can prevent, and waits for its end.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Whether it has ended; if not, lets a moment pass in which it may.
    pub fn ends_in(&mut self, moment: Duration) -> bool {
        self.err.comes(Instant::now() + moment, |_, ended| ended);
        self.has_ended()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.err.until(Instant::now(), |_, _| true).unwrap_or_default()
    }

    /// Waits for the end of the process.
    pub fn wait(self) -> Finished {
        self.wait_within(DEADLINE)
    }

    /// Waits for the end of the process, which has to come so soon.
    pub fn wait_within(mut self, within: Duration) -> Finished {
        let deadline = Instant::now() + within;
        let end = |heard: &Heard| {
            heard.until(deadline, |_, ended| ended).unwrap_or_else(|said| {
                let words = &self.words;
                panic!("{words}: waited {within:?} in vain for its end; it said:\n{said}")
            })
        };
        let (out, err) = (end(&self.out), end(&self.err));
        // Both outputs are closed, so this comes at once.
        let code = self.child.wait().unwrap().code();
        Finished { words: self.words.clone(), code, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    words: String,
    /// The exit code; none of a killed process.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Fails unless this is the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Finished {
        let Finished { words, out, err, .. } = &self;
        assert_eq!(self.code, Some(code), "{words}\n--- stdout\n{out}\n--- stderr\n{err}");
        self
    }

    /// The last line on stderr, which must be about this.
    #[track_caller]
    pub fn last_word(&self, about: &str) -> &str {
        let line = self.err.lines().last().unwrap_or_default();
        assert!(line.contains(about), "{}: no {about:?} at the end of:\n{}", self.words, self.err);
        line
    }

    /// The cells of the row of stdout's table that begins with this.
    #[track_caller]
    pub fn row(&self, begins: &str) -> Vec<&str> {
        let row = self.out.lines().find_map(|line| line.strip_prefix(begins));
        let row = row.unwrap_or_else(|| panic!("{}: no {begins:?} in:\n{}", self.words, self.out));
        row.split_whitespace().collect()
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.out))
    }
}

//! The README, followed by a newcomer: its blocks are run in their order, in one home, against the
//! fixture exchange. A block that nobody knows how to run fails the test.
//!
//! What a block shows is compared by its shape, see [`shape`]: figures and times are another on
//! each run. What would change the machine, or is another test's work, is a stand-in in `PATH`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use okx_local_store::snapshot::Snapshot;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::exchange::{Exchange, Listed};
use crate::process::{Finished, Running};

const README: &str = include_str!("../../README.md");
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The longest until a command shows what the README shows: none takes a third of it.
const DEADLINE: Duration = Duration::from_secs(90);
/// Names a python3 that has pandas and DuckDB; without it the blocks of Python are left out. `make
/// snippets` sets it.
const PYTHON: &str = "OKX_STORE_PYTHON";

/// Stand-ins: names, and what they do in the place of the real ones, which are further in `PATH`.
const STAND_INS: [(&str, &str); 6] = [
    // Whether there is such a target, and how it would be made.
    ("make", "PATH=${PATH#*:}; exec make -n -C \"$REPOSITORY\" \"$@\""),
    // The example that `cargo test` has built; it ends with what is typed.
    (
        "cargo",
        "[ \"$1 $2 $4\" = 'run --example --' ] || exit 64
         program=$EXAMPLES/$3; shift 4
         if ! [ -x \"$program\" ]; then
             echo \"not built: cargo build --locked --example ${program##*/}\" >&2; exit 1
         fi
         exec \"$program\" \"$@\" --until-stdin-closes",
    ),
    // The statement is kept, and run by whatever can.
    (
        "sqlite3",
        "[ \"$1 $#\" = '-readonly 3' ] || exit 64
         printf %s \"$2\" >\"$TALK/file\"; printf %s \"$3\" >\"$TALK/statement\"
         PATH=${PATH#*:}; if command -v sqlite3 >/dev/null; then exec sqlite3 \"$@\"; fi",
    ),
    ("systemctl", "[ -s ~/.config/systemd/user/\"$4\".service ]"),
    ("loginctl", "[ \"$*\" = enable-linger ]"),
    // Nothing is wrong of which somebody would have to be told.
    ("mail", "exit 1"),
];

/// A fenced block.
struct Block {
    language: &'static str,
    /// The number of its first line.
    line: usize,
    lines: Vec<&'static str>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = README.lines().zip(1..);
    while let Some((fence, line)) = lines.next() {
        if let Some(language) = fence.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().map(|(line, _)| line);
            let lines = inside.take_while(|line| line.trim() != "```").collect();
            blocks.push(Block { language, line: line + 1, lines });
        }
    }
    blocks
}

/// A command of a console, and the lines that it is shown to print.
struct Step {
    line: usize,
    command: &'static str,
    shown: Vec<&'static str>,
}

impl Step {
    /// The lines that are typed into the program: what was done is told with the same words.
    fn typed(&self) -> Vec<&'static str> {
        let echoes = |line: &&str| self.shown.contains(&format!("done: {line}").as_str());
        self.shown.iter().copied().filter(echoes).collect()
    }

    fn printed(&self) -> String {
        let typed = self.typed();
        let printed: Vec<_> = self.shown.iter().copied().filter(|l| !typed.contains(l)).collect();
        printed.join("\n")
    }
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (text, line) in block.lines.iter().zip(block.line..) {
        match (text.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { line, command, shown: Vec::new() }),
            (None, Some(step)) => step.shown.push(text),
            (None, None) => panic!("README.md:{line}: a console begins with a command"),
        }
    }
    steps
}

/// What stays the same of a text: of each line the words, without figures, names of instruments,
/// paths, and marks for terminals; lines of one shape on end, the rows of a table, are one.
fn shape(text: &str) -> Vec<String> {
    let is_kept = |word: &&str| {
        let has = |is: fn(&char) -> bool| word.chars().any(|char| is(&char));
        let says = has(char::is_ascii_lowercase) && !has(char::is_ascii_digit);
        says && !word.starts_with('/') && *word != "kB"
    };
    let words = |line: &str| line.split_whitespace().filter(is_kept).collect::<Vec<_>>().join(" ");
    let mut shape: Vec<String> = text.lines().map(words).collect();
    shape.dedup();
    shape
}

/// Somebody with a machine of his own.
struct Newcomer {
    dir: TempDir,
    exchange: Exchange,
    /// Where he is.
    folder: PathBuf,
    commands: usize,
}

impl Newcomer {
    fn new() -> Newcomer {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "bin", "talk"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let bin = dir.path().join("bin");
        symlink(env!("CARGO_BIN_EXE_okx-store"), bin.join("okx-store")).unwrap();
        for (name, script) in STAND_INS {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let market = Exchange::builder().clock(shown_time()).push_ms(200);
        let exchange = ["BTC-USDT", "ETH-USDT"]
            .iter()
            .fold(market, |market, symbol| market.synthetic(symbol, Listed::days(400)))
            .start();
        let folder = dir.path().join("home");
        Newcomer { dir, exchange, folder, commands: 0 }
    }

    /// Runs a script to its end as a shell does whose user types this into what it starts.
    fn run(&mut self, script: &str, typed: &[&str]) -> Finished {
        self.commands += 1;
        let path = |name: &str| self.dir.path().join(name);
        let (talk, number) = (path("talk"), self.commands);
        fs::write(
            talk.join("in"),
            typed.iter().map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        // Whoever stays in the background keeps its outputs, so they are files of their own.
        let [out, err] = ["out", "err"].map(|name| talk.join(format!("{number}.{name}")));
        let whole = format!(
            "trap 'pwd >$TALK/folder' EXIT; set -e
             {{ {script}\n}} <$TALK/in >{} 2>{}",
            out.display(),
            err.display()
        );
        let program = std::env::current_exe().unwrap();
        let examples = program.ancestors().nth(2).unwrap().join("examples");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &whole]).current_dir(&self.folder).env_clear();
        shell.env("HOME", path("home")).env("TALK", &talk);
        shell.env("EXAMPLES", examples).env("REPOSITORY", REPOSITORY);
        let system = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        shell.env("PATH", format!("{}:{system}", path("bin").display()));
        let mut finished = Running::new(shell, script).wait();
        finished.out += &fs::read_to_string(out).unwrap_or_default();
        finished.err += &fs::read_to_string(err).unwrap_or_default();
        if let Ok(folder) = fs::read_to_string(talk.join("folder")) {
            self.folder = folder.trim_end().into();
        }
        self.lead_to_the_exchange();
        self.ask_what_was_asked(&talk);
        finished
    }

    /// Names the fixture exchange in the configuration that the README has just made.
    fn lead_to_the_exchange(&self) {
        let file = self.folder.join("config.json");
        let Ok(text) = fs::read_to_string(&file) else { return };
        if !text.contains("rest_url") {
            let (rest, stream) = (self.exchange.url(), self.exchange.ws_url());
            let keys = format!("{{ \"rest_url\": {rest:?}, \"ws_url\": {stream:?},");
            fs::write(&file, text.replacen('{', &keys, 1)).unwrap();
        }
    }

    /// Runs the statement that was given to `sqlite3`, where there is such a shell and where not.
    fn ask_what_was_asked(&self, talk: &Path) {
        let Ok(sql) = fs::read_to_string(talk.join("statement")) else { return };
        fs::remove_file(talk.join("statement")).unwrap();
        let file = self.folder.join(fs::read_to_string(talk.join("file")).unwrap());
        let db = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement = db.prepare(&sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
        assert!(statement.exists([]).unwrap(), "{sql}: no row");
    }

    /// Takes a step until it shows what the README shows.
    fn take(&mut self, step: &Step) {
        let (wanted, typed) = (shape(&step.printed()), step.typed());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let pushes = self.exchange.stats().pushes();
            let finished = self.run(step.command, &typed).exits(0);
            // A terminal has both; a README leaves out what says no more than that it was done.
            let both = format!("{}{}", finished.err, finished.out);
            if step.shown.is_empty()
                || [&finished.out, &both].map(|text| shape(text)).contains(&wanted)
            {
                return;
            }
            let (line, command) = (step.line, step.command);
            let seen = shape(&both);
            assert!(
                Instant::now() < deadline,
                "README.md:{line}: {command}\nis shown as {wanted:#?}\nand gives {seen:#?}:\n{both}"
            );
            let another = format!("README.md:{line}: {command}: the next push, for another look");
            self.exchange.wait_for(|stats| stats.pushes() > pushes, DEADLINE, &another);
        }
    }

    fn follow(&mut self, block: &Block) {
        let text = block.lines.join("\n");
        match block.language {
            "console" => steps(block).iter().for_each(|step| self.take(step)),
            "sh" => drop(self.run(&text, &[]).exits(0)),
            "python" => self.python(&text),
            // The documentation's tests: `src/lib.rs` takes the README in among them.
            "rust" | "rust,no_run" => {}
            // A picture.
            "text" => {}
            other => panic!("README.md:{}: nobody knows how to run {other:?}", block.line),
        }
    }

    fn python(&mut self, text: &str) {
        let Ok(python) = std::env::var(PYTHON) else { return };
        fs::write(self.dir.path().join("talk/block.py"), text).unwrap();
        let finished = self.run(&format!("{python} $TALK/block.py"), &[]).exits(0);
        assert!(!finished.out.is_empty(), "{text}\nprinted nothing");
    }

    /// What the daemon in this folder shows of itself.
    fn daemon(&self) -> Option<Snapshot> {
        Snapshot::read(&self.folder.join("data"))
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It is no child of ours, and must not outlive a test that has failed.
        if let Some(daemon) = self.daemon() {
            let kill = format!("kill -KILL {} 2>&-", daemon.pid);
            drop(Command::new("/bin/sh").args(["-c", &kill]).status());
        }
    }
}

/// The exchange's time when the README's `status` was asked; so the dates that it names fit.
fn shown_time() -> i64 {
    let clock = README.lines().find(|line| line.ends_with(" by the exchange's clock"));
    let words: Vec<&str> = clock.expect("a status").split_whitespace().collect();
    let time = OffsetDateTime::parse(&format!("{}T{}Z", words[1], words[2]), &Rfc3339).unwrap();
    time.unix_timestamp() * 1_000
}

#[test]
fn every_block_of_the_readme_does_what_it_shows() {
    let mut newcomer = Newcomer::new();
    for block in blocks() {
        newcomer.follow(&block);
    }
    let daemon = newcomer.daemon().expect("the README starts a daemon");
    newcomer.run(&format!("kill {}", daemon.pid), &[]).exits(0);
    newcomer.exchange.wait_for(|stats| stats.open() == 0, DEADLINE, "the end of the daemon");
    let log = fs::read_to_string(newcomer.folder.join("logs/okx-store.log")).unwrap();
    let troubles: Vec<_> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(troubles.is_empty(), "nothing went wrong, and yet: {troubles:#?}");
}

/// The options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '-');
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

#[test]
fn the_readme_names_every_command_with_its_options() {
    let program = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_okx-store"));
        command.args(words.split_whitespace()).args(["--help"]).env_clear();
        Running::new(command, words).wait().exits(0).out
    };
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let rows = README.lines().skip_while(|line| *line != "## Commands");
    for row in rows.skip(1).take_while(|line| !line.starts_with('#')) {
        if let Some((usage, _)) = row.strip_prefix("| `").and_then(|row| row.split_once("` |")) {
            let (name, _) = usage.split_once(' ').unwrap_or((usage, ""));
            told.entry(name.to_owned()).or_default().extend(options(usage));
        }
    }
    for (name, told) in &told {
        let help = program(name);
        let (grammar, _) = help.split_once("\n\n").unwrap();
        let mut known = options(grammar);
        // The one that is told for all commands together.
        known.remove("--json");
        assert_eq!(*told, known, "the options of {name}");
    }
    let help = program("");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')));
    let known: BTreeSet<_> =
        names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert_eq!(told.into_keys().collect::<BTreeSet<_>>(), known);
}

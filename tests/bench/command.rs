//! Commands as people run them, beside the sqlite3 shell and a program that does nothing.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use okx_local_store::time::MINUTE;

use crate::candles::FIRST;
use crate::measure::by_turns;
use crate::process::{PROGRAM, peak_bytes, program, sqlite3, whole};
use crate::table::{Line, Target};
use crate::yard::{MILLION, Yard};

/// The largest release build, bytes, and the crates that it may be made of.
const PROGRAM_BYTES_MAX: u64 = 7_000_000;
const CRATES_MAX: usize = 119;
/// What an export may need beyond a short one, bytes.
const FLAT_BYTES: u64 = 2 << 20;

pub fn query(yard: &Yard) -> Result<Vec<Line>, String> {
    sqlite3()?;
    let (home, out) = (yard.million(), yard.folder("out").join("rows"));
    let sql = "SELECT ts, open, high, low, close, volume, confirmed FROM \
               (SELECT * FROM candles_1m ORDER BY ts DESC LIMIT 100) ORDER BY ts";
    let pair = by_turns(
        21,
        || whole(&mut program(home, "query BTC-USDT 1m --count 100"), &out),
        || whole(Command::new("sqlite3").args(["data/BTC-USDT.db", sql]).current_dir(home), &out),
    );
    let what = "query --count 100, whole process: the sqlite3 shell";
    Ok(vec![Line::new(what, pair.time_ratio(), Target::AtMost(1.3), pair.to_string())])
}

pub fn export(yard: &Yard) -> Result<Vec<Line>, String> {
    sqlite3()?;
    let (home, out) = (yard.million(), yard.folder("out").join("rows"));
    let sql = "SELECT ts, strftime('%Y-%m-%dT%H:%M:%SZ', ts / 1000, 'unixepoch'), open, high, \
               low, close, volume, volume_ccy, volume_quote FROM candles_1m \
               WHERE confirmed = 1 ORDER BY ts";
    let pair = by_turns(
        5,
        || whole(&mut program(home, "export BTC-USDT 1m -"), &out),
        || {
            let mut shell = Command::new("sqlite3");
            whole(shell.args(["-csv", "data/BTC-USDT.db", sql]).current_dir(home), &out)
        },
    );
    let start = FIRST + MILLION as i64 / 10 * 9 * MINUTE;
    let tenth = export_peak(home, &format!("export BTC-USDT 1m - --start {start}"));
    let all = export_peak(home, "export BTC-USDT 1m -");
    let remark = format!(
        "{pair}\npeak memory {:.1} MB, of a tenth of the rows {:.1} MB",
        all as f64 / 1e6,
        tenth as f64 / 1e6
    );
    let what = "export of 1,000,000 rows: the sqlite3 shell's CSV";
    let line = Line::new(what, pair.time_ratio(), Target::AtMost(0.4), remark);
    Ok(vec![Line { holds: all <= tenth + FLAT_BYTES, ..line }])
}

/// The most memory that a command has needed by the time its last lines are read.
fn export_peak(home: &Path, words: &str) -> u64 {
    let mut command = program(home, words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut out, mut chunk, mut peak) = (child.stdout.take().unwrap(), [0; 64 << 10], 0);
    while let Ok(1..) = out.read(&mut chunk) {
        peak = peak_bytes(child.id()).unwrap_or(0).max(peak);
    }
    assert!(child.wait().unwrap().success(), "{words} has failed");
    peak
}

pub fn version(yard: &Yard) -> Result<Vec<Line>, String> {
    let dir = yard.folder("version");
    let (source, bare, out) = (dir.join("bare.rs"), dir.join("bare"), dir.join("out"));
    fs::write(&source, "fn main() { println!(\"bare 0.1.0\"); }\n").unwrap();
    let rustc = Command::new("rustc").args(["-O", "-o"]).arg(&bare).arg(&source).status();
    if !rustc.is_ok_and(|status| status.success()) {
        return Err("rustc cannot build a bare program to compare with".to_owned());
    }
    let pair = by_turns(
        101,
        || whole(Command::new(PROGRAM).arg("--version"), &out),
        || whole(&mut Command::new(&bare), &out),
    );
    let what = "--version: a bare Rust binary";
    Ok(vec![Line::new(what, pair.time_ratio(), Target::AtMost(1.5), pair.to_string())])
}

/// The size of the program, and of what it is made.
pub fn size(_: &Yard) -> Result<Vec<Line>, String> {
    let bytes = fs::metadata(PROGRAM).map_err(|error| format!("{PROGRAM}: {error}"))?.len();
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"]);
    let listed = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let listed = listed.map_err(|error| format!("cargo tree: {error}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).replace(" (*)", "");
    let mut crates: Vec<&str> = listed.lines().filter(|line| !line.is_empty()).collect();
    crates.sort_unstable();
    crates.dedup();
    let crates = crates.len();
    let holds = bytes < PROGRAM_BYTES_MAX && (1..=CRATES_MAX).contains(&crates);
    let remark = format!("{:.2} MB, {crates} crates", bytes as f64 / 1e6);
    Ok(vec![Line::known("release build: below 7 MB and 120 crates", holds, remark)])
}

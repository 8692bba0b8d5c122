//! Whole processes: how long they take, and how much memory and processor time.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_okx-store");

/// The program with these words, in a folder with a configuration.
pub fn program(home: &Path, words: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words.split_whitespace()).current_dir(home).env_clear().env("HOME", home);
    command
}

/// The sqlite3 shell, or what to do where it is missing.
pub fn sqlite3() -> Result<Command, String> {
    let found = Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(Command::new("sqlite3")),
        _ => Err("there is no sqlite3 shell to compare with: apt-get install sqlite3".to_owned()),
    }
}

/// The time from the start of a command to its end. What it prints goes into a file.
pub fn whole(command: &mut Command, out: &Path) -> Duration {
    let out = File::create(out).unwrap();
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().unwrap();
    let length = started.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    length
}

/// The most memory that a process has had resident so far, bytes; nothing if it has ended.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// A line of what the system tells of a process, bytes.
pub fn status_bytes(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

//! A daemon at work: started on a store of its own, watched from outside, and stopped.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use okx_local_store::snapshot::Snapshot;

use crate::exchange::Exchange;
use crate::process::{PROGRAM, peak_bytes, status_bytes};

/// The clock ticks of a second in which Linux counts processor time.
const TICKS: f64 = 100.0;
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(20);
/// Nothing that is waited for takes half as long.
const PATIENCE: Duration = Duration::from_secs(300);

/// The bars that each instrument has in these measurements.
pub const BARS: [&str; 4] = ["1m", "5m", "1H", "1D"];

/// The name of the instrument with this number.
pub fn symbol(number: usize) -> String {
    format!("C{number:04}-USDT")
}

/// Writes a configuration of so many instruments, a day of each, and makes the data folder.
pub fn configure(home: &Path, exchange: &Exchange, instruments: usize, bars: &[&str], keys: &str) {
    let mut text = format!(
        "{{ \"rest_url\": {:?}, \"ws_url\": {:?}, {keys} \"instruments\": [",
        exchange.url(),
        exchange.ws_url()
    );
    for number in 0..instruments {
        let comma = if number == 0 { "" } else { "," };
        let symbol = symbol(number);
        let entry = format!("\"symbol\": {symbol:?}, \"timeframes\": {bars:?}");
        write!(text, "{comma}\n  {{ {entry}, \"max_history_days\": 1 }}").unwrap();
    }
    fs::write(home.join("config.json"), text + "\n] }\n").unwrap();
    fs::create_dir_all(home.join("data")).unwrap();
}

/// A daemon under way. Dropped, it is killed.
pub struct Daemon {
    child: Child,
    data_dir: PathBuf,
}

impl Daemon {
    /// Starts it in a folder with a configuration, with at most so many descriptors.
    pub fn start(home: &Path, descriptors: u32) -> Daemon {
        let script = format!("ulimit -n {descriptors} && exec {PROGRAM} daemon");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).current_dir(home).env_clear().env("HOME", home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("because there is a shell");
        Daemon { child, data_dir: home.join("data") }
    }

    /// What it shows of itself, once it does.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::read(&self.data_dir)
    }

    /// Waits until what it shows is so.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        wait_until(what, || self.snapshot().is_some_and(|snapshot| holds(&snapshot)));
    }

    /// Waits until it has subscribed so many series.
    pub fn wait_for_series(&self, series: usize) {
        let what = format!("{series} series to be subscribed");
        self.wait_until(&what, |shown| shown.stream.subscriptions as usize == series);
    }

    /// The processor time it has had so far.
    pub fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(path).expect("because the daemon runs");
        // The name of the program, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        Duration::from_secs_f64(ticks / TICKS)
    }

    /// The memory it has resident, and the most it had, MB.
    pub fn memory_mb(&self) -> (f64, f64) {
        let pid = self.child.id();
        let mb = |bytes: Option<u64>| bytes.expect("because the daemon runs") as f64 / 1e6;
        (mb(status_bytes(pid, "VmRSS:")), mb(peak_bytes(pid)))
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().is_ok_and(|status| status.success()));
        let status = self.child.wait().expect("because it is our child");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something has come about.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(LOOK);
    }
}

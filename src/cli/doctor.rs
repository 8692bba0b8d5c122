//! `doctor`: looks at everything that a daemon needs, and says of each thing how it is and what to
//! do.
//!
//! It stores nothing and takes no lock, so it may run beside a daemon. What can be told without
//! the exchange comes first.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, finish, write_json};
use crate::cli::paint::{Paint, Tone};
use crate::cli::sight::Sight;
use crate::cli::table::{count, format_bytes, write_wrapped};
use crate::cli::websocket::trial::{self, Trial};
use crate::config::Config;
use crate::coverage::Coverage;
use crate::engine::Setup;
use crate::house::{House, Wanted};
use crate::inquiry::{Inquirer, InquiryError};
use crate::lock::Lock;
use crate::okx;
use crate::page::Ask;
use crate::store::StoreError;
use crate::store::files::open_files_max;
use crate::time::{Deadline, Millis, SECOND, format_length, wall_now};
use crate::wire::Endpoint;

/// A row takes so many bytes on the disk, its share of the tables' pages included.
const ROW_BYTES: u64 = 83;
/// So much room has to be left beside what is still to come: for logs, and for everybody else.
const SPARE_BYTES: u64 = 256 << 20;
/// A clock that is wrong by more is worth a word.
const CLOCK_WRONG_MS: Millis = 2 * SECOND;
/// A connection of the stream is given so long.
const STREAM_MS: Millis = 15 * SECOND;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Look,
    /// It does not work.
    Failed,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Look => "look",
            Verdict::Failed => "failed",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Verdict::Ok => Tone::Good,
            Verdict::Look => Tone::Fair,
            Verdict::Failed => Tone::Bad,
        }
    }
}

/// What was found about one thing. The names are public: scripts read them.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    text: String,
}

type Found = (Verdict, String);

/// Who is examined.
pub struct Doctor<'a> {
    /// The configuration in use.
    pub config: &'a Config,
    /// The same, and the files.
    pub house: &'a House<'a>,
    /// How to ask the exchange.
    pub setup: &'a Setup,
    /// The exchange's time as far as it is known.
    pub now: Millis,
}

impl Doctor<'_> {
    /// Examines one thing after the other, and tells of each as soon as it is known.
    ///
    /// # Errors
    ///
    /// The output cannot be written. What is found to be broken is no error of this command, but
    /// it exits with 1.
    pub fn examine(&self, json: bool, paint: Paint, out: &mut dyn Write) -> Result<Exit, Failure> {
        let mut findings = Vec::new();
        let mut told = Ok(());
        let mut tell = |name, (verdict, text): Found, out: &mut dyn Write| {
            let finding = Finding { name, verdict, text };
            if !json && told.is_ok() {
                told = write_finding(&finding, paint, out);
            }
            findings.push(finding);
        };
        tell("config", self.config(), out);
        let inquirer = Inquirer::new(self.setup);
        tell("folder", self.folder(inquirer.as_ref().err()), out);
        tell("files", self.files(), out);
        tell("disk", self.disk(), out);
        tell("daemon", self.daemon(), out);
        match inquirer {
            Ok(mut inquirer) => {
                let rest = self.rest(&mut inquirer);
                let answers = rest.0 == Verdict::Ok;
                tell("rest", rest, out);
                let unknown = || (Verdict::Look, "not compared: nobody tells the time".to_owned());
                tell("clock", if answers { self.clock(&mut inquirer) } else { unknown() }, out);
            }
            Err(InquiryError::Http(error)) => tell("rest", failed(error.to_string()), out),
            Err(_) => tell("rest", failed("not asked: its requests cannot be recorded"), out),
        }
        tell("stream", self.stream(), out);
        let worst = findings.iter().map(|finding| finding.verdict).max();
        let written = if json { write_json(&findings, out) } else { told };
        let exit = if worst == Some(Verdict::Failed) { Exit::Failed } else { Exit::Done };
        finish(written, out).map(|_| exit)
    }

    fn config(&self) -> Found {
        let instruments = self.house.instruments;
        let enabled = instruments.iter().filter(|wanted| wanted.enabled).count();
        let series = self.config.series().count();
        let text = format!(
            "{}: {}, {} of them enabled, {series} series",
            self.house.config_text(),
            count(instruments.len() as i64, "instrument"),
            enabled
        );
        match enabled {
            0 => (Verdict::Look, format!("{text}; mirror one: okx-store add-symbol BTC-USDT")),
            _ if !self.config.enable_auto_sync => {
                (Verdict::Look, format!("{text}; enable_auto_sync is false, so no daemon starts"))
            }
            _ => (Verdict::Ok, text),
        }
    }

    fn folder(&self, error: Option<&InquiryError>) -> Found {
        let path = self.house.data_dir.display();
        match error {
            Some(InquiryError::Record(error)) => {
                failed(format!("{path} cannot be written: {error}: change its owner or data_dir"))
            }
            _ => (Verdict::Ok, format!("{path} can be written")),
        }
    }

    /// Whether each file can be read and is ours, and whether all can be open at once.
    fn files(&self) -> Found {
        let wanted = self.house.instruments;
        let opened = wanted.iter().map(|wanted| self.house.open(&wanted.instrument));
        let opened: Vec<Result<bool, StoreError>> =
            opened.map(|opened| opened.map(|reader| reader.is_some())).collect();
        if let Some(Err(error)) = opened.iter().find(|opened| opened.is_err()) {
            return failed(format!(
                "{error}: mend it or move it away, and what is lost is fetched again"
            ));
        }
        let there = opened.iter().filter(|opened| matches!(opened, Ok(true))).count();
        let text = format!("{there} of {} can be read", wanted.len());
        let open_max = open_files_max();
        if wanted.len() as u64 > open_max {
            let advice = "they take turns, raise the limit: ulimit -n 8192";
            return (Verdict::Look, format!("{text}, {open_max} can be open at once; {advice}"));
        }
        match wanted.len() - there {
            0 => (Verdict::Ok, text),
            new => (Verdict::Ok, format!("{text}, {new} not synced yet")),
        }
    }

    fn disk(&self) -> Found {
        let to_come =
            ROW_BYTES * self.house.instruments.iter().map(|it| self.missing(it)).sum::<u64>();
        let Some(free) = free_bytes(self.house.data_dir) else {
            return (Verdict::Look, "df does not tell how much room is left".to_owned());
        };
        let text = match to_come {
            0 => format!("{} free, all that is wanted is there", format_bytes(free)),
            _ => format!("{} free, about {} to come", format_bytes(free), format_bytes(to_come)),
        };
        match free {
            free if free < to_come + SPARE_BYTES => failed(format!(
                "{text}: make room, or want less by max_history_days and timeframes"
            )),
            _ => (Verdict::Ok, text),
        }
    }

    /// Bars of an instrument that are still to be fetched.
    fn missing(&self, wanted: &Wanted) -> u64 {
        let reader = self.house.open(&wanted.instrument).ok().flatten();
        let stored = reader.as_ref().and_then(|reader| reader.bars().ok()).unwrap_or_default();
        let bars = wanted.bars.iter().filter(|_| wanted.enabled);
        let missing = bars.map(|&bar| {
            let reader = reader.as_ref().filter(|_| stored.contains(&bar));
            let grid = reader.and_then(|reader| reader.grid(bar).ok()).unwrap_or(bar.grid());
            let coverage = reader.and_then(|reader| reader.coverage(bar).ok());
            let coverage: Coverage = coverage.unwrap_or_default();
            let span = self.house.wanted_span(&wanted.instrument, bar, grid, &coverage, self.now);
            coverage.tally(grid, span).missing.unsigned_abs()
        });
        missing.sum()
    }

    fn daemon(&self) -> Found {
        let Some(sight) = Sight::look(self.house.data_dir) else {
            let holder = Lock::holder(self.house.data_dir);
            return match holder {
                Some(holder) => {
                    (Verdict::Ok, format!("none, but process {} is writing there", holder.pid))
                }
                None => (
                    Verdict::Look,
                    "not running, so nothing is kept fresh: nohup okx-store daemon &".to_owned(),
                ),
            };
        };
        let troubles = [
            sight.snapshot.stalled.as_ref().map(|why| format!("nothing can be stored: {why}")),
            sight.snapshot.config_error.as_ref().map(|why| format!("it refuses the config: {why}")),
            sight.obstacle().map(str::to_owned),
        ];
        match troubles.into_iter().flatten().next() {
            Some(trouble) => failed(format!("{}; {trouble}", sight.headline())),
            None => (Verdict::Ok, sight.headline()),
        }
    }

    /// Whether the exchange answers, and knows what is to be mirrored.
    fn rest(&self, inquirer: &mut Inquirer) -> Found {
        let url = self.config.rest_url();
        let series = trial::series(self.config);
        let endpoint = match okx::candles_have(series.bar) {
            true => Endpoint::Candles,
            false => Endpoint::History,
        };
        let ask = Ask::Newest { limit: 1, until: 0 };
        let path = okx::page_path(&series, endpoint, ask);
        // From when the budget lets it out: beside a busy daemon it waits for that longer than for
        // the exchange.
        let mut begun = Deadline::after(0);
        let watch = &mut |_, wait: Option<_>| {
            if wait.is_none() {
                begun = Deadline::after(0);
            }
            true
        };
        let decode = |answer: &_| okx::decode_page(ask, answer);
        match inquirer.ask_watched(endpoint, &path, decode, watch) {
            Ok(_) => {
                let length = format_length(begun.elapsed_ms());
                (Verdict::Ok, format!("{url} gave the newest candle of {series} within {length}"))
            }
            Err(error) => failed(format!("{url}: {series}: {error}")),
        }
    }

    fn clock(&self, inquirer: &mut Inquirer) -> Found {
        if let Err(error) = inquirer.read_clock(&mut |_, _| true) {
            return failed(format!("the exchange does not tell the time: {error}"));
        }
        let ahead_ms = wall_now() - inquirer.now().exchange;
        let words = match ahead_ms {
            0.. => "ahead of",
            _ => "behind",
        };
        let text = format!("{} {words} the exchange's", format_length(ahead_ms.abs()));
        match ahead_ms.abs() > CLOCK_WRONG_MS {
            true => (
                Verdict::Look,
                format!("{text}: bars go by the exchange's all the same, but set this machine's"),
            ),
            false => (Verdict::Ok, text),
        }
    }

    fn stream(&self) -> Found {
        if !self.config.enable_websocket {
            return (Verdict::Look, "off: enable_websocket is false".to_owned());
        }
        let trial = Trial {
            config: self.config,
            credentials: self.setup.http.credentials.clone(),
            clock_offset_ms: self.house.clock_offset_ms(),
            timeout_ms: STREAM_MS,
        };
        let begun = Deadline::after(0);
        match trial::test(trial, Paint::default(), &mut std::io::sink()) {
            Ok(_) => {
                let length = format_length(begun.elapsed_ms());
                (Verdict::Ok, format!("{} pushes candles, within {length}", self.config.ws_url()))
            }
            Err(error) => failed(error.to_string()),
        }
    }
}

fn failed(text: impl Into<String>) -> Found {
    (Verdict::Failed, text.into())
}

fn write_finding(finding: &Finding, paint: Paint, out: &mut dyn Write) -> Result<(), Failure> {
    let Finding { name, verdict, text } = finding;
    let word = paint.word(verdict.tone(), verdict.word());
    // Colours take no columns, so the word is filled up by hand.
    let filling = " ".repeat(8 - verdict.word().len());
    let lead = format!("{}{name:8}{word}{filling}", paint.mark(verdict.tone()));
    write_wrapped(out, &lead, text)?;
    Ok(out.flush()?)
}

/// Room that is left on the disk of a folder, or of the nearest one above it that is there. POSIX's
/// `df -P` tells it everywhere in the same form: blocks of 1,024 bytes in the fourth column.
fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.is_dir())?;
    let told = Command::new("df").args(["-P", "-k"]).arg(there).output().ok()?;
    free_in(std::str::from_utf8(&told.stdout).ok()?)
}

fn free_in(table: &str) -> Option<u64> {
    let row = table.lines().nth(1)?;
    // The last column may have spaces, and so may the first: count from the share in per cent.
    let words: Vec<&str> = row.split_whitespace().collect();
    let share = words.iter().position(|word| word.ends_with('%'))?;
    words.get(share.checked_sub(1)?)?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_read_from_any_table() {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on\n";
        for (row, free) in [
            ("/dev/vda 264000000 12000000 83886080 13% /\n", Some(83_886_080 << 10)),
            ("//nas/my share 1000 600 400 60% /mnt/my share\n", Some(400 << 10)),
            ("overlay - - - - /\n", None),
            ("", None),
        ] {
            assert_eq!(free_in(&format!("{head}{row}")), free, "{row}");
        }
        assert!(free_bytes(Path::new("/nowhere/at/all")).is_some());
    }
}

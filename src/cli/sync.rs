//! `sync`, `backfill` and `gaps --fill`: the commands that fetch, or have a running daemon fetch.

use std::io::Write;

use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::progress::{Progress, Screen, remarks};
use crate::cli::remote::{Gate, Writer};
use crate::cli::table::{Align, Layout, count};
use crate::control::Control;
use crate::engine::{self, EngineError, Setup};
use crate::http::Http;
use crate::instrument::Series;
use crate::plan::Wanted;
use crate::time::{Clock, Now};
use crate::view::View;

/// How the work ended.
struct Outcome {
    view: View,
    /// The words of a thread that panicked.
    panic: Option<String>,
}

/// Makes series complete and tells what became of each. A daemon that holds the lock is asked to
/// do it; everything is told as if it were done here.
pub fn sync(
    setup: &Setup,
    wanted: &[(Series, Wanted)],
    screen: &Screen,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    if wanted.is_empty() {
        return Err(Failure::NothingWanted);
    }
    let mut progress = Progress::new(screen);
    let result = work(setup, wanted, &mut progress);
    progress.finish();
    let outcome = result?;
    finish(tell(&outcome.view, out), out)?;
    Ok(judge(&outcome, notes))
}

/// Has the work done by whoever may write.
fn work(
    setup: &Setup,
    wanted: &[(Series, Wanted)],
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    // First what only the configuration can mend: it is refused before a folder is made or a lock
    // waited for.
    let http = Http::new(&setup.http).map_err(EngineError::Http).map_err(Failure::Engine)?;
    let clock = Clock::start(0);
    let mut gate = Gate::new(&setup.data_dir)?;
    loop {
        match gate.pass()? {
            Writer::Here(lock) => {
                let watch = &mut |control: &Control, now: Now| {
                    progress.watch(&View::of(control, now), now.local);
                };
                let outcome = engine::run_under(lock, &http, setup, wanted, watch);
                let engine::Outcome { control, now, ending } = outcome.map_err(Failure::Engine)?;
                return Ok(Outcome { view: View::of(&control, now), panic: ending.panic });
            }
            Writer::Daemon(daemon) => {
                let watch = &mut |view: &View| progress.watch(view, clock.now().local);
                if let Some(view) = daemon.fill(wanted, watch)? {
                    return Ok(Outcome { view, panic: None });
                }
            }
        }
    }
}

/// A row for each series.
fn tell(view: &View, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = [
        ("series", Align::Left),
        ("new bars", Align::Right),
        ("stored", Align::Right),
        ("missing", Align::Right),
        ("", Align::Left),
    ];
    let rows: Vec<Vec<String>> = view
        .lines
        .iter()
        .map(|line| {
            let tally = line.tally;
            let remark = match &line.error {
                Some(_) => "failed".to_owned(),
                None if tally.missing > 0 => "unfinished".to_owned(),
                None if tally.wanted == 0 => "no bar has closed in this range".to_owned(),
                None => remarks(line).trim_start_matches(", ").to_owned(),
            };
            vec![
                line.series.to_string(),
                line.closed.to_string(),
                line.stored.to_string(),
                tally.missing.to_string(),
                remark,
            ]
        })
        .collect();
    Ok(Layout::new("", &columns).write(out, &rows)?)
}

/// What went wrong, each thing once, and the exit code for it.
fn judge(outcome: &Outcome, notes: &mut dyn Write) -> Exit {
    if let Some(panic) = &outcome.panic {
        note(notes, format_args!("okx-store: a bug: {panic}"));
        return Exit::Bug;
    }
    let (view, mut exit) = (&outcome.view, Exit::Done);
    for line in &view.lines {
        if let Some(error) = &line.error {
            note(notes, format_args!("okx-store: {}: {error}", line.series));
            exit = Exit::Failed;
        }
    }
    if let Some(error) = &view.gave_up {
        note(notes, format_args!("okx-store: gave up: {error}"));
        exit = Exit::Failed;
    }
    if view.stopped {
        let missing = count(view.missing(), "bar");
        note(
            notes,
            format_args!(
                "okx-store: stopped with {missing} missing; the next sync goes on from here"
            ),
        );
        exit = Exit::Failed;
    }
    exit
}

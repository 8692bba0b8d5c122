//! `sync`, `backfill`, `gaps --fill` and `verify --repair`: the commands that fetch, or have a
//! running daemon fetch.

use std::io::Write;

use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::progress::{Progress, Screen, remarks};
use crate::cli::remote::{Gate, Writer};
use crate::cli::table::{Align, Layout, count};
use crate::control::Control;
use crate::crew::Wishes;
use crate::engine::{self, EngineError, Setup};
use crate::http::Http;
use crate::instrument::Series;
use crate::lock::Lock;
use crate::plan::Wanted;
use crate::request::Request;
use crate::span::Spans;
use crate::time::{Clock, Now};
use crate::view::View;

/// How the work ended.
pub(crate) struct Outcome {
    view: View,
    /// The words of a thread that panicked.
    panic: Option<String>,
}

/// What is to be fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand<'a> {
    /// What is missing of these.
    Fill(&'a [(Series, Wanted)]),
    /// These bars of a series, missing or not.
    Recheck(&'a Series, &'a Spans),
}

impl Errand<'_> {
    fn request(self) -> Request {
        match self {
            Errand::Fill(wanted) => Request::Fill { wanted: wanted.to_vec() },
            Errand::Recheck(series, spans) => {
                Request::Recheck { series: series.clone(), spans: spans.clone() }
            }
        }
    }

    /// Does it here, with the lock.
    fn run(
        self,
        lock: Lock,
        http: &Http,
        setup: &Setup,
        progress: &mut Progress,
    ) -> Result<Outcome, Failure> {
        let watch = &mut |control: &Control, now: Now| {
            progress.watch(&View::of(control, now), now.local);
        };
        let ended = match self {
            Errand::Fill(wanted) => {
                engine::run_under(lock, http, setup, Wishes::Signals, wanted, watch)
            }
            Errand::Recheck(series, spans) => {
                engine::recheck_under(lock, http, setup, series, spans, watch)
            }
        };
        let engine::Outcome { control, now, ending } = ended.map_err(Failure::Engine)?;
        Ok(Outcome { view: View::of(&control, now), panic: ending.panic })
    }
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
    let outcome = work(setup, Errand::Fill(wanted), screen)?;
    finish(tell(&outcome.view, out), out)?;
    Ok(judge(&outcome, notes))
}

/// Has the work done by whoever may write, and shows how far it is.
pub(crate) fn work(setup: &Setup, errand: Errand<'_>, screen: &Screen) -> Result<Outcome, Failure> {
    let mut progress = Progress::new(screen);
    let result = delegate(setup, errand, &mut progress);
    progress.finish();
    result
}

fn delegate(
    setup: &Setup,
    errand: Errand<'_>,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    // First what only the configuration can mend: it is refused before a folder is made or a lock
    // waited for.
    let http = Http::new(&setup.http).map_err(EngineError::Http).map_err(Failure::Engine)?;
    let clock = Clock::start(0);
    let mut gate = Gate::new(&setup.data_dir)?;
    loop {
        match gate.pass()? {
            Writer::Here(lock) => return errand.run(lock, &http, setup, progress),
            Writer::Daemon(daemon) => {
                let watch = &mut |view: &View| progress.watch(view, clock.now().local);
                if let Some(view) = daemon.fetch(&errand.request(), watch)? {
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
pub(crate) fn judge(outcome: &Outcome, notes: &mut dyn Write) -> Exit {
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
                "okx-store: stopped with {missing} missing; the next sync, or a daemon, goes on \
                 from here"
            ),
        );
        exit = Exit::Failed;
    }
    exit
}

//! `sync`, `backfill` and `gaps --fill`: the commands that fetch.

use std::io::Write;

use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::progress::{Progress, Screen, remarks};
use crate::cli::table::{Align, Layout, count};
use crate::engine::{self, Outcome, Setup};
use crate::instrument::Series;
use crate::plan::Wanted;

/// Makes series complete and tells what became of each.
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
    let result = engine::run(setup, wanted, &mut |control, now| progress.watch(control, now));
    progress.finish();
    let outcome = result.map_err(Failure::Engine)?;
    finish(tell(&outcome, out), out)?;
    Ok(judge(&outcome, notes))
}

/// A row for each series.
fn tell(outcome: &Outcome, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = [
        ("series", Align::Left),
        ("new bars", Align::Right),
        ("stored", Align::Right),
        ("missing", Align::Right),
        ("", Align::Left),
    ];
    let rows: Vec<Vec<String>> = outcome
        .control
        .lines()
        .iter()
        .map(|line| {
            let tally = line.tally(outcome.now);
            let remark = match &line.error {
                Some(_) => "failed".to_owned(),
                None if tally.missing > 0 => "unfinished".to_owned(),
                None if tally.wanted == 0 => "no bar has closed in this range".to_owned(),
                None => remarks(line, outcome.now).trim_start_matches(", ").to_owned(),
            };
            vec![
                line.series.to_string(),
                line.closed.to_string(),
                line.stored().to_string(),
                tally.missing.to_string(),
                remark,
            ]
        })
        .collect();
    Ok(Layout::new("", &columns).write(out, &rows)?)
}

/// What went wrong, each thing once, and the exit code for it.
fn judge(outcome: &Outcome, notes: &mut dyn Write) -> Exit {
    if let Some(panic) = &outcome.ending.panic {
        note(notes, format_args!("okx-store: a bug: {panic}"));
        return Exit::Bug;
    }
    let (control, mut exit) = (&outcome.control, Exit::Done);
    for line in control.lines() {
        if let Some(error) = &line.error {
            note(notes, format_args!("okx-store: {}: {error}", line.series));
            exit = Exit::Failed;
        }
    }
    if let Some(error) = control.gave_up() {
        note(notes, format_args!("okx-store: gave up: {error}"));
        exit = Exit::Failed;
    }
    if control.was_stopped() {
        let missing: i64 = control.lines().iter().map(|line| line.tally(outcome.now).missing).sum();
        let missing = count(missing, "bar");
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

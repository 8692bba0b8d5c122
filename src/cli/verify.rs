//! `verify`: closed bars, read from the exchange once more and compared with what is stored.

mod report;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::outcome::{Exit, Failure, finish};
use crate::cli::paint::Paint;
use crate::cli::progress::{Screen, Ticker, bar};
use crate::cli::sync::{self, Errand};
use crate::cli::table::count;
use crate::cli::verify::report::{Cure, Report};
use crate::control::Hold;
use crate::engine::Setup;
use crate::error::Error;
use crate::house::House;
use crate::inquiry::{Inquirer, InquiryError};
use crate::instrument::Series;
use crate::okx;
use crate::request::RANGES_MAX;
use crate::span::{Span, Spans};
use crate::store::StoreError;
use crate::store::query::EVERYTHING;
use crate::store::read::Reader;
use crate::time::{DAY, MINUTE, Millis, Now, SECOND, format_length};
use crate::verification::{Scope, Share, Verification};
use crate::wire::Endpoint;

/// A bar that ended less than this ago may not have shown up on the exchange's pages yet. History
/// trails, so for bars that it alone has this counts twice.
const SETTLED_MS: Millis = 10 * SECOND;
/// A daemon that misses a bar's close looks for it within half a minute, and one that polls at its
/// interval: before that the store owes nothing.
const OWED_MS: Millis = MINUTE;
/// Before this no rate is told: it would be a guess.
const GUESS_MS: Millis = 2 * SECOND;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Of what.
    pub series: Series,
    /// How far back; without it as far as is configured.
    pub days: Option<u32>,
    /// How much of that.
    pub sample: Share,
    /// Whether to heal what can be healed.
    pub repair: bool,
    /// Whether the answer is for scripts.
    pub json: bool,
}

/// What a verification works with.
pub struct Work<'a> {
    /// The store.
    pub house: &'a House<'a>,
    /// How to reach the exchange, and to write.
    pub setup: &'a Setup,
    /// How often the series is polled; 0 if nobody does.
    pub interval_ms: Millis,
    /// Raised when the user has had enough.
    pub stop: &'a AtomicBool,
    /// Where progress is shown.
    pub screen: &'a Screen,
    /// For what goes to standard output.
    pub paint: Paint,
}

/// What one way through the pages has come to.
struct Run {
    verification: Verification,
    /// Pages that were answered.
    answers: u64,
    /// Why it ended before its end.
    trouble: Option<Failure>,
}

/// Verifies a series, heals it if asked, and tells what was found.
pub fn verify(
    work: &Work<'_>,
    asked: &Verify,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let series = &asked.series;
    let reader = work.house.find(&series.instrument)?;
    let oldest = reader
        .first_open(series.bar, EVERYTHING, true)?
        .ok_or_else(|| Failure::Library(Error::Nothing { series: series.clone(), stored: None }))?;
    let mut inquirer = Inquirer::new(work.setup).map_err(Failure::Inquiry)?;
    inquirer.read_clock(&mut |_, _| work.goes_on()).map_err(failure)?;
    inquirer.be_patient();
    let now = inquirer.now().exchange;
    let range = work.range(asked, &reader, oldest, now)?;
    let scope = Scope {
        grid: reader.grid(series.bar)?,
        history_only: !okx::candles_have(series.bar),
        spans: range.into(),
        share: asked.sample,
        due: now - OWED_MS - work.interval_ms,
    };
    let mut round = Round { work, series, reader: &reader, inquirer: &mut inquirer };
    let mut found = round.run(scope.clone())?;
    let mut end = found.trouble.take().map_or(Ok(Exit::Done), Err);
    if found.answers == 0 {
        return end;
    }
    let finished = end.is_ok();
    let ranges = found.verification.curable(RANGES_MAX);
    let mut cure = None;
    if asked.repair && finished && !ranges.is_empty() {
        let left;
        (left, end) = round.repair(&ranges, &scope, notes);
        cure = Some(Cure { ranges, left });
    }
    // The configured history moves on, and what has left it a moment ago is not worth a word.
    let older = Some(oldest).filter(|&oldest| oldest < range.start - DAY);
    let report =
        Report { asked, now, range, grid: scope.grid, finished, older, found: &found, cure };
    finish(report.tell(work.paint, out), out)?;
    match end {
        Ok(Exit::Done) if !report.is_equal() => Ok(Exit::Failed),
        end => end,
    }
}

fn failure(trouble: InquiryError) -> Failure {
    match trouble {
        InquiryError::Stopped => Failure::Stopped,
        trouble => Failure::Inquiry(trouble),
    }
}

impl Work<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// The range of open times to verify: of what nobody keeps fresh, no more than lies between the
    /// ends of what is stored.
    fn range(
        &self,
        asked: &Verify,
        reader: &Reader,
        oldest: Millis,
        now: Millis,
    ) -> Result<Span, Failure> {
        let Series { instrument, bar } = &asked.series;
        let grid = reader.grid(*bar)?;
        let settled_ms = if okx::candles_have(*bar) { SETTLED_MS } else { 2 * SETTLED_MS };
        let end = grid.floor(now - settled_ms);
        let configured = self.house.wanted(instrument).filter(|wanted| wanted.has(*bar));
        let days = asked.days.or(configured.map(|wanted| wanted.history_days));
        let range = match (days, reader.latest_closed(*bar)?) {
            (Some(days), _) => Span::new(grid.floor((now - Millis::from(days) * DAY).max(0)), end),
            (None, newest) => {
                let stored = newest.map_or(oldest, |row| grid.bar_at(row.ts).end);
                Span::new(oldest, stored.min(end))
            }
        };
        match grid.count(range) {
            0 => Err(Failure::NoBars { series: asked.series.clone() }),
            _ => Ok(range),
        }
    }
}

/// What goes through the pages.
struct Round<'a> {
    work: &'a Work<'a>,
    series: &'a Series,
    reader: &'a Reader,
    inquirer: &'a mut Inquirer,
}

impl Round<'_> {
    /// Reads all pages, or as many as come.
    fn run(&mut self, scope: Scope) -> Result<Run, Failure> {
        let verification = Verification::new(scope);
        let mut run = Run { verification, answers: 0, trouble: None };
        let mut ticker = Ticker::new(self.work.screen);
        let started = self.inquirer.now().local;
        let result = self.read_all(&mut run, &mut ticker, started);
        ticker.finish(!self.work.goes_on());
        result.map(|()| run)
    }

    fn read_all(
        &mut self,
        run: &mut Run,
        ticker: &mut Ticker,
        started: Millis,
    ) -> Result<(), Failure> {
        let (series, per_minute) = (self.series, self.inquirer.per_minute(Endpoint::History));
        while let Some(question) = run.verification.next(self.inquirer.now()) {
            let path = okx::page_path(series, question.endpoint, question.ask);
            let watch = &mut |now: Now, wait: Option<(Millis, Hold)>| {
                let elapsed_ms = now.local - started;
                ticker.show(now.local, || working_line(series, run, elapsed_ms, per_minute, wait));
                self.work.goes_on()
            };
            let decode = |answer: &_| okx::decode_page(question.ask, answer);
            match self.inquirer.ask_watched(question.endpoint, &path, decode, watch) {
                Ok(page) => {
                    run.answers += 1;
                    for span in run.verification.hear(question, &page) {
                        let stored = self.stored(span)?;
                        run.verification.compare(span, &page.rows, &stored);
                    }
                }
                Err(trouble) => {
                    run.trouble = Some(failure(trouble));
                    break;
                }
            }
        }
        Ok(())
    }

    fn stored(&self, span: Span) -> Result<Vec<crate::candle::Candle>, StoreError> {
        let mut rows = Vec::new();
        self.reader.for_each(self.series.bar, span, true, |row| -> Result<(), StoreError> {
            rows.push(*row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Has ranges fetched again by whoever may write, and verifies them once more. Gives how many
    /// bars could still be healed, as far as that is known, and how it ended.
    fn repair(
        &mut self,
        ranges: &Spans,
        scope: &Scope,
        notes: &mut dyn Write,
    ) -> (Option<i64>, Result<Exit, Failure>) {
        let errand = Errand::Recheck(self.series, ranges);
        let exit = match sync::work(self.work.setup, errand, self.work.screen) {
            Ok(outcome) => sync::judge(&outcome, notes),
            Err(failure) => return (None, Err(failure)),
        };
        let scope = Scope { spans: ranges.clone(), share: Share::ALL, ..scope.clone() };
        match self.run(scope) {
            Ok(Run { verification, trouble: None, .. }) => {
                (Some(verification.tally().curable()), Ok(exit))
            }
            Ok(Run { trouble: Some(failure), .. }) | Err(failure) => (None, Err(failure)),
        }
    }
}

/// A verification under way, in less than 80 columns.
fn working_line(
    series: &Series,
    run: &Run,
    elapsed_ms: Millis,
    per_minute: f64,
    wait: Option<(Millis, Hold)>,
) -> String {
    let (tally, planned) = (run.verification.tally(), run.verification.planned());
    let known = tally.settled();
    let mut line =
        format!("{series}  {} {known} of {}", bar(known, planned), count(planned, "bar"));
    if tally.differing() > 0 {
        line += &format!(", {} differ", tally.differing());
    }
    if let Some((wait_ms, hold)) = wait.filter(|&(wait_ms, _)| wait_ms >= SECOND) {
        let what = match hold {
            Hold::Pause => "trying again",
            Hold::Budget | Hold::Confirm => "waiting for the rate limit",
        };
        return format!("{line}, {what} in {}", format_length(wait_ms / SECOND * SECOND));
    }
    if elapsed_ms < GUESS_MS || known == 0 {
        return line;
    }
    // The first pages come in a burst, so the permitted rate bounds what is promised.
    let share = known as f64 / planned as f64;
    let (pages, _) = run.verification.pages();
    let by_rate = pages as f64 * (1.0 - share) / per_minute * MINUTE as f64;
    let left_ms = (elapsed_ms as f64 * (1.0 - share) / share).max(by_rate) as Millis;
    format!("{line}, {} left", format_length((left_ms / SECOND).max(1) * SECOND))
}

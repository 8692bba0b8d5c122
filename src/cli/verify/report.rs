//! What a verification has found, for people and for scripts.

use std::io::{self, Write};

use serde::Serialize;

use crate::bar::Grid;
use crate::candle::Candle;
use crate::cli::outcome::{Failure, write_json};
use crate::cli::paint::{Paint, Tone};
use crate::cli::query::Row;
use crate::cli::table::{Align, Layout, count, short_time, write_wrapped};
use crate::cli::verify::{Run, Verify};
use crate::span::{Span, Spans};
use crate::survey::Range;
use crate::time::{Millis, format_time};
use crate::verification::{Different, Share, Tally};

/// Ranges, and bars with other values, that the tables show.
const SHOWN_MAX: usize = 20;
/// The names of a candle's values, in their order.
const VALUES: [&str; 7] = ["open", "high", "low", "close", "volume", "volume_ccy", "volume_quote"];

/// What became of healing.
pub(super) struct Cure {
    /// What was fetched again.
    pub ranges: Spans,
    /// Bars that could be healed still, if that could be verified.
    pub left: Option<i64>,
}

/// What a verification has found.
pub(super) struct Report<'a> {
    pub asked: &'a Verify,
    /// The exchange's time at the beginning.
    pub now: Millis,
    pub range: Span,
    pub grid: Grid,
    /// Whether all pages came.
    pub finished: bool,
    /// The oldest stored bar, where it lies before the range.
    pub older: Option<Millis>,
    pub found: &'a Run,
    pub cure: Option<Cure>,
}

impl Report<'_> {
    /// Whether the store is the exchange's equal now, as far as was looked.
    pub fn is_equal(&self) -> bool {
        self.finished && self.left() == 0
    }

    /// Bars that differ now.
    fn left(&self) -> i64 {
        let tally = self.tally();
        match self.cure {
            Some(Cure { left: Some(left), .. }) => tally.differing() - tally.curable() + left,
            _ => tally.differing(),
        }
    }

    fn tally(&self) -> Tally {
        self.found.verification.tally()
    }

    /// Writes it in the form that was asked for.
    pub fn tell(&self, paint: Paint, out: &mut dyn Write) -> Result<(), Failure> {
        if self.asked.json {
            return write_json(&self.form(), out);
        }
        writeln!(out, "{}", self.verdict(paint))?;
        self.write_ranges(out)?;
        self.write_values(out)?;
        write_wrapped(out, "", &self.compared())?;
        for (lead, told) in [("not compared: ", self.not_compared()), ("", self.cured())] {
            if !told.is_empty() {
                write_wrapped(out, lead, &told)?;
            }
        }
        Ok(())
    }

    fn verdict(&self, paint: Paint) -> String {
        let series = &self.asked.series;
        let bars = |bars| count(bars, "bar");
        let (tone, words) = match (self.tally().differing(), self.left()) {
            (0, _) if !self.finished => (Tone::Fair, "is not verified to its end".to_owned()),
            (0, _) => (Tone::Good, "equals the exchange".to_owned()),
            // The tables below show what was found, so this begins with it, too.
            (found, 0) => (
                Tone::Good,
                format!("differed from the exchange in {}, and equals it now", bars(found)),
            ),
            (found, left) if left < found => (
                Tone::Bad,
                format!("differed from the exchange in {}, and still does in {left}", bars(found)),
            ),
            (_, left) => (Tone::Bad, format!("differs from the exchange in {}", bars(left))),
        };
        format!("{}{series} {}", paint.mark(tone), paint.word(tone, &words))
    }

    fn write_ranges(&self, out: &mut dyn Write) -> io::Result<()> {
        let verification = &self.found.verification;
        let row = |kind: &'static str| {
            move |span: Span| {
                let bars = self.grid.count(span).to_string();
                vec![kind.to_owned(), short_time(span.start), short_time(span.end), bars]
            }
        };
        let missing = verification.missing().iter().map(row("missing"));
        let foreign = verification.foreign().iter().map(row("foreign"));
        let rows: Vec<Vec<String>> = missing.chain(foreign).collect();
        let columns = [
            ("range", Align::Left),
            ("from", Align::Left),
            ("to", Align::Left),
            ("bars", Align::Right),
        ];
        let shown = rows.len().min(SHOWN_MAX);
        write_table(&columns, &rows[..shown], rows.len() - shown, out)
    }

    fn write_values(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = [
            ("different", Align::Left),
            ("value", Align::Left),
            ("stored", Align::Point),
            ("exchange", Align::Point),
        ];
        let different = self.found.verification.different();
        let rows: Vec<Vec<String>> = different.iter().take(SHOWN_MAX).flat_map(cells).collect();
        write_table(&columns, &rows, different.len().saturating_sub(SHOWN_MAX), out)
    }

    /// What was compared, in numbers that add up.
    fn compared(&self) -> String {
        let tally = self.tally();
        let (planned, all) = self.found.verification.pages();
        let (planned, all) = (planned as i64, all as i64);
        let (from, to) = (short_time(self.range.start), short_time(self.range.end));
        let pages = match self.asked.sample {
            _ if !self.finished => format!("{} of {}", self.found.answers, count(planned, "page")),
            Share::ALL => count(all, "page"),
            share => format!("a sample of {share}%: {planned} of {}", count(all, "page")),
        };
        let parts = [
            (tally.equal, "equal"),
            (tally.missing, "missing"),
            (tally.different, "different"),
            (tally.foreign, "foreign"),
        ];
        let told: Vec<String> = parts
            .iter()
            .filter(|(bars, _)| *bars > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        let bars = count(tally.compared(), "bar");
        let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
        format!("compared {bars} from {from} to {to}, {pages}: {told}")
    }

    /// What was not compared, and why.
    fn not_compared(&self) -> String {
        let tally = self.tally();
        let parts = [
            (tally.absent, "that neither side has"),
            (tally.unconfirmed, "that the exchange has not closed yet"),
            (tally.fresh, "too young to be due in the store"),
            (tally.unread, "whose rows on the exchange cannot be read"),
            (self.unasked(), "whose page did not come"),
        ];
        let told = parts.iter().filter(|(bars, _)| *bars > 0);
        let mut told: Vec<String> =
            told.map(|(bars, why)| format!("{} {why}", count(*bars, "bar"))).collect();
        if let Some(oldest) = self.older {
            let oldest = short_time(oldest);
            told.push(format!("what is stored before, back to {oldest} (--days goes further)"));
        }
        told.join("; ")
    }

    fn unasked(&self) -> i64 {
        self.found.verification.planned() - self.tally().settled()
    }

    /// What was healed, or could be.
    fn cured(&self) -> String {
        let tally = self.tally();
        let curable = tally.curable();
        let foreign = match tally.foreign - tally.off_grid {
            0 => "",
            _ => "; what only the store has may have existed, and stays",
        };
        let moved = if tally.off_grid > 0 { ", rows off the grid into revisions" } else { "" };
        let series = &self.asked.series;
        match &self.cure {
            Some(Cure { left: Some(left), .. }) => {
                let (cured, bars) = (curable - left, count(curable, "bar"));
                format!("repaired {cured} of {bars}{moved}{foreign}")
            }
            Some(_) => "repaired, but not verified again".to_owned(),
            None if curable > 0 => {
                let (days, sample) = (self.asked.days, self.asked.sample);
                let days = days.map(|days| format!(" --days {days}")).unwrap_or_default();
                let part = sample != Share::ALL;
                let sample = if part { format!(" --sample {sample}") } else { String::new() };
                format!("heal it with: okx-store verify {series}{days}{sample} --repair")
            }
            None if self.asked.repair && tally.foreign > 0 => {
                format!("nothing to repair{foreign}")
            }
            None => String::new(),
        }
    }

    fn form(&self) -> Form {
        let (tally, verification) = (self.tally(), &self.found.verification);
        let ranges = |spans: &Spans| {
            spans.iter().map(|span| Range::new(self.grid, span)).collect::<Vec<_>>()
        };
        let count = |spans: &Spans| spans.iter().map(|span| self.grid.count(span)).sum::<i64>();
        let told = count(verification.missing())
            + count(verification.foreign())
            + verification.different().len() as i64;
        let (planned, all) = verification.pages();
        Form {
            symbol: self.asked.series.instrument.to_string(),
            timeframe: self.asked.series.bar.name(),
            now: self.now,
            now_datetime: format_time(self.now),
            range: Range::new(self.grid, self.range),
            sample: self.asked.sample.per_cent(),
            pages: Pages { in_range: all, planned, answered: self.found.answers },
            finished: self.finished,
            equal: self.is_equal(),
            bars: Bars {
                compared: tally.compared(),
                equal: tally.equal,
                missing: tally.missing,
                different: tally.different,
                foreign: tally.foreign,
                off_grid: tally.off_grid,
            },
            not_compared: NotCompared {
                absent: tally.absent,
                unconfirmed: tally.unconfirmed,
                fresh: tally.fresh,
                unread: tally.unread,
                unasked: self.unasked(),
                not_sampled: self.grid.count(self.range) - verification.planned(),
            },
            older_stored_from: self.older,
            missing_ranges: ranges(verification.missing()),
            foreign_ranges: ranges(verification.foreign()),
            different_bars: verification.different().iter().map(Pair::from).collect(),
            differences_left_out: tally.differing() - told,
            repair: self.cure.as_ref().map(|cure| Repair {
                ranges: ranges(&cure.ranges),
                repaired: cure.left.map(|left| tally.curable() - left),
                left: cure.left,
            }),
        }
    }
}

/// The lines of a bar with other values: one for each value that differs.
fn cells(different: &Different) -> Vec<Vec<String>> {
    let Different { stored, exchange } = different;
    let values = VALUES.iter().zip(stored.values().into_iter().zip(exchange.values()));
    let differing = values.filter(|(_, (stored, exchange))| stored != exchange);
    let line = |(n, (name, (stored, exchange))): (usize, (&&str, (f64, f64)))| {
        let bar = if n == 0 { short_time(different.stored.ts) } else { String::new() };
        vec![bar, (*name).to_owned(), stored.to_string(), exchange.to_string()]
    };
    differing.enumerate().map(line).collect()
}

/// Writes rows, and how many more there are; nothing where there are none.
fn write_table(
    columns: &[(&'static str, Align)],
    rows: &[Vec<String>],
    more: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    Layout::new("  ", columns).write(out, rows)?;
    match more {
        0 => Ok(()),
        more => writeln!(out, "  … and {more} more: --json shows them"),
    }
}

/// The report in JSON. These names are public.
#[derive(Debug, Serialize)]
struct Form {
    symbol: String,
    timeframe: &'static str,
    now: Millis,
    now_datetime: String,
    range: Range,
    /// Per cent of the pages.
    sample: f64,
    pages: Pages,
    finished: bool,
    equal: bool,
    bars: Bars,
    not_compared: NotCompared,
    older_stored_from: Option<Millis>,
    missing_ranges: Vec<Range>,
    foreign_ranges: Vec<Range>,
    different_bars: Vec<Pair>,
    /// Bars that differ, but are not named.
    differences_left_out: i64,
    repair: Option<Repair>,
}

#[derive(Debug, Serialize)]
struct Pages {
    in_range: u64,
    planned: u64,
    /// Those that were looked at twice count twice.
    answered: u64,
}

#[derive(Debug, Serialize)]
struct Bars {
    compared: i64,
    equal: i64,
    missing: i64,
    different: i64,
    foreign: i64,
    /// Those of the foreign ones that lie where no bar opens.
    off_grid: i64,
}

#[derive(Debug, Serialize)]
struct NotCompared {
    absent: i64,
    unconfirmed: i64,
    fresh: i64,
    unread: i64,
    unasked: i64,
    not_sampled: i64,
}

#[derive(Debug, Serialize)]
struct Pair {
    stored: Row,
    exchange: Row,
}

impl From<&Different> for Pair {
    fn from(different: &Different) -> Pair {
        let row = |candle: &Candle| Row::from(candle);
        Pair { stored: row(&different.stored), exchange: row(&different.exchange) }
    }
}

#[derive(Debug, Serialize)]
struct Repair {
    ranges: Vec<Range>,
    repaired: Option<i64>,
    left: Option<i64>,
}

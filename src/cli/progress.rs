//! How long work shows where it stands: moving lines on a terminal, plain lines in a pipe.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::table::count;
use crate::control::Hold;
use crate::time::{MINUTE, Millis, SECOND, format_length};
use crate::view::{LineView, View};

/// Series that are shown at once: the terminal is the user's, not ours.
const SHOWN_MAX: usize = 8;
/// How often a pipe gets a line.
const PLAIN_MS: Millis = 10 * SECOND;
/// Before this no rate is told: it would be a guess.
const SETTLED_MS: Millis = 2 * SECOND;
/// Rows that a page can bring.
const PAGE_ROWS: i64 = 300;

/// The screen below which progress moves. Log lines go through it, so that both stay whole.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    lines: MultiProgress,
}

impl Screen {
    /// Another line at the end, as wide as the screen.
    fn line(&self) -> ProgressBar {
        let bar = ProgressBar::no_length();
        bar.set_style(
            ProgressStyle::with_template("{wide_msg}")
                .expect("because the template is fixed and sound"),
        );
        self.lines.add(bar)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// One line that tells how far something is: it moves on a terminal, and comes now and then in a
/// pipe.
pub struct Ticker {
    line: Option<ProgressBar>,
    screen: Screen,
    next: Option<Millis>,
}

impl Ticker {
    /// A line on this screen, if it is one.
    pub fn new(screen: &Screen) -> Ticker {
        let line = io::stderr().is_terminal().then(|| screen.line());
        Ticker { line, screen: screen.clone(), next: None }
    }

    /// Shows where things stand at `now`, local time. To be called often.
    pub fn show(&mut self, now: Millis, text: impl FnOnce() -> String) {
        if let Some(line) = &self.line {
            line.set_message(text());
        } else if now >= *self.next.get_or_insert(now + PLAIN_MS) {
            self.next = Some(now + PLAIN_MS);
            let _ = writeln!(io::stderr(), "{}", text());
        }
    }

    /// Takes the line away; not where a terminal shows `^C`, which has moved it.
    pub fn finish(self, stopped: bool) {
        match self.line {
            Some(_) if stopped => {
                self.screen.lines.set_draw_target(ProgressDrawTarget::hidden());
                let _ = writeln!(io::stderr());
            }
            Some(line) => line.finish_and_clear(),
            None => {}
        }
    }
}

/// The progress of one run.
pub struct Progress {
    face: Face,
    started: Option<Millis>,
    told: BTreeSet<usize>,
    /// What was in the way when that was told last.
    trouble: Option<String>,
    stopping: bool,
}

enum Face {
    Terminal { screen: Screen, shown: Vec<ProgressBar>, total: ProgressBar },
    Pipe { next: Millis },
}

/// Where a run stands, over all series.
struct Sum {
    effort: Effort,
    wait: Option<(Millis, Hold)>,
}

/// What work has come to and what is left of it, for one series or for all: both are reckoned in
/// the same way, from this work alone, whatever else a daemon fetches beside it.
#[derive(Clone, Copy, Default)]
struct Effort {
    elapsed_ms: Millis,
    rows: u64,
    missing: i64,
    pages_left: i64,
    pages_per_minute: f64,
}

impl Effort {
    fn of(line: &LineView, view: &View, elapsed_ms: Millis) -> Effort {
        let missing = if line.error.is_none() { line.tally.missing } else { 0 };
        let pages_left = (missing + PAGE_ROWS - 1) / PAGE_ROWS;
        let pages_per_minute = view.pages_per_minute;
        Effort { elapsed_ms, rows: line.closed, missing, pages_left, pages_per_minute }
    }

    fn add(&mut self, other: Effort) {
        let rows = self.rows + other.rows;
        let missing = self.missing + other.missing;
        *self = Effort { rows, missing, pages_left: self.pages_left + other.pages_left, ..other };
    }

    /// Rows that come in a second, once that is more than a guess.
    fn per_second(self) -> Option<f64> {
        let seconds = self.elapsed_ms as f64 / SECOND as f64;
        (self.elapsed_ms >= SETTLED_MS).then(|| self.rows as f64 / seconds)
    }

    /// How long the rest takes at that rate. A run that has just begun spends its budget in a
    /// burst, so the permitted rate bounds what is promised.
    fn left_ms(self) -> Option<Millis> {
        let per_second = self.per_second().filter(|&per_second| per_second > 0.0)?;
        let by_rows = self.missing as f64 / per_second * SECOND as f64;
        let permitted = self.pages_per_minute / MINUTE as f64;
        let by_pages = if permitted > 0.0 { self.pages_left as f64 / permitted } else { 0.0 };
        (self.missing > 0).then(|| by_rows.max(by_pages) as Millis)
    }
}

fn left(left_ms: Millis) -> String {
    format!("{} left", format_length((left_ms / SECOND).max(1) * SECOND))
}

impl Progress {
    /// Progress on this screen if it is one, else as plain lines.
    pub fn new(screen: &Screen) -> Progress {
        let face = if io::stderr().is_terminal() {
            let shown = Vec::new();
            Face::Terminal { screen: screen.clone(), shown, total: screen.line() }
        } else {
            Face::Pipe { next: 0 }
        };
        Progress { face, started: None, told: BTreeSet::new(), trouble: None, stopping: false }
    }

    /// Shows where things stand at `now`, local time. To be called often; it decides what is worth
    /// showing.
    pub fn watch(&mut self, view: &View, now: Millis) {
        let elapsed_ms = now - *self.started.get_or_insert(now);
        if view.stopped {
            return self.stop();
        }
        let mut told = self.newly_finished(view);
        told.extend(self.new_trouble(view));
        let sum = Sum::of(view, elapsed_ms);
        match &mut self.face {
            Face::Terminal { screen, shown, total } => {
                for line in told {
                    let _ = screen.lines.println(line);
                }
                let open = || view.lines.iter().filter(|line| !line.done);
                let working: Vec<String> =
                    open().take(SHOWN_MAX).map(|line| sum.working_line(line, view)).collect();
                let more = open().count() - working.len();
                while shown.len() < working.len() {
                    let bar = ProgressBar::no_length().with_style(total.style());
                    shown.push(screen.lines.insert(shown.len(), bar));
                }
                for surplus in shown.drain(working.len()..) {
                    screen.lines.remove(&surplus);
                }
                for (bar, text) in shown.iter().zip(working) {
                    bar.set_message(text);
                }
                total.set_message(match more {
                    0 => sum.text(),
                    _ => format!("{more} more series; {}", sum.text()),
                });
            }
            Face::Pipe { next } => {
                let mut stderr = io::stderr().lock();
                for line in told {
                    let _ = writeln!(stderr, "{line}");
                }
                if *next == 0 {
                    *next = now + PLAIN_MS;
                } else if now >= *next && !view.finished {
                    *next = now + PLAIN_MS;
                    let _ = writeln!(stderr, "{}", sum.text());
                }
            }
        }
    }

    /// The lines stand still from here on: a terminal that shows `^C` has moved them, so that they
    /// cannot be taken away cleanly any more.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            if let Face::Terminal { screen, .. } = &self.face {
                screen.lines.set_draw_target(ProgressDrawTarget::hidden());
            }
            let _ = writeln!(io::stderr(), "\nstopping: what is under way is stored first");
        }
    }

    /// Takes the moving lines away.
    pub fn finish(self) {
        if let Face::Terminal { screen, .. } = self.face {
            let _ = screen.lines.clear();
        }
    }

    /// A line for what is in the way, where that is another than before.
    fn new_trouble(&mut self, view: &View) -> Option<String> {
        let changed = view.trouble != self.trouble && !view.finished;
        self.trouble.clone_from(&view.trouble);
        view.trouble.as_ref().filter(|_| changed).map(|trouble| format!("waiting: {trouble}"))
    }

    /// A line for each series that has ended since the last time.
    fn newly_finished(&mut self, view: &View) -> Vec<String> {
        let ended = view.lines.iter().enumerate().filter(|(_, line)| line.done);
        let new: Vec<_> = ended.filter(|(n, _)| !self.told.contains(n)).collect();
        self.told.extend(new.iter().map(|(n, _)| *n));
        // What failed is told at the end, once.
        let done = new.into_iter().filter(|(_, line)| line.error.is_none());
        done.map(|(_, line)| finished_line(line)).collect()
    }
}

/// How much of a whole there is, in sixteen columns.
pub(crate) fn bar(part: i64, whole: i64) -> String {
    const WIDTH: i64 = 16;
    let share = if whole > 0 { part * WIDTH / whole } else { 0 };
    let share = share.clamp(0, WIDTH) as usize;
    "█".repeat(share) + &"░".repeat(WIDTH as usize - share)
}

fn finished_line(line: &LineView) -> String {
    let rows = count(line.closed as i64, "new bar");
    format!("{:<22} complete, {rows}", line.series.to_string()) + &remarks(line)
}

/// What is worth knowing of a complete series, if anything is.
pub fn remarks(line: &LineView) -> String {
    let tally = line.tally;
    let told = [
        (line.revised as i64, "revised"),
        (tally.suspected_empty, "suspected empty"),
        (tally.known_empty, "known empty"),
        (tally.before_history, "before its history"),
        (line.unconfirmed as i64, "without a confirm yet"),
    ];
    let told = told.iter().filter(|(bars, _)| *bars > 0);
    told.map(|(bars, what)| format!(", {bars} {what}")).collect()
}

impl Sum {
    fn of(view: &View, elapsed_ms: Millis) -> Sum {
        let mut effort = Effort { elapsed_ms, ..Effort::default() };
        view.lines.iter().for_each(|line| effort.add(Effort::of(line, view, elapsed_ms)));
        // Shorter waits are no news.
        let wait = view.wait.filter(|&(wait_ms, _)| wait_ms >= SECOND);
        Sum { effort, wait }
    }

    /// A series under way, in less than 80 columns: how much is known of what is wanted, how fast
    /// more of it comes, and how long the rest takes at that rate: no longer than all together,
    /// for the series that end before it leave it their share.
    fn working_line(&self, line: &LineView, view: &View) -> String {
        let tally = line.tally;
        let known = tally.wanted - tally.missing;
        let bar = bar(known, tally.wanted);
        let shown = format!("{:<22} {bar} {known} of {}", line.series.to_string(), tally.wanted);
        let effort = Effort::of(line, view, self.effort.elapsed_ms);
        let left_ms = effort.left_ms().zip(self.effort.left_ms()).map(|(own, all)| own.min(all));
        match effort.per_second().zip(left_ms) {
            Some((per_second, left_ms)) => format!("{shown}, {per_second:.0}/s, {}", left(left_ms)),
            None => shown,
        }
    }

    fn text(&self) -> String {
        let rows = count(self.effort.rows as i64, "bar");
        let missing = count(self.effort.missing, "bar");
        if let Some((wait_ms, hold)) = self.wait {
            let what = match hold {
                Hold::Budget => "waiting for the rate limit",
                Hold::Pause => "trying again",
                Hold::Confirm => "looking for a confirm",
            };
            let wait = format_length(wait_ms / SECOND * SECOND);
            return format!("{rows} stored, {missing} missing, {what} in {wait}");
        }
        let rate = self.effort.per_second().map(|rate| format!(", {rate:.0} bars/s"));
        let left = self.effort.left_ms().map(|left_ms| format!(", {}", left(left_ms)));
        format!(
            "{rows} stored, {missing} missing{}{}",
            rate.unwrap_or_default(),
            left.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::sample;

    /// Two series of which one comes fast, after a minute of work.
    fn view() -> View {
        let mut view = sample();
        view.wait = None;
        for (line, (closed, missing)) in view.lines.iter_mut().zip([(36_000, 72_000), (60, 9_000)])
        {
            (line.error, line.done, line.closed) = (None, false, closed);
            (line.tally.wanted, line.tally.missing) = (100_000, missing);
        }
        view
    }

    fn shown(view: &View, elapsed_ms: Millis) -> Vec<String> {
        let sum = Sum::of(view, elapsed_ms);
        let lines = view.lines.iter().map(|line| sum.working_line(line, view));
        lines.chain([sum.text()]).collect()
    }

    #[test]
    fn a_series_alone_takes_as_long_as_all_whatever_else_a_daemon_fetches() {
        let mut view = view();
        view.lines.truncate(1);
        for pages in [0, 120, 100_000] {
            view.pages = pages;
            let [line, sum] = &shown(&view, MINUTE)[..] else { panic!("two lines") };
            assert!(line.ends_with("28000 of 100000, 600/s, 2m left"), "{line}");
            assert_eq!(sum, "36000 bars stored, 72000 bars missing, 600 bars/s, 2m left");
        }
        // Only so many pages are permitted, however fast the first ones came.
        view.pages_per_minute = 60.0;
        let promised: Vec<bool> =
            shown(&view, MINUTE).iter().map(|text| text.ends_with(" 4m left")).collect();
        assert_eq!(promised, [true, true]);
    }

    #[test]
    fn no_series_takes_longer_than_all_together() {
        let [fast, slow, sum] = &shown(&view(), MINUTE)[..] else { panic!("three lines") };
        assert!(fast.ends_with(", 600/s, 2m left"), "{fast}");
        assert!(slow.ends_with(", 1/s, 2m 14s left"), "{slow}");
        assert_eq!(sum, "36060 bars stored, 81000 bars missing, 601 bars/s, 2m 14s left");
        let early = shown(&view(), SETTLED_MS - 1);
        assert!(early.iter().all(|text| !text.contains("left")), "{early:?}");
    }
}

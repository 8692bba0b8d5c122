//! What is due when, that nothing is lost, and that no more is committed than need be.

use proptest::prelude::*;

use super::*;
use crate::store::sample::candle;
use crate::time::MINUTE;

const INTERVAL: Millis = 100;

fn instrument(number: usize) -> Instrument {
    ["A-USDT", "B-USDT", "C-USDT"][number].parse().unwrap()
}

fn series(number: usize, bar: &str) -> Series {
    Series { instrument: instrument(number), bar: bar.parse().unwrap() }
}

/// A queue of pages that are mere numbers.
struct Bench {
    queue: Queue<u64>,
}

impl Bench {
    fn new() -> Bench {
        Bench { queue: Queue::new(INTERVAL) }
    }

    fn running(&mut self, number: usize, arrived: Millis) {
        let rows = vec![candle(0, 1.0, false)];
        self.queue.push(&series(number, "1m"), rows, Vec::new(), arrived, arrived);
    }

    fn closed(&mut self, number: usize, minute: i64, arrived: Millis) {
        let rows = vec![candle(minute * MINUTE, 1.0, true)];
        self.queue.push(&series(number, "1m"), rows, Vec::new(), arrived, arrived);
    }

    fn page(&mut self, number: usize, rows: usize, page: u64) {
        self.queue.store(&instrument(number), rows, page);
    }

    /// What comes out next: the file, its pages, and its pushed rows.
    fn next(&mut self, now: Millis) -> Option<(String, Vec<u64>, usize)> {
        self.queue.next(now).map(|work| told(&work))
    }
}

fn told(work: &Work<u64>) -> (String, Vec<u64>, usize) {
    let rows = work.pushes.iter().map(|heard| heard.page().rows.len()).sum();
    (work.instrument.to_string(), work.pages().copied().collect(), rows)
}

fn out(name: &str, pages: &[u64], rows: usize) -> Option<(String, Vec<u64>, usize)> {
    Some((name.to_owned(), pages.to_vec(), rows))
}

#[test]
fn running_bars_wait_a_moment_and_then_for_the_interval() {
    let mut bench = Bench::new();
    assert_eq!((bench.queue.deadline(), bench.next(0)), (None, None));
    bench.running(0, 1_000);
    bench.running(0, 1_004);
    assert_eq!(bench.queue.deadline(), Some(1_005));
    assert_eq!(bench.next(1_004), None);
    assert_eq!(bench.next(1_005), out("A-USDT", &[], 1));
    for (name, arrived, due) in [
        ("soon after a commit", 1_010, 1_105),
        ("just within the interval", 1_204, 1_209),
        ("on a quiet file", 5_000, 5_005),
    ] {
        bench.running(0, arrived);
        assert_eq!(bench.queue.deadline(), Some(due), "{name}");
        assert_eq!(bench.next(due - 1), None, "{name}");
        assert_eq!(bench.next(due), out("A-USDT", &[], 1), "{name}");
    }
    assert!(bench.queue.is_empty());
}

#[test]
fn pages_and_closed_bars_go_first_in_the_order_in_which_they_came() {
    let mut bench = Bench::new();
    bench.running(0, 0);
    bench.closed(2, 1, 500);
    bench.page(1, 300, 7);
    bench.running(1, 500);
    assert_eq!(bench.next(500), out("C-USDT", &[], 1));
    assert_eq!(bench.next(500), out("B-USDT", &[7], 1), "the running bar rides along");
    assert_eq!(bench.next(500), out("A-USDT", &[], 1));
    assert_eq!(bench.next(500), None);
}

#[test]
fn one_commit_has_only_so_many_rows() {
    let mut bench = Bench::new();
    for page in 0..12 {
        bench.page(0, 300, page);
    }
    bench.closed(0, 1, 0);
    bench.page(1, 4_000, 50);
    bench.page(1, 0, 51);
    assert_eq!(bench.queue.rows(), 3_600 + 1 + 4_000 + 1);
    assert_eq!(bench.next(0), out("A-USDT", &[0, 1, 2, 3, 4, 5, 6, 7, 8], 1));
    assert_eq!(bench.next(0), out("A-USDT", &[9, 10, 11], 0), "they came before the others");
    assert_eq!(bench.next(0), out("B-USDT", &[50], 0), "a page is never divided");
    assert_eq!(bench.next(0), out("B-USDT", &[51], 0));
    assert_eq!((bench.queue.rows(), bench.queue.is_empty()), (0, true));
}

#[test]
fn of_a_running_bar_only_the_state_that_wins_takes_room() {
    let mut bench = Bench::new();
    let states = [(5.0, 1.0), (7.0, 2.0), (6.0, 3.0), (7.0, 4.0)];
    for (n, (volume, close)) in states.into_iter().enumerate() {
        let state = Candle { volume, ..candle(0, close, false) };
        let arrived = 10 + n as i64;
        bench.queue.push(&series(0, "1H"), vec![state], Vec::new(), arrived, arrived + 1_000);
    }
    assert_eq!(bench.queue.rows(), 1);
    let work = bench.queue.next(15).unwrap();
    let heard = &work.pushes[0];
    assert_eq!(heard.page().rows[0].close, 4.0);
    assert_eq!((heard.states, heard.at, heard.wait_ms(20)), (4, 1_013, 10));
    assert_eq!(heard.closed_wait_ms(20), None);
}

#[test]
fn rows_that_are_no_candles_are_told_of_with_the_others() {
    let mut bench = Bench::new();
    let refused = vec![Refused { ts: Some(1), why: "NaN".into() }];
    bench.queue.push(&series(0, "1m"), Vec::new(), refused, 0, 0);
    bench.queue.push(&series(0, "1m"), Vec::new(), Vec::new(), 0, 0);
    assert_eq!(bench.queue.rows(), 1);
    let work = bench.queue.next(SETTLE_MS).unwrap();
    assert_eq!((work.pushes[0].page().refused.len(), work.pushes[0].states), (1, 0));
}

#[test]
fn what_could_not_be_committed_comes_again_whole_and_in_order() {
    let mut bench = Bench::new();
    bench.page(0, 1, 1);
    bench.page(0, 1, 2);
    bench.closed(0, 1, 50);
    bench.running(0, 60);
    let mut now = 100;
    for (failure, pause_ms) in [1_000, 2_000, 4_000, 5_000, 5_000].into_iter().enumerate() {
        let work = bench.queue.next(now).unwrap();
        assert_eq!(told(&work), out("A-USDT", &[1, 2], 2).unwrap(), "failure {failure}");
        assert_eq!(work.failing_ms(now), now - 100);
        bench.queue.put_back(now, work, 5_000);
        assert_eq!(bench.queue.deadline(), Some(now + pause_ms), "failure {failure}");
        assert_eq!(bench.next(now + pause_ms - 1), None);
        now += pause_ms;
    }
    bench.page(0, 1, 3);
    bench.closed(0, 2, 9_000);
    bench.running(0, 9_000);
    bench.closed(1, 1, 9_000);
    assert_eq!(bench.next(now).unwrap().0, "B-USDT", "others go before a file that fails");
    let work = bench.queue.next(now).unwrap();
    assert_eq!(told(&work), out("A-USDT", &[1, 2, 3], 3).unwrap());
    let heard = &work.pushes[0];
    let times = heard.page().rows.iter().map(|row| row.ts / MINUTE).collect::<Vec<_>>();
    assert_eq!((times, heard.states), (vec![0, 1, 2], 4));
    assert_eq!((heard.wait_ms(9_000), heard.closed_wait_ms(9_000)), (8_950, Some(8_950)));
    bench.closed(0, 3, 20_000);
    assert_eq!(bench.next(20_000), out("A-USDT", &[], 1), "a success ends the pauses");
}

#[test]
fn a_file_that_is_removed_takes_along_what_waited_for_it() {
    let mut bench = Bench::new();
    bench.page(0, 2, 1);
    bench.closed(0, 1, 0);
    bench.closed(1, 1, 0);
    let work = bench.queue.remove(&instrument(0)).unwrap();
    assert_eq!(told(&work), out("A-USDT", &[1], 1).unwrap());
    assert!(bench.queue.remove(&instrument(0)).is_none());
    assert_eq!(bench.queue.rows(), 1);
    assert_eq!(bench.next(0), out("B-USDT", &[], 1));
    assert!(bench.queue.remove(&instrument(1)).is_none(), "nothing waits for it");
}

#[derive(Clone, Debug)]
enum Step {
    Running { file: usize, bar: usize, minute: i64, volume: i64 },
    Closed { file: usize, bar: usize, minute: i64 },
    Page { file: usize, rows: usize },
    Pass(Millis),
    Fail,
}

const BARS: [&str; 2] = ["1m", "1H"];

fn step() -> impl Strategy<Value = Step> {
    let place = (0..3usize, 0..2usize, 0..3i64);
    prop_oneof![
        6 => (place.clone(), 0..9i64).prop_map(|((file, bar, minute), volume)| {
            Step::Running { file, bar, minute, volume }
        }),
        2 => place.prop_map(|(file, bar, minute)| Step::Closed { file, bar, minute }),
        1 => (0..3usize, 0..2_000usize).prop_map(|(file, rows)| Step::Page { file, rows }),
        8 => (1..120i64).prop_map(Step::Pass),
        1 => Just(Step::Fail),
    ]
}

/// What went into the queue and what came out, with the store that each of the two would make.
#[derive(Default)]
struct Ledger {
    pages: BTreeMap<Instrument, Vec<u64>>,
    closed: BTreeMap<(Series, Millis), Vec<f64>>,
    store: BTreeMap<(Series, Millis), State>,
}

impl Ledger {
    fn hear(&mut self, series: &Series, candle: Candle, at: Millis) {
        let key = (series.clone(), candle.ts);
        if candle.confirmed {
            self.closed.entry(key.clone()).or_default().push(candle.close);
        }
        let heard = State { candle, source: Source::Stream, updated_at: at };
        if self.store.get(&key).is_none_or(|known| known.hear(&heard) != Verdict::Keep) {
            self.store.insert(key, heard);
        }
    }

    fn take(&mut self, work: &Work<u64>) {
        let pages = self.pages.entry(work.instrument.clone()).or_default();
        pages.extend(work.pages());
        for heard in &work.pushes {
            let series = Series { instrument: work.instrument.clone(), bar: heard.bar };
            for candle in heard.closed.iter().chain(heard.running.values().map(|s| &s.candle)) {
                self.hear(&series, *candle, heard.at);
            }
        }
    }

    /// The values that are stored in the end.
    fn values(&self) -> BTreeMap<&(Series, Millis), Candle> {
        self.store.iter().map(|(key, state)| (key, state.candle)).collect()
    }
}

/// Drives a queue through time as the writer does, and holds it to its promises.
struct Drive {
    queue: Queue<u64>,
    now: Millis,
    told: Ledger,
    heard: Ledger,
    count: u64,
    /// Of each file, when running bars alone were last due.
    alone: BTreeMap<Instrument, Millis>,
    failed: bool,
}

impl Drive {
    fn take_in(&mut self, step: &Step) {
        self.count += 1;
        let (series, state) = match *step {
            Step::Running { file, bar, minute, volume } => {
                let state = candle(minute * MINUTE, self.count as f64, false);
                (series(file, BARS[bar]), Candle { volume: volume as f64, ..state })
            }
            Step::Closed { file, bar, minute } => {
                let state = candle(minute * MINUTE, self.count as f64, true);
                (series(file, BARS[bar]), state)
            }
            Step::Page { file, rows } => {
                self.told.pages.entry(instrument(file)).or_default().push(self.count);
                return self.queue.store(&instrument(file), rows, self.count);
            }
            Step::Pass(_) | Step::Fail => return,
        };
        self.told.hear(&series, state, self.now);
        self.queue.push(&series, vec![state], Vec::new(), self.now, self.now);
    }

    /// Commits what is due at this moment.
    fn commit(&mut self) {
        while let Some(work) = self.queue.next(self.now) {
            assert!(work.pages.len() <= 1 || work.rows() <= ROWS_MAX);
            let urgent = !work.pages.is_empty() || work.pushes.iter().any(|h| h.order.is_some());
            if !urgent {
                let last = self.alone.insert(work.instrument.clone(), self.now);
                assert!(last.is_none_or(|last| self.now >= last + INTERVAL), "two in an interval");
            }
            for heard in work.pushes.iter().filter(|_| !self.failed) {
                let closed = heard.closed_wait_ms(self.now);
                assert!(closed.is_none_or(|wait| wait == 0), "{work:?} at {}", self.now);
                let wait = heard.wait_ms(self.now);
                assert!(wait <= INTERVAL + SETTLE_MS, "{work:?} at {}", self.now);
            }
            self.heard.take(&work);
        }
        assert!(self.queue.deadline().is_none_or(|due| due > self.now));
        assert_eq!(self.queue.is_empty(), self.queue.rows() == 0);
    }
}

proptest! {
    /// Whatever comes when, and whatever fails: every page and every closed bar comes out, once
    /// and in order, running bars end in the state that wins, and all of it in time.
    #[test]
    fn nothing_is_lost_late_or_out_of_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut drive = Drive {
            queue: Queue::new(INTERVAL),
            now: 0,
            told: Ledger::default(),
            heard: Ledger::default(),
            count: 0,
            alone: BTreeMap::new(),
            failed: false,
        };
        for step in steps.iter().chain([&Step::Pass(100_000)]) {
            match step {
                Step::Pass(length_ms) => {
                    let end = drive.now + length_ms;
                    drive.commit();
                    while let Some(due) = drive.queue.deadline().filter(|&due| due <= end) {
                        drive.now = drive.now.max(due);
                        drive.commit();
                    }
                    drive.now = end;
                }
                Step::Fail => {
                    if let Some(work) = drive.queue.next(drive.now) {
                        drive.failed = true;
                        drive.queue.put_back(drive.now, work, 4_000);
                    }
                }
                other => drive.take_in(other),
            }
        }
        prop_assert!(drive.queue.is_empty());
        drive.heard.pages.retain(|_, pages| !pages.is_empty());
        prop_assert_eq!(&drive.told.pages, &drive.heard.pages);
        prop_assert_eq!(&drive.told.closed, &drive.heard.closed);
        prop_assert_eq!(drive.told.values(), drive.heard.values());
    }
}

#[test]
fn a_file_fails_alone_while_others_take_commits() {
    let mut bench = Bench::new();
    bench.page(0, 1, 1);
    let cases = [
        ("for the first time", 0, Some(-1), None, false),
        ("when nothing was committed since", 10, Some(0), None, false),
        ("when another file took a commit", 20, Some(15), Some(0), true),
        ("again", 30, Some(29), Some(10), true),
        ("when the others fail, too", 40, Some(29), None, true),
        ("when they go on", 50, Some(49), Some(30), true),
    ];
    for (name, second, others_at, alone, has) in cases {
        let now = second * SECOND;
        let mut work = bench.queue.next(now).expect(name);
        let others_at = others_at.map(|at: Millis| at * SECOND);
        let alone_ms = alone.map(|seconds: Millis| seconds * SECOND);
        assert_eq!(work.fails_alone_ms(now, others_at), alone_ms, "{name}");
        assert_eq!(work.has_failed_alone(), has, "{name}");
        bench.queue.put_back(now, work, 8 * SECOND);
    }
    // A commit ends it.
    drop(bench.queue.next(60 * SECOND));
    bench.page(0, 1, 2);
    let mut work = bench.queue.next(60 * SECOND).unwrap();
    assert_eq!(work.fails_alone_ms(60 * SECOND, Some(60 * SECOND)), None);
}

//! Runs by the hundred, and what becomes of a seed that fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use okx_local_store::candle::Candle;
use okx_local_store::store::Identity;
use okx_local_store::store::files::Files;
use okx_local_store::store::query::Selection;
use okx_local_store::store::read::Reader;
use okx_local_store::time::format_length;

use crate::judge::DRAWN;
use crate::stage::Trace;
use crate::weather::{Deed, REST_FAULTS, Weather, kinds};
use crate::world::{Outcome, World};

/// The runs of `make test`: the seeds from 1 on.
const RUNS: u64 = 300;
/// So many failures are enough to look at.
const FAILURES_MAX: u64 = 20;

thread_local! {
    /// What the last panic of this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One run, whatever comes of it.
pub fn run(seed: u64, trace: Trace) -> Result<Outcome, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_a_run = thread::current().name() == Some(NAME);
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
            let words = text.unwrap_or("it panicked");
            SAID.with_borrow_mut(|said| *said = format!("{words} ({place})"));
            if !of_a_run {
                loud(info);
            }
        }));
    });
    let run = AssertUnwindSafe(|| World::new(seed, trace).run());
    panic::catch_unwind(run).map_err(|_| SAID.take())
}

/// The name of the threads that make runs.
const NAME: &str = "run";

/// Makes a run for each seed, as many at a time as there are processors; gives the failures, and
/// what there was to be seen.
fn run_all(seeds: &[u64], failures_max: u64) -> (Vec<(u64, String)>, BTreeSet<String>) {
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let (events, requests) = (AtomicU64::new(0), AtomicU64::new(0));
    let (healed_ms, seen) = (AtomicI64::new(0), Mutex::new(BTreeSet::new()));
    let work = || loop {
        let place = next.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(&seed) = seeds.get(place) else { return };
        match run(seed, Trace::default()) {
            Ok(outcome) => {
                events.fetch_add(outcome.events, Ordering::Relaxed);
                requests.fetch_add(outcome.requests, Ordering::Relaxed);
                healed_ms.fetch_max(outcome.healed_ms, Ordering::Relaxed);
                seen.lock().unwrap().extend(outcome.seen);
            }
            Err(why) => {
                eprintln!("seed {seed}: {why}");
                let mut failures = failures.lock().unwrap();
                failures.push((seed, why));
                if failures.len() as u64 >= failures_max {
                    next.store(seeds.len() as u64, Ordering::Relaxed);
                }
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            thread::Builder::new().name(NAME.to_owned()).spawn_scoped(scope, work).unwrap();
        }
    });
    let (events, requests) = (events.into_inner(), requests.into_inner());
    let healed = format_length(healed_ms.into_inner());
    let runs = seeds.len();
    println!("{runs} runs, {events} events, {requests} requests; the slowest healed in {healed}");
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    (failures, seen.into_inner().unwrap())
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

/// Runs whose seeds were worth keeping, with a word on each.
fn kept() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn the_store_becomes_equal_to_the_exchange_whatever_happens() {
    if let Some(seed) = number("OKX_STORE_SEED") {
        let outcome = run(seed, Trace { shown: true, ..Trace::default() });
        println!("{outcome:?}");
        assert!(outcome.is_ok(), "seed {seed} fails: {outcome:?}");
        return;
    }
    let first = number("OKX_STORE_FROM").unwrap_or(1);
    let runs = number("OKX_STORE_RUNS").unwrap_or(RUNS);
    let mut seeds = kept();
    seeds.extend(first..first + runs);
    let failures_max = number("OKX_STORE_FAILURES").unwrap_or(FAILURES_MAX);
    let (failures, seen) = run_all(&seeds, failures_max);
    let told: Vec<String> = failures
        .iter()
        .map(|(seed, why)| format!("seed {seed}, see it by make sim SEED={seed}: {why}"))
        .collect();
    let count = seeds.len();
    assert!(told.is_empty(), "{} of {count} runs fail:\n{}", told.len(), told.join("\n"));
    if runs >= RUNS {
        assert_all_seen(&seen);
    }
}

/// Fails unless the runs had everything in them: what never happens proves nothing.
fn assert_all_seen(seen: &BTreeSet<String>) {
    let faults = REST_FAULTS.iter().map(|fault| format!("{fault:?}"));
    let changes = DRAWN.iter().map(|change| format!("{change:?}"));
    let all = kinds().into_iter().chain(faults).chain(changes);
    let missed: Vec<String> = all.filter(|kind| !seen.contains(kind)).collect();
    assert!(missed.is_empty(), "in none of the runs there was {missed:?}");
}

/// A seed that fails is worth nothing if it does not fail again.
#[test]
fn a_seed_decides_all_that_happens() {
    for seed in 1..=5 {
        let hash = || run(seed, Trace { hashed: true, ..Trace::default() }).unwrap().hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

/// The model of the store is no easier to please than the store: all commits of some runs, made
/// again with files, have the same receipts and leave the same behind.
#[test]
fn the_model_of_the_store_keeps_what_files_keep() {
    // What other hands delete, they would have to delete in the files as well.
    let tampers = |seed: &u64| {
        let deeds = Weather::of(*seed).deeds;
        deeds.iter().any(|(_, deed)| matches!(deed, Deed::Tamper(_)))
    };
    for seed in (1..).filter(|seed| !tampers(seed)).take(12) {
        let mut world = World::new(seed, Trace::default());
        world.store.commits = Some(Vec::new());
        world.run();
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { venue: "okx", region: "global".into(), demo: false };
        let mut files = Files::new(dir.path(), identity.clone());
        for commit in world.store.commits.take().unwrap() {
            let stored = files.commit(&commit.instrument, &commit.entries, 0).unwrap();
            assert_eq!(stored, commit.stored, "seed {seed}: {}", commit.instrument);
        }
        for (series, table) in &world.store.tables {
            let path = files.path(&series.instrument);
            let reader = Reader::open(&path, &identity).unwrap();
            let coverage = reader.coverage(series.bar).unwrap();
            assert_eq!(coverage, table.coverage, "seed {seed}: {series}");
            let rows = reader.candles(series.bar, Selection::default()).unwrap();
            let kept: Vec<Candle> = table.rows.values().map(|state| state.candle).collect();
            assert_eq!(rows, kept, "seed {seed}: {series}");
        }
    }
}

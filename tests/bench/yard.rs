//! Where it is measured: a folder that goes with the run, and the stores in it.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use okx_local_store::bar::Bar;
use okx_local_store::candle::Candle;
use okx_local_store::instrument::{Instrument, Series};
use okx_local_store::okx::PAGE_ROWS_MAX;
use okx_local_store::page::{Ask, Page};
use okx_local_store::span::Span;
use okx_local_store::store::Identity;
use okx_local_store::store::file::{Entry, File};
use okx_local_store::store::files::Files;
use okx_local_store::store::order::{Batch, Order};
use okx_local_store::time::{Clock, DAY};
use okx_local_store::writer::{Receipt, Writer};
use tempfile::TempDir;

use crate::candles::minutes;

/// Orders that may wait for the writer, as in the program.
const ORDERS: usize = 64;
/// Receipts that may wait for whoever hears them, as in the program.
const RECEIPTS: usize = 256;
/// Pages that are committed together at most, as in the program.
const PAGES: usize = 10;
/// What the large store holds.
pub const MILLION: usize = 1_000_000;

/// The folder of a run.
pub struct Yard {
    dir: TempDir,
    million: OnceCell<PathBuf>,
}

impl Yard {
    pub fn new() -> Yard {
        let dir = tempfile::tempdir().expect("because there is a folder for temporary files");
        Yard { dir, million: OnceCell::new() }
    }

    /// A folder for one thing, empty.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The folder of a store with a million minutes of BTC-USDT, written by the writer.
    pub fn million(&self) -> &Path {
        self.million.get_or_init(|| {
            let home = self.folder("million");
            fs::create_dir(home.join("data")).unwrap();
            fs::write(home.join("config.json"), config("\"BTC-USDT\"")).unwrap();
            store(&home.join("data"), &series("BTC-USDT", "1m"), minutes(MILLION));
            home
        })
    }
}

/// A configuration of one instrument, by its symbol in JSON.
pub fn config(symbol: &str) -> String {
    format!("{{ \"instruments\": [{{ \"symbol\": {symbol}, \"timeframes\": [\"1m\"] }}] }}")
}

pub fn series(instrument: &str, bar: &str) -> Series {
    Series { instrument: instrument.parse().unwrap(), bar: bar.parse().unwrap() }
}

/// Whose candles these are.
pub fn identity() -> Identity {
    Identity { venue: "okx", region: "global".into(), demo: false }
}

/// Candles as the pages that bring them, oldest first.
pub fn pages(bar: Bar, mut candles: impl Iterator<Item = Candle>) -> impl Iterator<Item = Entry> {
    let grid = bar.grid();
    std::iter::from_fn(move || {
        let rows: Vec<Candle> = candles.by_ref().take(PAGE_ROWS_MAX as usize).collect();
        let (first, last) = (rows.first()?.ts, rows.last()?.ts);
        let ask = Ask::Window { span: Span::new(first, grid.next(last)), limit: PAGE_ROWS_MAX };
        let page = Page::new(ask, rows, Vec::new());
        Some(Entry { bar, grid: Some(grid), page, at: last + DAY })
    })
}

/// Stores candles without a thread of its own.
pub fn store(data_dir: &Path, series: &Series, candles: impl Iterator<Item = Candle>) {
    let path = data_dir.join(format!("{}.db", series.instrument));
    let mut file = File::open(&path, &identity()).unwrap();
    let mut pages = pages(series.bar, candles).peekable();
    while pages.peek().is_some() {
        let entries: Vec<Entry> = pages.by_ref().take(PAGES).collect();
        file.commit(&entries, 0).unwrap();
    }
    file.finish().unwrap();
}

/// The writer's thread as a daemon has it, with nobody who listens.
pub fn writer(
    data_dir: &Path,
    clock: Arc<Clock>,
    orders: Receiver<Order>,
    receipts: Sender<Receipt>,
) -> Writer {
    Writer {
        files: Files::new(data_dir, identity()),
        clock,
        orders,
        receipts,
        audience: Arc::default(),
        commit_interval_ms: 100,
        patient: true,
        hurry: Arc::new(AtomicBool::new(false)),
    }
}

/// Sends pages through the writer's thread, and hears until the last of them is on disk.
pub fn send_through_writer(data_dir: &Path, instrument: &Instrument, pages: Vec<Entry>) {
    let (orders, to_write) = bounded(ORDERS);
    let (receipts, heard) = bounded(RECEIPTS);
    let writer = writer(data_dir, Arc::new(Clock::start(0)), to_write, receipts);
    let count = pages.len();
    thread::scope(|scope| {
        scope.spawn(|| writer.run());
        scope.spawn(move || {
            for (entry, ticket) in pages.into_iter().zip(1..) {
                let batch = Batch { ticket, instrument: instrument.clone(), entry };
                orders.send(Order::Store(batch)).expect("because the writer waits for more");
            }
        });
        let stored = heard.iter().filter(|it| matches!(it, Receipt::Stored { .. })).count();
        assert_eq!(stored, count, "the writer has not stored every page");
    });
}

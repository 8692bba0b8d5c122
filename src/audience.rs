//! Whoever wants to hear of candles as they are stored: each has a bounded channel of his own, and
//! a slow one loses his seat.
//!
//! **Invariant:** the writer never waits for a reader. What does not fit into a channel ends it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::instrument::{Instrument, Series};
use crate::time::Millis;

/// Candles that wait for a reader: half a day of minutes, or some minutes of a bar that runs.
const WAITING_MAX: usize = 1_024;

/// Which candles of a series a [`Subscription`] brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Updates {
    /// Each bar once, when the exchange has closed it; again if the exchange revises it later.
    Closed,
    /// Each state of the running bar that is stored, too: several a second at the most.
    All,
}

/// Why a subscription has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// Its reader has fallen so far behind that 1,024 candles waited. They can still be read; what
    /// came after them is in the store.
    Slow,
    /// The engine has stopped, or the store was dropped.
    Stopped,
}

impl fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscriptionError::Slow => write!(
                f,
                "the reader was {WAITING_MAX} candles behind: read faster, or ask the store for \
                 what was missed and subscribe again"
            ),
            SubscriptionError::Stopped => f.write_str("the sync engine has stopped"),
        }
    }
}

impl std::error::Error for SubscriptionError {}

/// The candles of one series as they are stored: a bounded channel, which
/// [`subscribe`](crate::OkxLocalStore::subscribe) gives. Dropped, it is over.
///
/// As an iterator it waits for each, and ends with the subscription.
///
/// ```
/// # let (_folder, store) =
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
/// use okx_local_store::Updates;
///
/// let minutes = store.subscribe(&"BTC-USDT".parse()?, "1m".parse()?, Updates::Closed);
/// # drop(store);
/// for minute in minutes {
///     println!("{} {}", minute.ts, minute.close);
/// }
/// println!("the engine has stopped, or this was too slow");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped, it is over"]
pub struct Subscription {
    candles: Receiver<Candle>,
    is_slow: Arc<AtomicBool>,
}

impl Subscription {
    /// Waits for the next candle.
    ///
    /// # Errors
    ///
    /// The subscription is over, and this says why.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::{SubscriptionError, Updates};
    ///
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// let subscription = store.subscribe(&btc, minute, Updates::All);
    /// drop(store);
    /// assert_eq!(subscription.recv(), Err(SubscriptionError::Stopped));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv(&self) -> Result<Candle, SubscriptionError> {
        self.candles.recv().map_err(|_| self.end())
    }

    /// Waits for the next candle, but no longer than this; nothing if none has come by then.
    ///
    /// # Errors
    ///
    /// As for [`Subscription::recv`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use std::time::Duration;
    ///
    /// use okx_local_store::Updates;
    ///
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// let subscription = store.subscribe(&btc, minute, Updates::Closed);
    /// assert_eq!(subscription.recv_within(Duration::from_millis(5))?, None, "nothing runs");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_within(&self, wait: Duration) -> Result<Option<Candle>, SubscriptionError> {
        select! {
            recv(self.candles) -> candle => candle.map(Some).map_err(|_| self.end()),
            default(wait) => Ok(None),
        }
    }

    fn end(&self) -> SubscriptionError {
        match self.is_slow.load(Ordering::Relaxed) {
            true => SubscriptionError::Slow,
            false => SubscriptionError::Stopped,
        }
    }
}

impl Iterator for Subscription {
    type Item = Candle;

    fn next(&mut self) -> Option<Candle> {
        self.candles.recv().ok()
    }
}

/// Where a subscription begins: what had ended by then is history, and is asked of the store. Times
/// are the exchange's, Unix ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    /// When it was made. Without a clock that has been learnt it is the first commit with one.
    pub now: Option<Millis>,
    /// The end of the newest closed bar that was stored when it was made.
    pub stored: Option<Millis>,
}

impl Begin {
    /// So many bars of the past are told of at the most: they fit into the channel several times.
    const PAST_MAX: i64 = 300;

    /// A bar that has ended and is not on disk yet is in no answer of the store, so it has to come.
    fn since(self, grid: Grid) -> Option<Millis> {
        let past = |now| grid.step(now, -Begin::PAST_MAX);
        self.now.map(|now| self.stored.map_or(now, |stored| stored.clamp(past(now), now)))
    }
}

/// Somebody who listens.
#[derive(Debug)]
struct Seat {
    series: Series,
    updates: Updates,
    begin: Begin,
    candles: Sender<Candle>,
    is_slow: Arc<AtomicBool>,
}

/// All who listen.
#[derive(Debug, Default)]
pub struct Audience {
    seats: Mutex<Vec<Seat>>,
    count: AtomicUsize,
}

impl Audience {
    /// Seats a reader.
    pub fn subscribe(&self, series: Series, updates: Updates, begin: Begin) -> Subscription {
        let (candles, heard) = bounded(WAITING_MAX);
        let is_slow = Arc::new(AtomicBool::new(false));
        let subscription = Subscription { candles: heard, is_slow: is_slow.clone() };
        self.change(|seats| {
            // Otherwise only a row shows that somebody has left, and none may come for long.
            seats.retain(Seat::is_taken);
            seats.push(Seat { series, updates, begin, candles, is_slow });
        });
        subscription
    }

    /// Whether nobody listens: then nothing need be told.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Tells of rows that are on disk now, at the time `now` of the exchange's clock, if that is
    /// known.
    pub fn tell(
        &self,
        instrument: &Instrument,
        bar: Bar,
        grid: Grid,
        rows: &[Candle],
        now: Option<Millis>,
    ) {
        self.change(|seats| {
            seats.retain_mut(|seat| {
                let is_his = seat.series.bar == bar && seat.series.instrument == *instrument;
                seat.begin.now = seat.begin.now.or(now);
                match seat.begin.since(grid) {
                    Some(since) if is_his => seat.hear(rows, grid, since),
                    _ => true,
                }
            });
        });
    }

    /// Ends all subscriptions.
    pub fn dismiss(&self) {
        self.change(Vec::clear);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Seat>)) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut seats);
        self.count.store(seats.len(), Ordering::Relaxed);
    }
}

impl Seat {
    /// Whether its reader is still there, who holds the other half of the flag.
    fn is_taken(&self) -> bool {
        Arc::strong_count(&self.is_slow) > 1
    }

    /// Whether the seat is kept.
    fn hear(&self, rows: &[Candle], grid: Grid, since: Millis) -> bool {
        let mut wanted = rows.iter().filter(|row| {
            (row.confirmed || self.updates == Updates::All) && grid.bar_at(row.ts).end > since
        });
        wanted.all(|row| match self.candles.try_send(*row) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.is_slow.store(true, Ordering::Relaxed);
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::{BASE, candle};
    use crate::time::MINUTE;

    fn series(name: &str) -> Series {
        Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() }
    }

    fn since(now: Millis) -> Begin {
        Begin { now: Some(now), stored: None }
    }

    /// Tells of one minute of BTC.
    fn tell(audience: &Audience, minute: i64, confirmed: bool, now: Option<Millis>) {
        let Series { instrument, bar } = series("BTC-USDT");
        let row = candle(BASE + minute * MINUTE, 1.0, confirmed);
        audience.tell(&instrument, bar, bar.grid(), &[row], now);
    }

    fn heard(subscription: &Subscription) -> Vec<(i64, bool)> {
        let next = || subscription.recv_within(Duration::ZERO).ok().flatten();
        std::iter::from_fn(next).map(|row| ((row.ts - BASE) / MINUTE, row.confirmed)).collect()
    }

    #[test]
    fn a_reader_hears_of_his_series_and_of_nothing_that_had_ended() {
        let audience = Audience::default();
        let closed = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(BASE + MINUTE));
        let all = audience.subscribe(series("BTC-USDT"), Updates::All, since(BASE + MINUTE));
        let other = audience.subscribe(series("ETH-USDT"), Updates::All, since(0));
        for (minute, confirmed) in [(0, true), (1, false), (1, true), (2, false)] {
            tell(&audience, minute, confirmed, None);
        }
        assert_eq!(heard(&closed), [(1, true)]);
        assert_eq!(heard(&all), [(1, false), (1, true), (2, false)]);
        assert_eq!(heard(&other), []);
    }

    #[test]
    fn what_ended_before_and_is_stored_after_comes_too() {
        let at = |minute| BASE + minute * MINUTE;
        // The newest minute on disk is the third, and it is the sixth or much later.
        for (now, begins) in [(6, 3), (400, 100)] {
            for known in [Some(at(now)), None] {
                let audience = Audience::default();
                let begin = Begin { now: known, stored: Some(at(3)) };
                let reader = audience.subscribe(series("BTC-USDT"), Updates::Closed, begin);
                for minute in [2, 3, 99, 100, now - 1, now] {
                    tell(&audience, minute, true, Some(at(now)));
                }
                let heard = heard(&reader);
                assert_eq!(heard[0].0, begins, "{known:?}: {heard:?}");
            }
        }
    }

    #[test]
    fn without_a_clock_nothing_is_taken_for_new() {
        let audience = Audience::default();
        let reader = audience.subscribe(series("BTC-USDT"), Updates::Closed, Begin::default());
        tell(&audience, 0, true, None);
        tell(&audience, 1, true, Some(BASE + 2 * MINUTE));
        tell(&audience, 2, true, Some(BASE + 9 * MINUTE));
        assert_eq!(heard(&reader), [(2, true)]);
    }

    #[test]
    fn a_slow_reader_is_dropped_and_the_others_go_on() {
        let audience = Audience::default();
        let slow = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0));
        let gone = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0));
        drop(gone);
        for minute in 0..=WAITING_MAX as i64 {
            tell(&audience, minute, true, None);
        }
        assert!(audience.is_empty());
        assert_eq!(std::iter::from_fn(|| slow.recv().ok()).count(), WAITING_MAX);
        assert_eq!(slow.recv(), Err(SubscriptionError::Slow));
        let calm = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0));
        audience.dismiss();
        assert_eq!(calm.recv(), Err(SubscriptionError::Stopped));
        assert_eq!(calm.recv_within(Duration::MAX), Err(SubscriptionError::Stopped));
    }

    #[test]
    fn a_reader_who_has_left_keeps_no_seat() {
        let audience = Audience::default();
        let stays = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0));
        for _ in 0..3 {
            drop(audience.subscribe(series("ETH-USDT"), Updates::Closed, since(0)));
        }
        drop(audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0)));
        // Not a row has come by then, and of a day may none for long.
        let _last = audience.subscribe(series("BTC-USDT"), Updates::Closed, since(0));
        assert_eq!(audience.count.load(Ordering::Relaxed), 2);
        tell(&audience, 0, true, None);
        assert_eq!(heard(&stays), [(0, true)]);
    }
}

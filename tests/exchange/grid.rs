//! Bars and the grids they open on.
//!
//! Worked out here anew, sharing nothing with the crate under test: a mistake in a grid must not
//! be made twice and then agree with itself.

use time::{Date, Month, OffsetDateTime};

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Where the days of UTC+8 start, seen from the epoch.
const CHINA_MS: i64 = -8 * HOUR_MS;
/// The first Monday after the epoch, 1970-01-05.
const MONDAY_MS: i64 = 4 * DAY_MS;

/// A bar by its exact name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    name: &'static str,
    grid: Grid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grid {
    Even { len_ms: i64, origin_ms: i64 },
    Months { count: i32, origin_ms: i64 },
}

const fn even(name: &'static str, len_ms: i64, origin_ms: i64) -> Bar {
    Bar { name, grid: Grid::Even { len_ms, origin_ms } }
}

const fn months(name: &'static str, count: i32, origin_ms: i64) -> Bar {
    Bar { name, grid: Grid::Months { count, origin_ms } }
}

pub const BARS: [Bar; 25] = [
    even("1s", SECOND_MS, 0),
    even("1m", MINUTE_MS, 0),
    even("3m", 3 * MINUTE_MS, 0),
    even("5m", 5 * MINUTE_MS, 0),
    even("15m", 15 * MINUTE_MS, 0),
    even("30m", 30 * MINUTE_MS, 0),
    even("1H", HOUR_MS, 0),
    even("2H", 2 * HOUR_MS, 0),
    even("4H", 4 * HOUR_MS, 0),
    even("6H", 6 * HOUR_MS, CHINA_MS),
    even("12H", 12 * HOUR_MS, CHINA_MS),
    even("1D", DAY_MS, CHINA_MS),
    even("2D", 2 * DAY_MS, CHINA_MS),
    even("3D", 3 * DAY_MS, CHINA_MS),
    even("1W", 7 * DAY_MS, MONDAY_MS + CHINA_MS),
    months("1M", 1, CHINA_MS),
    months("3M", 3, CHINA_MS),
    even("6Hutc", 6 * HOUR_MS, 0),
    even("12Hutc", 12 * HOUR_MS, 0),
    even("1Dutc", DAY_MS, 0),
    even("2Dutc", 2 * DAY_MS, 0),
    even("3Dutc", 3 * DAY_MS, 0),
    even("1Wutc", 7 * DAY_MS, MONDAY_MS),
    months("1Mutc", 1, 0),
    months("3Mutc", 3, 0),
];

impl Bar {
    /// The bar of that name, case and all, as the exchange takes it.
    pub fn parse(name: &str) -> Option<Bar> {
        BARS.iter().copied().find(|bar| bar.name == name)
    }

    /// As `parse`, for names written in a test.
    ///
    /// # Panics
    /// When there is no such bar.
    pub fn named(name: &str) -> Bar {
        Self::parse(name).unwrap_or_else(|| panic!("no bar is called {name:?}"))
    }

    pub fn name(self) -> &'static str {
        self.name
    }

    /// The length of the bar, unless it follows the calendar.
    pub fn len_ms(self) -> Option<i64> {
        match self.grid {
            Grid::Even { len_ms, .. } => Some(len_ms),
            Grid::Months { .. } => None,
        }
    }

    /// The open time of the bar that `ts` falls into.
    pub fn open(self, ts: i64) -> i64 {
        match self.grid {
            Grid::Even { len_ms, origin_ms } => {
                origin_ms + (ts - origin_ms).div_euclid(len_ms) * len_ms
            }
            Grid::Months { count, origin_ms } => {
                let index = month_of(ts - origin_ms);
                month_start(index - index.rem_euclid(count)) + origin_ms
            }
        }
    }

    /// The open time of the bar `n` places before the one that opens at `open`.
    pub fn back(self, open: i64, n: i32) -> i64 {
        match self.grid {
            Grid::Even { len_ms, .. } => open - i64::from(n) * len_ms,
            Grid::Months { count, origin_ms } => {
                month_start(month_of(open - origin_ms) - n * count) + origin_ms
            }
        }
    }

    /// The end of the bar that opens at `open`, which is the next one's open time.
    pub fn end(self, open: i64) -> i64 {
        self.back(open, -1)
    }
}

/// Months since year 0, in UTC.
fn month_of(ts: i64) -> i32 {
    let time = OffsetDateTime::from_unix_timestamp(ts.div_euclid(SECOND_MS))
        .expect("because exchange times lie within the calendar");
    time.year() * 12 + i32::from(u8::from(time.month())) - 1
}

fn month_start(index: i32) -> i64 {
    let number = u8::try_from(index.rem_euclid(12) + 1).expect("because it lies in 1..=12");
    let month = Month::try_from(number).expect("because it lies in 1..=12");
    let day = Date::from_calendar_date(index.div_euclid(12), month, 1)
        .expect("because exchange times lie within the calendar");
    day.midnight().assume_utc().unix_timestamp() * SECOND_MS
}

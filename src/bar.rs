//! Bars: the lengths of candle that OKX offers, their names, tables and grids.
//!
//! A grid says at which moments bars open. OKX counts the bars from six hours upwards in UTC+8
//! unless their name ends in `utc`, so its plain day opens at 16:00 UTC.
//! Source: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks>.

use std::fmt;
use std::str::FromStr;

use time::{Date, Month, OffsetDateTime};

use crate::span::Span;
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND, TIME_MAX};

/// A length of candle, named as OKX names it.
///
/// ```
/// use okx_local_store::Bar;
///
/// let hour: Bar = "1h".parse().unwrap();
/// assert_eq!(hour.name(), "1H");
/// assert_eq!(hour.table(), "candles_1h");
/// assert_ne!("1m".parse::<Bar>(), "1M".parse::<Bar>(), "minutes and months never meet");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bar(u8);

/// Where the bars of one length open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Every so many ms.
    Fixed { length_ms: Millis },
    /// On the first of every so many months, as the calendar at this offset has it.
    Months { months: i64, offset_ms: Millis },
}

struct Spec {
    name: &'static str,
    table: &'static str,
    shape: Shape,
    /// A moment at which a bar opens.
    origin: Millis,
}

/// Beijing time, in which OKX counts the longer bars unless their name says `utc`.
const UTC8: Millis = 8 * HOUR;
/// A Monday, 00:00 UTC.
const MONDAY: Millis = 345_600_000;

const fn fixed(name: &'static str, table: &'static str, length_ms: Millis, origin: Millis) -> Spec {
    Spec { name, table, shape: Shape::Fixed { length_ms }, origin }
}

const fn months(name: &'static str, table: &'static str, months: i64, offset_ms: Millis) -> Spec {
    Spec { name, table, shape: Shape::Months { months, offset_ms }, origin: -offset_ms }
}

/// All bars, shortest first. SQLite folds the case of table names, so months are spelt `mon`.
/// The origins of 2D and 3D are likely rather than known: see [`Grid::shifted_to`].
const SPECS: [Spec; 25] = [
    fixed("1s", "candles_1s", SECOND, 0),
    fixed("1m", "candles_1m", MINUTE, 0),
    fixed("3m", "candles_3m", 3 * MINUTE, 0),
    fixed("5m", "candles_5m", 5 * MINUTE, 0),
    fixed("15m", "candles_15m", 15 * MINUTE, 0),
    fixed("30m", "candles_30m", 30 * MINUTE, 0),
    fixed("1H", "candles_1h", HOUR, 0),
    fixed("2H", "candles_2h", 2 * HOUR, 0),
    fixed("4H", "candles_4h", 4 * HOUR, 0),
    fixed("6H", "candles_6h", 6 * HOUR, -UTC8),
    fixed("6Hutc", "candles_6hutc", 6 * HOUR, 0),
    fixed("12H", "candles_12h", 12 * HOUR, -UTC8),
    fixed("12Hutc", "candles_12hutc", 12 * HOUR, 0),
    fixed("1D", "candles_1d", DAY, -UTC8),
    fixed("1Dutc", "candles_1dutc", DAY, 0),
    fixed("2D", "candles_2d", 2 * DAY, -UTC8),
    fixed("2Dutc", "candles_2dutc", 2 * DAY, 0),
    fixed("3D", "candles_3d", 3 * DAY, -UTC8),
    fixed("3Dutc", "candles_3dutc", 3 * DAY, 0),
    fixed("1W", "candles_1w", 7 * DAY, MONDAY - UTC8),
    fixed("1Wutc", "candles_1wutc", 7 * DAY, MONDAY),
    months("1M", "candles_1mon", 1, UTC8),
    months("1Mutc", "candles_1monutc", 1, 0),
    months("3M", "candles_3mon", 3, UTC8),
    months("3Mutc", "candles_3monutc", 3, 0),
];

impl Bar {
    /// Every bar there is, shortest first.
    ///
    /// ```
    /// use okx_local_store::Bar;
    ///
    /// assert_eq!(Bar::all().count(), 25);
    /// assert_eq!(Bar::all().next(), "1s".parse().ok());
    /// ```
    pub fn all() -> impl Iterator<Item = Bar> {
        (0..SPECS.len() as u8).map(Bar)
    }

    fn spec(self) -> &'static Spec {
        &SPECS[usize::from(self.0)]
    }

    /// OKX's name of it, which is the value of the parameter `bar`.
    ///
    /// ```
    /// use okx_local_store::Bar;
    ///
    /// assert_eq!("1d".parse::<Bar>()?.name(), "1D");
    /// # Ok::<(), okx_local_store::BarError>(())
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The table in an instrument's file that holds its candles, for whoever reads it with SQL.
    ///
    /// ```
    /// use okx_local_store::Bar;
    ///
    /// let month: Bar = "1M".parse()?;
    /// let sql = format!("SELECT close FROM {} WHERE confirmed = 1", month.table());
    /// assert_eq!(sql, "SELECT close FROM candles_1mon WHERE confirmed = 1");
    /// # Ok::<(), okx_local_store::BarError>(())
    /// ```
    #[must_use]
    pub fn table(self) -> &'static str {
        self.spec().table
    }

    /// The grid as documented.
    #[doc(hidden)]
    #[must_use]
    pub fn grid(self) -> Grid {
        Grid { shape: self.spec().shape, origin: self.spec().origin }
    }

    /// How many there are in a year, which has 365 days of 24 hours, or 12 months.
    pub(crate) fn per_year(self) -> f64 {
        match self.spec().shape {
            Shape::Fixed { length_ms } => (365 * DAY) as f64 / length_ms as f64,
            Shape::Months { months, .. } => 12.0 / months as f64,
        }
    }

    /// When it opens, for bars whose name does not tell: `opens 16:00 UTC`.
    ///
    /// ```
    /// use okx_local_store::Bar;
    ///
    /// assert_eq!("1D".parse::<Bar>()?.remark(), Some("opens 16:00 UTC"));
    /// assert_eq!("1Dutc".parse::<Bar>()?.remark(), None, "it opens at midnight, as it says");
    /// # Ok::<(), okx_local_store::BarError>(())
    /// ```
    #[must_use]
    pub fn remark(self) -> Option<&'static str> {
        match self.name() {
            "1D" | "2D" | "3D" => Some("opens 16:00 UTC"),
            "1W" => Some("opens Sunday 16:00 UTC"),
            "1M" | "3M" => Some("opens 16:00 UTC on the last day of a month"),
            "6H" => Some("opens 04:00, 10:00, 16:00, 22:00 UTC"),
            "12H" => Some("opens 04:00 and 16:00 UTC"),
            _ => None,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that names no bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarError(String);

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no bar: give one of", self.0)?;
        Bar::all().try_for_each(|bar| write!(f, " {bar}"))?;
        f.write_str(" (m is minutes, M is months)")
    }
}

impl std::error::Error for BarError {}

impl FromStr for Bar {
    type Err = BarError;

    /// Takes hours, days and weeks in either case; `m` and `M` mean what they say.
    fn from_str(text: &str) -> Result<Bar, BarError> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = &text[..text.len() - unit.len()];
        let mut name = text.to_owned();
        if unit.starts_with(['h', 'd', 'w']) {
            let (first, rest) = unit.split_at(1);
            name = format!("{count}{}{rest}", first.to_ascii_uppercase());
        }
        Bar::all().find(|bar| bar.name() == name).ok_or_else(|| BarError(text.to_owned()))
    }
}

/// The moments at which the bars of one series open.
///
/// ```
/// use okx_local_store::bar::Bar;
/// use okx_local_store::time::{format_time, parse_time};
///
/// let noon = parse_time("2024-05-01T12:00:00Z").unwrap();
/// let open = |bar: &str| format_time(bar.parse::<Bar>().unwrap().grid().floor(noon));
/// assert_eq!(open("1Dutc"), "2024-05-01T00:00:00Z");
/// assert_eq!(open("1D"), "2024-04-30T16:00:00Z");
/// assert_eq!(open("3M"), "2024-03-31T16:00:00Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    shape: Shape,
    origin: Millis,
}

impl Grid {
    /// The same lengths, counted so that a bar opens at `open`. The exchange's open times win over
    /// the documented grid; bars of months keep the calendar.
    pub fn shifted_to(self, open: Millis) -> Grid {
        match self.shape {
            Shape::Fixed { length_ms } => Grid { origin: open.rem_euclid(length_ms), ..self },
            Shape::Months { .. } => self,
        }
    }

    /// The number of the bar that holds `at`.
    fn index(self, at: Millis) -> i64 {
        let at = at.clamp(-TIME_MAX, TIME_MAX);
        match self.shape {
            Shape::Fixed { length_ms } => (at - self.origin).div_euclid(length_ms),
            Shape::Months { months, offset_ms } => {
                let moment =
                    OffsetDateTime::from_unix_timestamp((at + offset_ms).div_euclid(SECOND))
                        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
                let month = i64::from(moment.year()) * 12 + i64::from(u8::from(moment.month())) - 1;
                month.div_euclid(months)
            }
        }
    }

    /// The open time of the bar with this number.
    fn open(self, index: i64) -> Millis {
        match self.shape {
            Shape::Fixed { length_ms } => self.origin + index * length_ms,
            Shape::Months { months, offset_ms } => {
                let month = index * months;
                let of_year = Month::try_from(month.rem_euclid(12) as u8 + 1);
                let date = of_year.ok().and_then(|of_year| {
                    Date::from_calendar_date(month.div_euclid(12) as i32, of_year, 1).ok()
                });
                let days = date.unwrap_or(Date::MAX).to_julian_day() - JULIAN_EPOCH;
                i64::from(days) * DAY - offset_ms
            }
        }
    }

    /// The open time of the bar that holds `at`.
    pub fn floor(self, at: Millis) -> Millis {
        self.open(self.index(at))
    }

    /// The first open time at or after `at`.
    pub fn ceil(self, at: Millis) -> Millis {
        let floor = self.floor(at);
        if floor == at { at } else { self.next(at) }
    }

    /// The open time of the bar after the one that holds `at`; that bar's end.
    pub fn next(self, at: Millis) -> Millis {
        self.open(self.index(at) + 1)
    }

    /// The open time `bars` bars after (or, negative, before) the bar that holds `at`.
    pub fn step(self, at: Millis, bars: i64) -> Millis {
        self.open(self.index(at) + bars)
    }

    /// The range of the bar that opens at `open`. A bar off the grid has the length of its
    /// neighbours.
    pub fn bar_at(self, open: Millis) -> Span {
        let open = open.clamp(-TIME_MAX, TIME_MAX);
        let length_ms = self.next(open) - self.floor(open);
        Span::new(open, open + length_ms)
    }

    /// Whether a bar opens at `at`.
    pub fn opens_at(self, at: Millis) -> bool {
        self.floor(at) == at
    }

    /// How many bars open in a range.
    pub fn count(self, span: Span) -> i64 {
        if span.is_empty() {
            return 0;
        }
        self.index(self.ceil(span.end)) - self.index(self.ceil(span.start))
    }

    /// The length of every bar, or nothing where months differ, and one moment of opening. What
    /// an SQL statement needs to tell rows on the grid from others.
    pub fn period(self) -> Option<(Millis, Millis)> {
        match self.shape {
            Shape::Fixed { length_ms } => Some((length_ms, self.origin)),
            Shape::Months { .. } => None,
        }
    }
}

/// The Julian day of 1970-01-01.
const JULIAN_EPOCH: i32 = 2_440_588;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::{format_time, parse_time};
    use crate::wire::wild;

    fn bar(name: &str) -> Bar {
        name.parse().unwrap()
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        for (text, name) in
            [("1h", "1H"), ("1d", "1D"), ("1dutc", "1Dutc"), ("1w", "1W"), ("12hutc", "12Hutc")]
        {
            assert_eq!(bar(text).name(), name);
        }
        assert_eq!((bar("1m").table(), bar("1M").table()), ("candles_1m", "candles_1mon"));
        for text in ["", "m", "7m", "1mon", "1MUTC", "1DUTC", "5D", "01m", "1m ", "1x", "1ü"] {
            assert!(text.parse::<Bar>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_bars_share_a_table_even_when_case_is_folded() {
        let tables: std::collections::BTreeSet<String> =
            Bar::all().map(|bar| bar.table().to_lowercase()).collect();
        assert_eq!(tables.len(), 25);
    }

    #[test]
    fn bars_open_where_the_exchange_opens_them() {
        let at = parse_time("2026-05-06T13:14:15Z").unwrap();
        let opens = [
            ("1m", "2026-05-06T13:14:00Z"),
            ("4H", "2026-05-06T12:00:00Z"),
            ("6H", "2026-05-06T10:00:00Z"),
            ("6Hutc", "2026-05-06T12:00:00Z"),
            ("12H", "2026-05-06T04:00:00Z"),
            ("1D", "2026-05-05T16:00:00Z"),
            ("1Dutc", "2026-05-06T00:00:00Z"),
            ("1W", "2026-05-03T16:00:00Z"),
            ("1Wutc", "2026-05-04T00:00:00Z"),
            ("1M", "2026-04-30T16:00:00Z"),
            ("1Mutc", "2026-05-01T00:00:00Z"),
            ("3M", "2026-03-31T16:00:00Z"),
            ("3Mutc", "2026-04-01T00:00:00Z"),
        ];
        for (name, open) in opens {
            assert_eq!(format_time(bar(name).grid().floor(at)), open, "{name}");
        }
        // Two check values seen on real rows.
        assert!(bar("1W").grid().opens_at(1_777_824_000_000));
        assert!(bar("1Wutc").grid().opens_at(345_600_000));
    }

    #[test]
    fn a_shifted_grid_keeps_its_length() {
        let open = parse_time("2024-05-01T16:00:00Z").unwrap();
        let grid = bar("3D").grid().shifted_to(open + DAY);
        assert!(grid.opens_at(open + DAY) && grid.opens_at(open - 2 * DAY));
        assert!(!grid.opens_at(open));
        assert_eq!(bar("1M").grid().shifted_to(5), bar("1M").grid());
    }

    proptest! {
        #[test]
        fn grids_are_regular(
            number in 0u8..25,
            // 300 quarters fit between the latest moment and the end of time.
            at in 0..=TIME_MAX - 76 * 366 * DAY,
            bars in -300i64..300,
        ) {
            let grid = Bar(number).grid();
            let (open, next) = (grid.floor(at), grid.next(at));
            prop_assert!(open <= at && at < next);
            prop_assert!(grid.opens_at(open) && grid.opens_at(next));
            prop_assert_eq!(grid.count(Span::new(open, next)), 1);
            prop_assert_eq!(grid.bar_at(open), Span::new(open, next));
            let far = grid.step(at, bars);
            prop_assert_eq!(grid.count(Span::new(far.min(open), far.max(open))), bars.abs());
            prop_assert_eq!(grid.step(far, -bars), open);
        }

        /// Rows and ledgers come from files that anybody may have written to.
        #[test]
        fn no_time_is_beyond_a_grid(
            number in 0u8..25,
            at in wild::number(),
            other in wild::number(),
            bars in -400i64..400,
            shift in prop::option::of(wild::number()),
        ) {
            let grid = Bar(number).grid();
            let grid = shift.map_or(grid, |shift| grid.shifted_to(shift));
            let _ = (grid.floor(at), grid.ceil(at), grid.next(at), grid.step(at, bars));
            let _ = (grid.bar_at(at), grid.opens_at(at), grid.count(Span::new(at, other)));
        }
    }
}

//! Time as the store knows it: Unix milliseconds, and the two clocks that give them.
//!
//! **Invariant:** this is the only file that reads a clock of the machine. Everything that decides
//! is handed a [`Now`], so that it can be tried with any time at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Milliseconds: a point in time counted from the Unix epoch (UTC), or a length of time, whose
/// name ends in `_ms`.
pub type Millis = i64;

/// One second.
pub const SECOND: Millis = 1_000;
/// One minute.
pub const MINUTE: Millis = 60 * SECOND;
/// One hour.
pub const HOUR: Millis = 60 * MINUTE;
/// One day of 24 hours.
pub const DAY: Millis = 24 * HOUR;

/// The last representable moment, the end of the year 9999: nothing later is taken from outside,
/// so that arithmetic on times never overflows.
pub const TIME_MAX: Millis = 253_402_300_799_999;

/// The two times that decisions need, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The machine's time: monotonic while the process lives. Budgets and back-offs count in it.
    pub local: Millis,
    /// The exchange's time. Bars end by it.
    pub exchange: Millis,
}

/// The clocks of a process: local time that never steps, and the exchange's time, which is local
/// time plus an offset learnt from the exchange.
///
/// ```
/// use okx_local_store::time::Clock;
///
/// let clock = Clock::start(0);
/// let before = clock.now();
/// clock.learn(before.local + 5_000);
/// assert!(clock.now().exchange >= before.exchange + 5_000);
/// ```
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_at: Millis,
    offset: Offset,
}

impl Clock {
    /// Starts the clocks with the offset that the last contact with the exchange has left.
    pub fn start(offset_ms: Millis) -> Clock {
        Clock { started: Instant::now(), started_at: wall_now(), offset: Offset::new(offset_ms) }
    }

    /// Both times, now. The exchange's time waits rather than stepping back.
    pub fn now(&self) -> Now {
        self.offset.read(self.local())
    }

    /// Takes `exchange` for the exchange's time of this moment. The first time it may step back:
    /// what went before was only the guess of an earlier process.
    pub fn learn(&self, exchange: Millis) {
        self.offset.learn(self.local(), exchange);
    }

    /// Whether the exchange's time was learnt, and is no guess of an earlier process.
    pub fn is_learnt(&self) -> bool {
        self.offset.is_learnt()
    }

    /// What to add to local time for the exchange's.
    pub fn offset_ms(&self) -> Millis {
        self.offset.ms()
    }

    fn local(&self) -> Millis {
        self.started_at + self.started.elapsed().as_millis() as i64
    }
}

/// How far the exchange's clock is ahead of the local one, as far as is known. It is handed the
/// local time.
///
/// ```
/// use okx_local_store::time::Offset;
///
/// let offset = Offset::new(0);
/// offset.learn(1_000, 6_000);
/// assert_eq!(offset.read(1_500).exchange, 6_500);
/// offset.learn(2_000, 6_200);
/// assert_eq!(offset.read(2_000).exchange, 6_500, "it waits rather than stepping back");
/// ```
#[derive(Debug)]
pub struct Offset {
    ms: AtomicI64,
    latest: AtomicI64,
    learnt: AtomicBool,
}

impl Offset {
    /// What an earlier process has left.
    pub fn new(ms: Millis) -> Offset {
        Offset {
            ms: AtomicI64::new(ms),
            latest: AtomicI64::new(i64::MIN),
            learnt: AtomicBool::new(false),
        }
    }

    /// Both times at that local time. The exchange's waits rather than stepping back.
    pub fn read(&self, local: Millis) -> Now {
        let exchange = local + self.ms.load(Ordering::Relaxed);
        let latest = self.latest.fetch_max(exchange, Ordering::Relaxed);
        Now { local, exchange: exchange.max(latest) }
    }

    /// At that local time it was so late by the exchange's clock. The first time it may step back.
    pub fn learn(&self, local: Millis, exchange: Millis) {
        self.ms.store(exchange - local, Ordering::Relaxed);
        if !self.learnt.swap(true, Ordering::Relaxed) {
            self.latest.store(i64::MIN, Ordering::Relaxed);
        }
    }

    /// Whether the exchange's time was learnt, and is no guess of an earlier process.
    pub fn is_learnt(&self) -> bool {
        self.learnt.load(Ordering::Relaxed)
    }

    /// What to add to local time for the exchange's.
    pub fn ms(&self) -> Millis {
        self.ms.load(Ordering::Relaxed)
    }
}

/// The end of a wait, by the machine's monotonic clock.
///
/// ```
/// use okx_local_store::time::Deadline;
///
/// assert_eq!(Deadline::after(0).left(), None);
/// assert!(Deadline::after(60_000).left().is_some_and(|left| left.as_secs() < 60));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    set: Instant,
    length: Duration,
}

impl Deadline {
    /// The end of a wait that begins now. One of no length, or of less, has ended.
    pub fn after(length_ms: Millis) -> Deadline {
        let length = Duration::from_millis(u64::try_from(length_ms).unwrap_or(0));
        Deadline { set: Instant::now(), length }
    }

    /// How much of the wait is left; `None` once it has ended, never zero.
    pub fn left(self) -> Option<Duration> {
        self.length.checked_sub(self.set.elapsed()).filter(|left| !left.is_zero())
    }

    /// How long ago it began.
    pub fn elapsed_ms(self) -> Millis {
        i64::try_from(self.set.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// The machine's calendar time, which may be wrong and may step: for the stamps of log lines,
/// never for a decision.
pub fn wall_now() -> Millis {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_millis()).map_or(TIME_MAX, |wall| wall.min(TIME_MAX))
}

/// A smaller number of milliseconds is a time before March 1973, or far more likely a number of
/// seconds.
const SECONDS_END: Millis = 100_000_000_000;

/// Text that is no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeError(String);

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time: give a date (2024-05-01), a time of day in UTC (2024-05-01T12:00), \
             RFC 3339 (2024-05-01T12:00:00Z) or Unix milliseconds, not seconds",
            self.0
        )
    }
}

impl std::error::Error for TimeError {}

/// Reads a time as people and scripts write it: a date (its midnight, UTC), a date and a time of
/// day without a zone (UTC), RFC 3339, or Unix milliseconds. A blank may stand for the `T`.
///
/// # Errors
///
/// It is nothing of these, or before 1970 or after the year 9999. A small number, which far more
/// likely counts seconds, is refused too.
///
/// ```
/// use okx_local_store::parse_time;
///
/// assert_eq!(parse_time("2024-05-01"), parse_time("2024-05-01T02:00:00+02:00"));
/// assert_eq!(parse_time("2024-05-01 02:00"), parse_time("2024-05-01T02:00:00Z"));
/// assert_eq!(parse_time("1714521600000"), Ok(1_714_521_600_000));
/// assert!(parse_time("yesterday").is_err());
/// ```
pub fn parse_time(text: &str) -> Result<Millis, TimeError> {
    let bad = || TimeError(text.to_owned());
    let millis = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok().filter(|ms| *ms == 0 || *ms >= SECONDS_END).ok_or_else(bad)?
    } else if let Ok(date) = time::Date::parse(text, format_description!("[year]-[month]-[day]")) {
        date.midnight().assume_utc().unix_timestamp() * SECOND
    } else {
        let text = text.replacen(' ', "T", 1);
        let moment = zoneless(&text).or_else(|| OffsetDateTime::parse(&text, &Rfc3339).ok());
        (moment.ok_or_else(bad)?.unix_timestamp_nanos() / 1_000_000) as i64
    };
    if (0..=TIME_MAX).contains(&millis) { Ok(millis) } else { Err(bad()) }
}

/// A date and a time of day, to the minute or the second, which are UTC where no zone is named.
fn zoneless(text: &str) -> Option<OffsetDateTime> {
    let minute = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let second = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let parsed = time::PrimitiveDateTime::parse(text, minute);
    let parsed = parsed.or_else(|_| time::PrimitiveDateTime::parse(text, second));
    parsed.ok().map(time::PrimitiveDateTime::assume_utc)
}

/// Writes a time as `2024-05-01T00:00:00Z`, with milliseconds only where there are any.
///
/// ```
/// use okx_local_store::format_time;
///
/// assert_eq!(format_time(1_714_521_600_000), "2024-05-01T00:00:00Z");
/// assert_eq!(format_time(1_714_521_600_001), "2024-05-01T00:00:00.001Z");
/// ```
#[must_use]
pub fn format_time(at: Millis) -> String {
    let stamp = format_stamp(at);
    match stamp.strip_suffix(".000Z") {
        Some(whole) => format!("{whole}Z"),
        None => stamp,
    }
}

/// Writes a time with its milliseconds always, so that the lines of a log stand in columns:
/// `2024-05-01T00:00:00.000Z`.
pub fn format_stamp(at: Millis) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(at.div_euclid(SECOND)) else {
        return format!("{at} ms");
    };
    let (date, clock) = (moment.date(), moment.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
    let ms = at.rem_euclid(SECOND);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Writes a length of time for people, in its largest unit and the next: `3d 4h`, `12m 5s`,
/// `850ms`.
pub fn format_length(length_ms: Millis) -> String {
    const UNITS: [(Millis, &str); 4] = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")];
    if length_ms < 0 {
        return format!("-{}", format_length(length_ms.saturating_neg()));
    }
    let Some(at) = UNITS.iter().position(|&(unit, _)| length_ms >= unit) else {
        return format!("{length_ms}ms");
    };
    let (unit, name) = UNITS[at];
    let rest = length_ms % unit;
    match UNITS.get(at + 1) {
        Some(&(next, next_name)) if rest >= next => {
            format!("{}{name} {}{next_name}", length_ms / unit, rest / next)
        }
        _ => format!("{}{name}", length_ms / unit),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::wild;

    #[test]
    fn times_are_read_in_four_forms_and_nothing_else() {
        let day = 1_714_521_600_000;
        for text in [
            "2024-05-01",
            "2024-05-01 00:00",
            "2024-05-01T00:00",
            "2024-05-01T00:00:00",
            "2024-05-01T00:00:00Z",
            "2024-05-01 08:00:00+08:00",
        ] {
            assert_eq!(parse_time(text), Ok(day), "{text}");
        }
        assert_eq!(parse_time("0"), Ok(0));
        for text in [
            "",
            "-5",
            "1714521600",
            "2024-13-01",
            "2024-02-30",
            "2024-05-01T24:00",
            "2024-05-01  12:00",
            "12:00",
            "1e9",
            "1969-12-31",
            "99999999999999999",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for at in [0, 1, 999, 1_714_521_600_000, 1_714_521_600_001, TIME_MAX] {
            assert_eq!(parse_time(&format_time(at)), Ok(at));
        }
    }

    proptest! {
        /// Whoever writes them has read them from somewhere, and not always through a bound.
        #[test]
        fn any_number_can_be_written(at in wild::number()) {
            for text in [format_time(at), format_stamp(at), format_length(at)] {
                prop_assert!((1..40).contains(&text.len()), "{text}");
            }
            if (0..=TIME_MAX).contains(&at) {
                prop_assert_eq!(parse_time(&format_time(at)), Ok(at));
            }
        }

        #[test]
        fn no_text_is_read_as_a_time_out_of_bounds(
            text in prop_oneof![
                any::<String>(),
                wild::number().prop_map(|number| number.to_string()),
                "[-+]?[0-9]{0,6}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9:.]{0,12}([Zz]|[-+][0-9:]{1,5})?)?",
            ],
        ) {
            if let Ok(at) = parse_time(&text) {
                prop_assert!((0..=TIME_MAX).contains(&at), "{text:?} is {at}");
            }
        }
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        for (length, text) in [
            (850, "850ms"),
            (59 * SECOND, "59s"),
            (12 * MINUTE + 5 * SECOND, "12m 5s"),
            (3 * DAY + 4 * HOUR + 5 * MINUTE, "3d 4h"),
            (2 * DAY, "2d"),
            (-5 * MINUTE, "-5m"),
        ] {
            assert_eq!(format_length(length), text);
        }
    }

    #[test]
    fn the_exchange_clock_never_steps_back() {
        let clock = Clock::start(10_000);
        let guess = clock.now();
        clock.learn(guess.local);
        let before = clock.now();
        assert!(before.exchange < guess.exchange, "a first guess gives way to the truth");
        clock.learn(before.local - 60_000);
        assert!(clock.now().exchange >= before.exchange);
        assert_eq!(clock.now().exchange, before.exchange, "it waits until the truth catches up");
    }
}

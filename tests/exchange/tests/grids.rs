//! The grids, by the check formulas in the notes on the wire format.

use super::super::{BARS, Bar, DAY_MS, DEFAULT_START_MS, HOUR_MS, MINUTE_MS};

/// Moments that avoid every round number, over three years.
fn moments() -> impl Iterator<Item = i64> {
    (0..1_100).map(|index| DEFAULT_START_MS - index * (DAY_MS + 7 * MINUTE_MS + 13))
}

#[test]
fn weeks_open_on_mondays() {
    for now in moments() {
        assert_eq!((Bar::named("1W").open(now) - 1_777_824_000_000) % 604_800_000, 0);
        assert_eq!((Bar::named("1Wutc").open(now) - 345_600_000) % 604_800_000, 0);
    }
}

#[test]
fn days_open_at_16_utc_or_at_midnight() {
    for now in moments() {
        for name in ["6H", "12H", "1D", "2D", "3D"] {
            let bar = Bar::named(name);
            assert_eq!((bar.open(now) + 8 * HOUR_MS) % bar.len_ms().unwrap(), 0, "{name}");
        }
        for name in ["1m", "3m", "30m", "4H", "6Hutc", "12Hutc", "1Dutc", "2Dutc", "3Dutc"] {
            let bar = Bar::named(name);
            assert_eq!(bar.open(now) % bar.len_ms().unwrap(), 0, "{name}");
        }
    }
    // A daily bar as seen on the wire.
    assert_eq!(Bar::named("1D").open(1_785_340_800_000 + 5), 1_785_340_800_000);
}

#[test]
fn months_and_quarters_follow_the_calendar() {
    let new_year = 1_704_067_200_000; // 2024-01-01T00:00:00Z
    let (february, april) = (new_year + 31 * DAY_MS, new_year + 91 * DAY_MS);
    let open = |name, ts| Bar::named(name).open(ts);
    assert_eq!(open("1Mutc", february - 1), new_year);
    assert_eq!(open("1Mutc", february), february);
    assert_eq!(open("3Mutc", april - 1), new_year);
    assert_eq!(open("3Mutc", april), april);
    assert_eq!(open("1M", february - 8 * HOUR_MS), february - 8 * HOUR_MS);
    assert_eq!(open("1M", february - 8 * HOUR_MS - 1), new_year - 8 * HOUR_MS);
    assert_eq!(open("3M", april - 1), april - 8 * HOUR_MS);
    assert_eq!(Bar::named("3Mutc").back(april, 1), new_year);
    assert_eq!(Bar::named("1Mutc").back(april, 15), 1_672_531_200_000); // 2023-01-01
}

#[test]
fn each_bar_ends_where_the_next_opens() {
    for bar in BARS {
        for now in moments().take(400) {
            let open = bar.open(now);
            let end = bar.end(open);
            assert!(open <= now && now < end, "{}", bar.name());
            assert_eq!((bar.open(end), bar.open(end - 1)), (end, open), "{}", bar.name());
            assert_eq!(bar.back(end, 1), open, "{}", bar.name());
        }
    }
}

#[test]
fn names_are_told_apart_by_case() {
    assert_ne!(Bar::parse("1m"), Bar::parse("1M"));
    for name in ["1h", "1d", "1w", "1DUTC", "5D", "7m", "", "1S"] {
        assert_eq!(Bar::parse(name), None, "{name}");
    }
}

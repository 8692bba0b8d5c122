//! `verify`: the real program, a store that is right or wrong in known places, and an exchange that
//! answers oddly.

use okx_local_store::lock::Lock;

use crate::exchange::{Builder, Endpoint, Exchange, Fault, Listed, Row, Script};
use crate::live::{self, Live};
use crate::process::{Finished, Home, T0};

const MINUTE: i64 = 60_000;
/// The minute that runs at [`T0`].
const RUNNING: i64 = T0 / MINUTE * MINUTE;

fn market() -> Builder {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    let builder = builder.synthetic("BTC-USDT", Listed::days(20));
    builder.synthetic("ETH-USDT", Listed::days(20))
}

/// A store of two days of minutes, complete.
fn synced(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m", 2);
    home.run("sync --all").exits(0);
    home
}

/// The open time of the bar that opened so many minutes before the running one.
fn ago(minutes: i64) -> i64 {
    RUNNING - minutes * MINUTE
}

fn change(home: &Home, sql: &str, minutes_ago: i64) {
    let changed = home.open("BTC-USDT").execute(sql, [ago(minutes_ago)]).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

const DELETE: &str = "DELETE FROM candles_1m WHERE ts = ?1";
const RAISE: &str = "UPDATE candles_1m SET close = close + 0.5, volume = 7.25 WHERE ts = ?1";
const COPY: &str = "INSERT INTO candles_1m SELECT ?1, open, high, low, close, volume, volume_ccy,
     volume_quote, 1, 0, updated_at FROM candles_1m ORDER BY ts DESC LIMIT 1";

/// Makes a bar of each kind that differs: a missing one 100 minutes ago, a different one 1,000, a
/// foreign one 2,000.
fn spoil(exchange: &Exchange, home: &Home) {
    change(home, DELETE, 100);
    change(home, RAISE, 1_000);
    exchange.hole("BTC-USDT", ago(2_000), ago(1_999));
}

/// The numbers of bars: compared, equal, missing, different, foreign.
fn bars(finished: &Finished) -> [i64; 5] {
    let json = finished.json();
    let names = ["compared", "equal", "missing", "different", "foreign"];
    names.map(|name| json["bars"][name].as_i64().unwrap())
}

/// The report without its line breaks.
fn flat(finished: &Finished) -> String {
    finished.out.split_whitespace().collect::<Vec<&str>>().join(" ")
}

#[test]
fn an_equal_store_is_told_so_and_left_as_it_is() {
    let exchange = market().start();
    let home = synced(&exchange);
    let before = home.snapshot();
    let asked = exchange.requests().len();
    let verified = home.run("verify BTC-USDT 1m").exits(0);
    let expected = "\
BTC-USDT 1m equals the exchange
compared 2880 bars from 2024-04-29 00:00 to 2024-05-01 00:00, 10 pages: 2880
equal
";
    assert_eq!((verified.out.as_str(), verified.err.as_str()), (expected, ""));
    // Ten pages and the clock.
    assert_eq!(exchange.requests().len(), asked + 11);
    let verified = home.run("verify BTC-USDT 1m --json --repair").exits(0);
    assert_eq!(bars(&verified), [2_880, 2_880, 0, 0, 0]);
    let json = verified.json();
    assert_eq!((&json["equal"], &json["finished"]), (&true.into(), &true.into()));
    let mut after = home.snapshot();
    after.retain(|path, _| !path.ends_with(".requests"));
    let mut before = before;
    before.retain(|path, _| !path.ends_with(".requests"));
    assert!(after == before, "verify has changed something");
}

#[test]
fn each_kind_of_difference_is_listed_and_healed_as_far_as_can_be() {
    let exchange = market().start();
    let home = synced(&exchange);
    spoil(&exchange, &home);
    let truth = exchange.truth("BTC-USDT", "1m", ago(1_000), ago(999)).remove(0);
    let verified = home.run("verify BTC-USDT 1m").exits(1);
    let lines: Vec<&str> = verified.out.lines().collect();
    assert_eq!(lines[0], "BTC-USDT 1m differs from the exchange in 3 bars");
    assert_eq!(lines[2], "  missing  2024-04-30 22:20  2024-04-30 22:21     1");
    assert_eq!(lines[3], "  foreign  2024-04-29 14:40  2024-04-29 14:41     1");
    let row = verified.row("  2024-04-30 07:20");
    let raised = (truth.c + 0.5).to_string();
    assert_eq!(row, ["close", raised.as_str(), truth.c.to_string().as_str()]);
    let row = verified.row("                    volume");
    assert_eq!(row, ["7.25", truth.vol.to_string().as_str()]);
    assert!(verified.out.ends_with("heal it with: okx-store verify BTC-USDT 1m --repair\n"));
    assert!(verified.out.lines().all(|line| line.chars().count() <= 80), "{}", verified.out);

    let verified = home.run("verify BTC-USDT 1m --json").exits(1);
    assert_eq!(bars(&verified), [2_880, 2_877, 1, 1, 1]);
    let json = verified.json();
    assert_eq!(json["missing_ranges"][0]["start"], ago(100));
    assert_eq!(json["foreign_ranges"][0]["start"], ago(2_000));
    let different = &json["different_bars"][0];
    assert_eq!(different["stored"]["close"], truth.c + 0.5);
    assert_eq!(different["exchange"]["close"], truth.c);

    let repaired = home.run("verify BTC-USDT 1m --repair").exits(1);
    let told = "BTC-USDT 1m differed from the exchange in 3 bars, and still does in 1\n";
    assert!(repaired.out.starts_with(told), "{repaired:?}");
    let last = repaired.out.lines().last().unwrap();
    assert_eq!(last, "repaired 2 of 2 bars; what only the store has may have existed, and stays");
    let verified = home.run("verify BTC-USDT 1m --repair --json").exits(1);
    assert_eq!(bars(&verified), [2_880, 2_879, 0, 0, 1]);
    assert!(verified.json()["repair"].is_null());
    let revisions = "SELECT count(*) FROM revisions WHERE volume = 7.25";
    let kept: i64 = home.open("BTC-USDT").query_row(revisions, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "the old values are kept");
}

#[test]
fn what_the_store_says_of_itself_is_not_believed() {
    let exchange = market().start();
    let home = synced(&exchange);
    let gone = home.open("BTC-USDT").execute("DELETE FROM candles_1m WHERE ts < ?1", [ago(9)]);
    assert_eq!(gone.unwrap(), 2_871);
    let verified = home.run("verify BTC-USDT 1m --json").exits(1);
    assert_eq!(bars(&verified), [2_880, 9, 2_871, 0, 0]);
    // Neither spans nor rows.
    home.open("BTC-USDT").execute_batch("DELETE FROM spans; DELETE FROM empties").unwrap();
    let repaired = home.run("verify BTC-USDT 1m --json --repair").exits(0);
    assert_eq!(bars(&repaired), [2_880, 9, 2_871, 0, 0]);
    assert_eq!(repaired.json()["repair"]["left"], 0);
    home.run("verify BTC-USDT 1m").exits(0);
    home.assert_equals(&exchange);
}

#[test]
fn bars_that_have_just_closed_are_not_held_against_the_store() {
    let exchange = market().start();
    let home = synced(&exchange);
    exchange.advance(3 * MINUTE);
    let verified = home.run("verify BTC-USDT 1m --json").exits(1);
    let counted = (bars(&verified), verified.json()["not_compared"]["fresh"].as_i64());
    // Of three new bars one is due: the others ended less than two minutes ago.
    assert_eq!(counted, ([2_878, 2_877, 1, 0, 0], Some(2)));
    let repaired = home.run("verify BTC-USDT 1m --repair").exits(0);
    let told = "BTC-USDT 1m differed from the exchange in 1 bar, and equals it now\n";
    assert!(repaired.out.starts_with(told), "{repaired:?}");

    let exchange = market().start();
    let home = synced(&exchange);
    exchange.set_late_confirm(2 * MINUTE + MINUTE / 2);
    exchange.advance(3 * MINUTE);
    let verified = home.run("verify BTC-USDT 1m --json").exits(1);
    let counted = (bars(&verified), verified.json()["not_compared"]["unconfirmed"].as_i64());
    assert_eq!(counted, ([2_878, 2_877, 1, 0, 0], Some(2)));
}

#[test]
fn answers_that_are_cut_short_or_empty_or_fail_change_nothing() {
    let odd = vec![Fault::ShortPage, Fault::EmptyPage, Fault::DuplicateRows];
    let failing: Vec<Fault> =
        Fault::failures().into_iter().filter(|fault| !matches!(fault, Fault::Stall(_))).collect();
    for (name, cap, script) in [
        ("capped", 100, None),
        ("odd", 300, Some(Script::chance(3, 0.5, odd))),
        ("failing", 300, Some(Script::every(4, failing))),
    ] {
        let exchange = market().page_cap(cap).start();
        let home = synced(&exchange);
        spoil(&exchange, &home);
        exchange.set_faults(script.into_iter().collect());
        let verified = home.run("verify BTC-USDT 1m --json").exits(1);
        assert_eq!(bars(&verified), [2_880, 2_877, 1, 1, 1], "{name}");
        assert_eq!(verified.json()["not_compared"]["absent"], 0, "{name}");
    }
}

#[test]
fn a_sample_reads_whole_pages_spread_over_the_range() {
    let exchange = market().start();
    let home = synced(&exchange);
    change(&home, DELETE, 600);
    change(&home, DELETE, 5);
    let asked = exchange.requests().len();
    let verified = home.run("verify BTC-USDT 1m --sample 20 --json").exits(1);
    let json = verified.json();
    assert_eq!((&json["pages"]["planned"], &json["pages"]["in_range"]), (&2.into(), &10.into()));
    assert_eq!(json["not_compared"]["not_sampled"], 2_880 - 600);
    assert_eq!(bars(&verified), [600, 599, 1, 0, 0]);
    assert_eq!(exchange.requests().len(), asked + 3);
    home.run("verify BTC-USDT 1m --sample 20 --repair").exits(0);
    let verified = home.run("verify BTC-USDT 1m").exits(1);
    assert!(verified.out.contains("2024-04-30 23:55  2024-04-30 23:56     1"), "{}", verified.out);
    let sampled = home.run("verify BTC-USDT 1m --sample 20").exits(0);
    assert!(flat(&sampled).contains(", a sample of 20%: 2 of 10 pages"), "{}", sampled.out);
}

#[test]
fn the_range_is_what_is_configured_or_asked_for_or_stored() {
    let exchange = market().start();
    let home = synced(&exchange);
    home.run("backfill BTC-USDT 1m --days 4").exits(0);
    home.run("backfill BTC-USDT 15m --start 2024-04-20 --end 2024-04-25").exits(0);
    for (words, code, compared, absent) in [
        ("verify BTC-USDT 1m", 0, 2_880, 0),
        ("verify BTC-USDT 1m --days 4", 0, 5_760, 0),
        ("verify BTC-USDT 1m --days 1", 0, 1_440, 0),
        ("verify BTC-USDT 15m", 0, 480, 0),
        // The newest has closed half a minute ago.
        ("verify BTC-USDT 15m --days 2", 1, 191, 0),
        // It was listed twenty days ago.
        ("verify BTC-USDT 15m --days 300", 1, 1_919, 300 * 96 - 1_920),
    ] {
        let verified = home.run(&format!("{words} --json")).exits(code);
        assert_eq!(bars(&verified)[0], compared, "{words}");
        assert_eq!(verified.json()["not_compared"]["absent"], absent, "{words}");
    }
    let told = home.run("verify BTC-USDT 1m").exits(0);
    let older = "what is stored before, back to 2024-04-27 00:00 (--days goes further)";
    assert!(flat(&told).contains(older), "{}", told.out);
    let nothing = home.run("verify BTC-USDT 15m --days 1 --json --sample 0.5").exits(1);
    assert_eq!(bars(&nothing)[0], 95);
}

#[test]
fn who_has_nothing_to_verify_is_told_so() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m 1W", 2);
    let asked = exchange.requests().len();
    home.run("verify BTC-USDT 1m").exits(1).last_word("no such file: sync the instrument first");
    home.run("verify ETH-USDT 1m").exits(1).last_word("neither configured nor stored");
    assert!(!home.data_dir().exists(), "verify has made a folder");
    home.run("sync --all").exits(0);
    home.run("verify BTC-USDT 4H").exits(1).last_word("holds no 4H candles, only 1m 1W");
    home.open("BTC-USDT").execute("DELETE FROM candles_1m", []).unwrap();
    home.run("verify BTC-USDT 1m").exits(1).last_word("no candle is stored");
    home.run("verify BTC-USDT 1W --days 1").exits(1).last_word("has opened and closed");
    assert!(exchange.requests().len() > asked);
    home.run("verify BTC-USDT 1m --sample 0").exits(2).last_word("--sample 0: give a percentage");
}

#[test]
fn an_exchange_that_is_gone_fails_the_verification() {
    let exchange = market().start();
    let home = synced(&exchange);
    change(&home, DELETE, 2_800);
    exchange.stop();
    let failed = home.run("verify BTC-USDT 1m").exits(1);
    failed.last_word("okx-store: no answer from 127.0.0.1:");
    assert_eq!(failed.out, "");
    // Later, what was found until then is told all the same.
    exchange.resume();
    let after = Script::always(Fault::Html(403)).matching(|ask| ask.after > Some(ago(1_000)));
    exchange.set_faults(vec![after]);
    let failed = home.run("verify BTC-USDT 1m --json --repair").exits(1);
    failed.last_word("answered HTTP 403");
    let json = failed.json();
    assert_eq!((&json["finished"], &json["equal"]), (&false.into(), &false.into()));
    assert_eq!(
        (bars(&failed), &json["not_compared"]["unasked"]),
        ([1_800, 1_799, 1, 0, 0], &1_080.into())
    );
    assert!(json["repair"].is_null(), "half a verification heals nothing");
}

#[test]
fn an_interrupted_verification_tells_what_it_has_found() {
    let exchange = market().latency_ms(50).start();
    let home = synced(&exchange);
    change(&home, DELETE, 2_800);
    let home = home.key("rate_limit_per_minute", "60");
    let asked = exchange.count(Endpoint::History);
    let running = home.start("verify BTC-USDT 1m --json");
    exchange.wait_until("the second page", || exchange.count(Endpoint::History) >= asked + 2);
    running.signal("INT");
    let ended = running.wait().exits(1);
    ended.last_word("okx-store: stopped; nothing was left behind");
    assert_eq!((&ended.json()["finished"], bars(&ended)[2]), (&false.into(), 1));
}

#[test]
fn a_revised_bar_is_seen_and_taken_over() {
    let exchange = market().start();
    let home = synced(&exchange);
    let old = exchange.truth("BTC-USDT", "1m", ago(2_500), ago(2_499)).remove(0);
    exchange.revise("BTC-USDT", "1m", Row { vol_quote: old.vol_quote + 1.0, ..old });
    let verified = home.run("verify BTC-USDT 1m").exits(1);
    assert_eq!(verified.row("  2024-04-29 06:20")[0], "volume_quote");
    home.run("verify BTC-USDT 1m --repair").exits(0);
    home.assert_equals(&exchange);
}

#[test]
fn a_foreign_bar_stays() {
    let exchange = market().start();
    exchange.hole("BTC-USDT", ago(400), ago(300));
    let home = synced(&exchange);
    let verified = home.run("verify BTC-USDT 1m --json").exits(0);
    assert_eq!(
        (bars(&verified)[0], &verified.json()["not_compared"]["absent"]),
        (2_780, &100.into())
    );
    change(&home, COPY, 350);
    let verified = home.run("verify BTC-USDT 1m --repair").exits(1);
    let last = verified.out.lines().last().unwrap();
    assert_eq!(last, "nothing to repair; what only the store has may have existed, and stays");
    assert_eq!(home.count("BTC-USDT", "candles_1m"), 2_781);
}

#[test]
fn a_row_off_the_grid_is_moved_out_of_the_way() {
    let exchange = market().start();
    exchange.hole("BTC-USDT", ago(400), ago(300));
    let home = synced(&exchange);
    // Beside a bar, in a hole, and among the newest, which show where bars open.
    for minutes in [1_000, 350, 2] {
        let off = COPY.replace("?1,", "?1 + 1,");
        change(&home, &off, minutes);
    }
    let verified = home.run("verify BTC-USDT 1m --json").exits(1);
    assert_eq!(
        (bars(&verified), &verified.json()["bars"]["off_grid"]),
        ([2_783, 2_780, 0, 0, 3], &3.into())
    );
    let repaired = home.run("verify BTC-USDT 1m --repair").exits(0);
    let lines: Vec<&str> = repaired.out.lines().collect();
    assert_eq!(lines[0], "BTC-USDT 1m differed from the exchange in 3 bars, and equals it now");
    let last = *lines.last().unwrap();
    assert_eq!(last, "repaired 3 of 3 bars, rows off the grid into revisions");
    let revisions = "SELECT count(*) FROM revisions WHERE ts % 60000 = 1";
    let kept: i64 = home.open("BTC-USDT").query_row(revisions, [], |row| row.get(0)).unwrap();
    assert_eq!((kept, home.count("BTC-USDT", "candles_1m")), (3, 2_780));
    home.run("verify BTC-USDT 1m").exits(0);
}

#[test]
fn what_was_found_is_told_although_nobody_may_heal_it() {
    let exchange = market().start();
    let home = synced(&exchange);
    change(&home, DELETE, 100);
    let held = Lock::take(&home.data_dir()).unwrap();
    home.run("verify BTC-USDT 1m").exits(1);
    let refused = home.run("verify BTC-USDT 1m --repair --json").exits(1);
    refused.last_word("is writing here: wait for it");
    let json = refused.json();
    assert_eq!((bars(&refused)[2], &json["finished"]), (1, &true.into()));
    assert!(json["repair"]["left"].is_null() && json["repair"]["ranges"][0]["bars"] == 1, "{json}");
    drop(held);
    home.run("verify BTC-USDT 1m --repair").exits(0);
}

#[test]
fn a_verification_and_a_sync_keep_to_the_limits_together() {
    let exchange = market().latency_ms(5).start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 4).instrument("ETH-USDT", "1m", 8);
    home.run("sync BTC-USDT").exits(0);
    let asked = exchange.count(Endpoint::History);
    // The exchange fails the test if it is asked too often.
    let sync = home.start("sync ETH-USDT");
    exchange.wait_until("the sync's pages", || exchange.count(Endpoint::History) > asked + 5);
    let verified = home.run("verify BTC-USDT 1m --json").exits(0);
    assert_eq!(bars(&verified)[0], 5_760);
    sync.wait().exits(0);
}

#[test]
fn a_daemon_is_verified_while_it_streams_and_heals_what_is_found() {
    let exchange = live::market(&["BTC-USDT"]).start();
    let home = live::home(&exchange).instrument("BTC-USDT", "1s 1m", 1);
    let mut live = Live::start(&home);
    live.streams("at first");
    let pages = |words: &str| {
        let verified = home.run(&format!("verify BTC-USDT {words} --json"));
        (bars(&verified), verified)
    };
    let ([compared, equal, ..], verified) = pages("1s");
    assert!(compared >= 550 && equal == compared, "{compared} {equal} {verified:?}");
    verified.exits(0);

    let first: i64 = live::START - 5 * MINUTE;
    for (table, sql) in [
        ("candles_1s", "DELETE FROM candles_1s WHERE ts >= ?1 AND ts < ?1 + 20000"),
        ("candles_1s", "UPDATE candles_1s SET high = high + 1 WHERE ts = ?1 + 90000"),
        (
            "candles_1m",
            "UPDATE candles_1m SET close = 0.125 WHERE ts = (SELECT min(ts) FROM
             candles_1m WHERE ts >= ?1)",
        ),
    ] {
        let changed = home.open("BTC-USDT").execute(sql, [first]).unwrap();
        assert!(changed > 0, "{table}");
    }
    for (bar, missing, different) in [("1s", 20, 1), ("1m", 0, 1)] {
        let ([_, _, missed, differed, foreign], verified) = pages(bar);
        assert_eq!([missed, differed, foreign], [missing, different, 0], "{bar}");
        verified.exits(1);
        let (found, repaired) = pages(&format!("{bar} --repair"));
        assert_eq!(found[2..], [missing, different, 0], "{bar}: {repaired:?}");
        assert_eq!(repaired.json()["repair"]["left"], 0, "{bar}: {repaired:?}");
        repaired.exits(0);
    }
    pages("1m").1.exits(0);
    live.streams("after all");
    live.stop("TERM").exits(0);
}

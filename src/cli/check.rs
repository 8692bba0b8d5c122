//! From the texts of a command line to typed values within their bounds. Each refusal names the
//! option, the value and the rule, in one line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::bar::Bar;
use crate::cli::args::{self, Word};
use crate::cli::command::{Command, Which};
use crate::cli::export::{Export, Target};
use crate::cli::gaps::Gaps;
use crate::cli::query::{self, Format, Query};
use crate::cli::status::{self, Status};
use crate::cli::verify::Verify;
use crate::cli::websocket::WebSocket;
use crate::config::{Addition, HISTORY_DAYS, SYNC_INTERVAL_SECONDS, StreamChange};
use crate::instrument::{Instrument, Series};
use crate::okx::Kind;
use crate::span::Span;
use crate::spelling::nearest;
use crate::store::query::{EVERYTHING, Selection};
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND, parse_time};
use crate::verification::Share;

/// Bounds of `--count`: nineteen years of minutes.
const COUNT: RangeInclusive<i64> = 1..=10_000_000;
/// Bounds of `--timeout`, seconds, and what it is without a word.
const TIMEOUT_SECONDS: RangeInclusive<i64> = 1..=600;
const TIMEOUT: Millis = 10 * SECOND;
/// The longest lag that `--check` takes: ten thousand days, like all that counts days.
const CHECK_MAX: Millis = 10_000 * DAY;
/// What `websocket` can do, each with the options that it takes.
pub(super) const ACTIONS: [(&str, &[&str]); 3] = [
    ("status", &["--json"]),
    ("test", &["--timeout"]),
    ("config", &["--enable", "--disable", "--set-mode"]),
];

/// Checks all values of a command.
pub(super) fn command(word: Word) -> Result<Command, String> {
    Ok(match word {
        Word::Status(args) => Command::Status(status(&args)?),
        Word::Sync(args) => Command::Sync(which(&args)?),
        Word::Backfill(args) => Command::Backfill {
            series: series(&args.symbol, &args.timeframe)?,
            selection: selection(None, args.days, args.start, args.end)?.unwrap_or_default(),
        },
        Word::Gaps(args) => gaps(&args)?,
        Word::Verify(args) => Command::Verify(verify(&args)?),
        Word::Query(args) => Command::Query(Query {
            series: series(&args.symbol, &args.timeframe)?,
            format: format(args.format.as_deref(), args.json)?,
            selection: selection(args.count, args.days, args.start, args.end)?
                .unwrap_or(query::ROWS),
        }),
        Word::Export(args) => Command::Export(export(args)?),
        Word::Overview(args) => Command::Overview { json: args.json },
        Word::AddSymbol(args) => Command::AddSymbol(addition(&args)?),
        Word::RemoveSymbol(args) => {
            Command::RemoveSymbol { instrument: parsed(&args.symbol)?, purge: args.purge }
        }
        Word::List(args) => {
            if args.kind.is_some() && !args.available {
                return Err("--type is for list --available alone".to_owned());
            }
            let kind = args.kind.map_or(Ok(Kind::Spot), |text| kind(&text))?;
            Command::List { available: args.available.then_some(kind), json: args.json }
        }
        Word::Daemon(args) => Command::Daemon { no_sync_on_start: args.no_sync_on_start },
        Word::WebSocket(args) => Command::WebSocket(websocket(&args)?),
        Word::Doctor(args) => Command::Doctor { json: args.json },
        Word::Service(_) => Command::Service,
        Word::Completions(args) => Command::Completions(parsed(&args.shell)?),
    })
}

fn status(args: &args::Status) -> Result<Status, String> {
    use status::Format;
    let format = match (args.format.as_deref(), args.json) {
        (None, false) | (Some("table"), false) => Format::Table,
        (None | Some("json"), true) | (Some("json"), false) => Format::Json,
        (Some("prometheus"), false) => Format::Prometheus,
        (Some("table" | "prometheus"), true) => {
            return Err("--format and --json exclude each other".to_owned());
        }
        (Some(other), _) => {
            return Err(format!("--format {other}: give one of table, json, prometheus"));
        }
    };
    let max_lag_ms = args.check.as_deref().map(length).transpose()?;
    Ok(Status { format, max_lag_ms })
}

/// A length of time, in seconds unless its unit is given.
fn length(text: &str) -> Result<Millis, String> {
    let units = [("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
    let (digits, unit_ms) = units
        .iter()
        .find_map(|&(unit, ms)| Some((text.strip_suffix(unit)?, ms)))
        .unwrap_or((text, SECOND));
    let rule = || format!("--check {text}: give a length of time such as 90s, 5m, 2h or 1d");
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: Millis = digits.parse().ok().filter(|_| is_whole).ok_or_else(rule)?;
    number.checked_mul(unit_ms).filter(|&ms| ms <= CHECK_MAX).ok_or_else(rule)
}

fn which(args: &args::Sync) -> Result<Which, String> {
    match (args.all, args.symbols.is_empty()) {
        (true, true) => Ok(Which::All),
        (true, false) => Err("sync: give either symbols or --all".to_owned()),
        (false, true) => {
            Err("sync: give symbols, or --all for every configured instrument".to_owned())
        }
        (false, false) => Ok(Which::These(distinct(&args.symbols)?)),
    }
}

fn gaps(args: &args::Gaps) -> Result<Command, String> {
    if let Some(word) = args.series.get(2) {
        return Err(format!("gaps: {word:?} is one word too many: give SYMBOL and TIMEFRAME"));
    }
    let instrument = args.series.first().map(|text| parsed(text)).transpose()?;
    let bar = args.series.get(1).map(|text| parsed(text)).transpose()?;
    let asked = Gaps { instrument, bar, json: args.json, check: args.check };
    Ok(Command::Gaps { asked, fill: args.fill })
}

fn verify(args: &args::Verify) -> Result<Verify, String> {
    let sample = args
        .sample
        .as_deref()
        .map(|text| text.parse::<Share>().map_err(|rule| format!("--sample {text}: {rule}")));
    let days = args.days.as_deref().map(|text| whole("--days", text, HISTORY_DAYS));
    Ok(Verify {
        series: series(&args.symbol, &args.timeframe)?,
        days: days.transpose()?,
        sample: sample.transpose()?.unwrap_or(Share::ALL),
        repair: args.repair,
        json: args.json,
    })
}

fn export(args: args::Export) -> Result<Export, String> {
    let target = match args.output.as_str() {
        "" => return Err("export: OUTPUT is empty: give a file, or - for standard output".into()),
        "-" => Target::Stdout,
        path => Target::File(path.into()),
    };
    Ok(Export {
        series: series(&args.symbol, &args.timeframe)?,
        target,
        selection: selection(None, args.days, args.start, args.end)?.unwrap_or_default(),
        unconfirmed: args.unconfirmed,
        complete: args.complete,
    })
}

fn addition(args: &args::AddSymbol) -> Result<Addition, String> {
    let timeframes = distinct(&args.timeframes).map_err(|rule| format!("--timeframes: {rule}"))?;
    let number = |name, text: &Option<String>, bounds| {
        text.as_deref().map(|text| whole(name, text, bounds)).transpose()
    };
    let source = args.source.as_deref().map(|text| named("--source", text)).transpose()?;
    Ok(Addition {
        instrument: parsed(&args.symbol)?,
        timeframes,
        sync_interval_seconds: number("--interval", &args.interval, SYNC_INTERVAL_SECONDS)?,
        max_history_days: number("--history-days", &args.history_days, HISTORY_DAYS)?,
        realtime_source: source,
    })
}

fn websocket(args: &args::WebSocket) -> Result<WebSocket, String> {
    let action = args.action.as_str();
    let Some((_, own)) = ACTIONS.iter().find(|(name, _)| *name == action) else {
        let names = ACTIONS.map(|(name, _)| name);
        return Err(match nearest(action, names) {
            Some(near) => format!("websocket: unknown action {action:?}, did you mean {near}?"),
            None => format!("websocket: {action:?} is unknown: give one of {}", names.join(", ")),
        });
    };
    let given = [
        ("--json", args.json),
        ("--timeout", args.timeout.is_some()),
        ("--enable", args.enable),
        ("--disable", args.disable),
        ("--set-mode", args.set_mode.is_some()),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if let Some(stray) = given.iter().find(|name| !own.contains(name)) {
        return Err(format!(
            "websocket {action} has no option {stray}: see okx-store websocket --help"
        ));
    }
    if let [first, second, ..] = given[..] {
        return Err(format!("{first} and {second} exclude each other"));
    }
    let timeout = args.timeout.as_deref();
    let timeout = timeout.map(|text| whole("--timeout", text, TIMEOUT_SECONDS)).transpose()?;
    Ok(match action {
        "status" => WebSocket::Status { json: args.json },
        "test" => {
            let timeout_ms = timeout.map_or(TIMEOUT, |seconds| Millis::from(seconds) * SECOND);
            WebSocket::Test { timeout_ms }
        }
        _ if args.enable || args.disable => {
            WebSocket::Config(Some(StreamChange::Enabled(args.enable)))
        }
        _ => {
            let mode =
                args.set_mode.as_deref().map(|text| named("--set-mode", text)).transpose()?;
            WebSocket::Config(mode.map(StreamChange::Mode))
        }
    })
}

/// The one selection that was asked for, if any.
fn selection(
    count: Option<String>,
    days: Option<String>,
    start: Option<String>,
    end: Option<String>,
) -> Result<Option<Selection>, String> {
    let given = [("--count", &count), ("--days", &days), ("--start", &start), ("--end", &end)];
    let given: Vec<&str> =
        given.into_iter().filter_map(|(name, text)| text.as_ref().map(|_| name)).collect();
    match given[..] {
        [] | [_] | ["--start", "--end"] => {}
        [first, second, ..] => return Err(format!("{first} and {second} exclude each other")),
    }
    let time = |name, text: &str| parse_time(text).map_err(|error| format!("{name}: {error}"));
    Ok(match (count, days, start, end) {
        (Some(count), ..) => Some(Selection::Newest(whole("--count", &count, COUNT)?)),
        (_, Some(days), ..) => Some(Selection::Days(whole("--days", &days, HISTORY_DAYS)?)),
        (_, _, Some(from), to) => {
            let start = time("--start", &from)?;
            let end = to.as_deref().map(|text| time("--end", text)).transpose()?;
            if let Some(to) = to.filter(|_| end.is_some_and(|end| end <= start)) {
                return Err(format!("--end {to}: give a time after --start {from}"));
            }
            Some(Selection::Range(Span::new(start, end.unwrap_or(EVERYTHING.end))))
        }
        (_, _, None, Some(to)) => {
            Some(Selection::Range(Span::new(EVERYTHING.start, time("--end", &to)?)))
        }
        (None, None, None, None) => None,
    })
}

fn format(text: Option<&str>, json: bool) -> Result<Format, String> {
    match (text, json) {
        (None, false) | (Some("table"), false) => Ok(Format::Table),
        (None | Some("json"), true) | (Some("json"), false) => Ok(Format::Json),
        (Some("csv"), false) => Ok(Format::Csv),
        (Some("table" | "csv"), true) => Err("--format and --json exclude each other".to_owned()),
        (Some(other), _) => Err(format!("--format {other}: give one of table, json, csv")),
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        format!("--type {text}: give one of {}", Kind::ALL.map(Kind::as_str).join(", "))
    })
}

fn series(symbol: &str, timeframe: &str) -> Result<Series, String> {
    Ok(Series { instrument: parsed::<Instrument>(symbol)?, bar: parsed::<Bar>(timeframe)? })
}

/// A value whose type's own error says all there is to say.
fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|error| error.to_string())
}

fn named<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, String> {
    parsed(text).map_err(|rule| format!("{name}: {rule}"))
}

/// Values in their order, each once.
fn distinct<T: FromStr<Err: Display> + PartialEq>(texts: &[String]) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    for text in texts {
        let value = parsed(text)?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    Ok(values)
}

fn whole(name: &str, text: &str, bounds: RangeInclusive<i64>) -> Result<u32, String> {
    // `parse` alone would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && bounds.contains(number));
    number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| {
        format!("{name} {text}: give a whole number from {} to {}", bounds.start(), bounds.end())
    })
}

//! `websocket status`: the dashboard of the stream, from what the daemon shows of itself.

use std::io::Write;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, finish, write_json};
use crate::cli::paint::{Paint, Tone};
use crate::cli::sight::{DaemonStatus, Sight, tone, whole_length};
use crate::cli::table::{
    Align, COLUMNS, Layout, count, format_age, format_share, short_length, unless_repeated, wrap,
    write_wrapped,
};
use crate::config::Config;
use crate::snapshot::{InstrumentView, LatencyView, RestView, SeriesView, StreamView};
use crate::time::{Millis, format_length};

/// The columns before the values, where what goes on hangs as well.
const LEAD: usize = 13;
/// The least room for reasons; where names are long they go below them.
const REASON_MIN: usize = 24;

/// Everything that `websocket status` knows. The names are public: scripts read them, and they are
/// those of the snapshot.
#[derive(Serialize)]
struct Report {
    daemon: DaemonStatus,
    websocket: StreamView,
    latency: LatencyView,
    rest: RestView,
    /// Whether frames are compressed. The exchange does not offer it.
    compression: bool,
    instruments: Vec<InstrumentView>,
}

/// Shows the stream of the daemon that works in the configured folder, if one does.
pub fn status(
    config: &Config,
    json: bool,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let sight = Sight::try_look(&config.data_dir).map_err(Failure::Lock)?;
    show(config, sight.as_ref(), json, paint, out)
}

fn show(
    config: &Config,
    sight: Option<&Sight>,
    json: bool,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let done = match (sight, json) {
        (_, true) => write_json(&report(sight), out),
        (None, false) => write_absence(config, paint, out),
        (Some(sight), false) => Board { sight, paint }.write(out),
    };
    finish(done, out)
}

fn report(sight: Option<&Sight>) -> Report {
    let snapshot = sight.map(|sight| sight.snapshot.clone()).unwrap_or_default();
    Report {
        daemon: sight.map_or_else(DaemonStatus::default, Sight::daemon),
        websocket: snapshot.stream,
        latency: snapshot.latency,
        rest: snapshot.rest,
        compression: false,
        instruments: snapshot.instruments,
    }
}

fn line(out: &mut dyn Write, name: &str, text: &str) -> Result<(), Failure> {
    Ok(write_wrapped(out, &format!("{name:LEAD$}"), text)?)
}

/// A length that was measured, in whole ms; nothing that takes time takes none.
fn measured(length_ms: Option<Millis>) -> String {
    match length_ms {
        None => "-".to_owned(),
        Some(0) => "<1ms".to_owned(),
        Some(length_ms) => format_length(length_ms),
    }
}

fn write_absence(config: &Config, paint: Paint, out: &mut dyn Write) -> Result<(), Failure> {
    let mark = paint.mark(Tone::Faint);
    line(out, "connection", &format!("{mark}none: no daemon is running"))?;
    line(out, "would go to", config.ws_url())?;
    let (mode, enabled) = (config.realtime_mode, config.enable_websocket);
    line(out, "settings", &format!("realtime_mode {mode}, enable_websocket {enabled}"))?;
    writeln!(out, "\nStart one with: nohup okx-store daemon &")?;
    Ok(writeln!(out, "Try the stream with: okx-store websocket test")?)
}

/// A dashboard in the making.
struct Board<'a> {
    sight: &'a Sight,
    paint: Paint,
}

impl Board<'_> {
    fn write(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.sight.is_shown() {
            line(out, "connection", &format!("{}unknown", self.paint.mark(Tone::Faint)))?;
            return self.write_daemon(out);
        }
        self.write_connection(out)?;
        self.write_health(out)?;
        self.write_requests(out)?;
        self.write_instruments(out)
    }

    fn write_connection(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let stream = &self.sight.snapshot.stream;
        let (tone, words) = self.sight.connection();
        let limit = match stream.connected {
            true => format!(" of {} at most", whole_length(stream.max_age_ms)),
            false => String::new(),
        };
        let words = format!("{}{words}{limit}", self.paint.mark(tone));
        line(out, "connection", &words)?;
        line(out, "", &stream.url)?;
        if let (Some(error), Tone::Bad | Tone::Fair) = (&stream.last_error, tone) {
            line(out, "", error)?;
        }
        if let Some(login) = &stream.login {
            line(out, "login", login)?;
        }
        let StreamView { subscriptions, wanted, .. } = stream;
        line(out, "series", &format!("{subscriptions} of {wanted} subscribed"))?;
        let heard = stream.last_heard_ms.map(|age_ms| format_age(self.sight.since(age_ms)));
        let heard = heard.unwrap_or_else(|| "never".to_owned());
        // What was measured on a connection that is gone tells nothing of the next one.
        let rate = match stream.connected {
            true => format!(", {:.1} updates a second", stream.updates_per_second),
            false => String::new(),
        };
        line(out, "last frame", &format!("{heard}{rate}"))
    }

    fn write_health(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let snapshot = &self.sight.snapshot;
        let StreamView { breaker, failures, reconnects, errors, frames, .. } = &snapshot.stream;
        let rtt_ms = snapshot.stream.rtt_ms.filter(|_| snapshot.stream.connected);
        line(out, "ping", &measured(rtt_ms))?;
        let LatencyView { p50_ms, p99_ms, confirmed_p50_ms, confirmed_p99_ms, updates } =
            snapshot.latency;
        let share = |name, ms: Option<Millis>| format!("{name} {}", measured(ms));
        let all = [share("p50", p50_ms), share("p99", p99_ms)].join(", ");
        let closed = [share("p50", confirmed_p50_ms), share("p99", confirmed_p99_ms)].join(", ");
        line(out, "latency", &format!("{all}; closed bars {closed}"))?;
        line(out, "", &format!("from the exchange to the file, {updates} updates in 10m"))?;
        line(out, "reconnects", &format!("{reconnects} in 24h"))?;
        let errors_text = match frames {
            0 => format!("{errors} in 24h"),
            _ => format!("{errors} in 24h, {} of {frames} frames", rate(*errors, *frames)),
        };
        line(out, "errors", &errors_text)?;
        let words = breaker.replace('_', " ");
        let breaker = match failures {
            0 => words,
            _ => format!("{words}, {} in a row", count(i64::from(*failures), "failure")),
        };
        line(out, "breaker", &breaker)?;
        line(out, "compression", "not offered by the exchange")
    }

    fn write_requests(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let snapshot = &self.sight.snapshot;
        let RestView { requests, per_minute, saved, saved_share, paused, .. } = &snapshot.rest;
        let requests = count(*requests as i64, "request");
        line(out, "rest", &format!("{requests} since the start, {per_minute} in the last minute"))?;
        let share = saved_share.map_or_else(String::new, |share| {
            format!(", {} of all that polling would take", format_share(share))
        });
        line(out, "saved", &format!("{}{share}", count(*saved as i64, "request")))?;
        let alerts = [
            ("rest rests", paused),
            ("storage", &snapshot.stalled),
            ("config", &snapshot.config_error),
        ];
        for (name, alert) in alerts {
            if let Some(alert) = alert {
                line(out, name, &format!("{}{alert}", self.paint.mark(Tone::Bad)))?;
            }
        }
        self.write_daemon(out)
    }

    fn write_daemon(&self, out: &mut dyn Write) -> Result<(), Failure> {
        line(out, "daemon", &self.sight.headline())?;
        match self.sight.obstacle() {
            Some(obstacle) => line(out, "", &format!("{}{obstacle}", self.paint.mark(Tone::Bad))),
            None => Ok(()),
        }
    }

    fn write_instruments(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let instruments = &self.sight.snapshot.instruments;
        let unmarked = self.paint.mark(Tone::Good).is_empty();
        let columns = [
            // Above the names, which stand behind the marks.
            (if unmarked { "instrument" } else { "  instrument" }, Align::Left),
            ("mode", Align::Left),
            ("for", Align::Right),
            ("bars", Align::Right),
            ("updated", Align::Left),
            ("", Align::Left),
        ];
        let rows: Vec<Vec<String>> = instruments.iter().map(|view| self.cells(view)).collect();
        let mut layout = Layout::new("", &columns);
        rows.iter().for_each(|cells| layout.fit(cells));
        writeln!(out)?;
        layout.write_head(out)?;
        let mut above = "";
        for (view, cells) in instruments.iter().zip(rows) {
            let room = COLUMNS.saturating_sub(layout.width());
            let reason = unless_repeated(&view.reason, above, room);
            self.write_instrument(view, reason, &layout, cells, out)?;
            above = &view.reason;
        }
        Ok(())
    }

    /// All but the reason, whose cell is empty so far.
    fn cells(&self, view: &InstrumentView) -> Vec<String> {
        let now = self.sight.seen_at();
        let tone = tone(&view.mode, view.fell_back);
        let updated = view.series.iter().filter_map(|series| series.updated_at).max();
        let streamed = view.series.iter().filter(|series| series.via == "stream").count();
        let all = view.series.len();
        vec![
            format!("{}{}", self.paint.mark(tone), view.symbol),
            self.paint.word(tone, &view.mode),
            // What is off has been so since nobody knows when.
            match view.since {
                0 => "-".to_owned(),
                since => short_length((now - since).max(0)),
            },
            if streamed == all { all.to_string() } else { format!("{streamed}/{all}") },
            updated.map_or_else(|| "-".to_owned(), |at| format_age(now - at)),
            String::new(),
        ]
    }

    /// One line where the reason is short; it goes on below its beginning, or below the name
    /// where there is little room beside it.
    fn write_instrument(
        &self,
        view: &InstrumentView,
        reason: &str,
        layout: &Layout,
        mut cells: Vec<String>,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let indent = layout.width();
        let room = COLUMNS.saturating_sub(indent);
        let mut below = if room < REASON_MIN { vec![reason.to_owned()] } else { Vec::new() };
        let mut reason = wrap(reason, room).into_iter();
        if below.is_empty() {
            cells[5] = reason.next().unwrap_or_default();
        }
        layout.write_row(out, &cells)?;
        if below.is_empty() {
            reason.try_for_each(|rest| writeln!(out, "{:indent$}{rest}", ""))?;
        }
        // What is wrong with the file is told once, and not by each of its series.
        let series = view.series.iter().filter(|_| view.error.is_none());
        below.extend(series.filter_map(complaint));
        for text in below {
            write_wrapped(out, "    ", &text)?;
        }
        if let Some(error) = &view.error {
            write_wrapped(out, &format!("    {}", self.paint.mark(Tone::Bad)), error)?;
        }
        Ok(())
    }
}

fn complaint(series: &SeriesView) -> Option<String> {
    let SeriesView { timeframe, via, last_error, .. } = series;
    last_error.as_ref().map(|error| format!("{timeframe} by {via}: {error}"))
}

/// A share that is 0 only where there is nothing: `<0.01%`.
fn rate(some: u64, all: u64) -> String {
    let share = 100.0 * some as f64 / all.max(1) as f64;
    if some > 0 && share < 0.01 { "<0.01%".to_owned() } else { format!("{share:.2}%") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sight::tests::sample;
    use crate::time::SECOND;

    fn run(sight: Option<&Sight>, json: bool, paint: Paint) -> String {
        let config = Config::builtin("/nowhere/config.json".into());
        let mut out = Vec::new();
        let exit = show(&config, sight, json, paint, &mut out).unwrap();
        assert_eq!(exit, Exit::Done);
        String::from_utf8(out).unwrap()
    }

    const BOARD: &str = "\
connection   connected for 12m 4s of 1h at most
             wss://ws.okx.com/ws/v5/business
series       4 of 5 subscribed
last frame   0.3s ago, 38.2 updates a second
ping         23ms
latency      p50 12ms, p99 84ms; closed bars p50 4ms, p99 9ms
             from the exchange to the file, 22950 updates in 10m
reconnects   2 in 24h
errors       3 in 24h, <0.01% of 120000 frames
breaker      closed
compression  not offered by the exchange
rest         412 requests since the start, 3 in the last minute
saved        31204 requests, 98.70% of all that polling would take
daemon       running, pid 1234, up 3h 5m

instrument     mode    for  bars  updated
BTC-USDT-SWAP  stream  12m     3  0.3s ago  the stream has met what is stored
ETH-USDT       stream  12m   1/2  1.2s ago  the stream has met what is stored
    1Dutc by poll: WebSocketSubscriptionError: 60018: wrong channel (it is
    polled: if that lasts, look at its symbol and timeframe)
SOL-USDT       poll    12m   0/1  31s ago   WebSocketTimeoutError: nothing came
                                            for 50s, not even the answer to a
                                            ping (connecting anew: if it lasts,
                                            look at the network)
DOGE-USDT      off     12m     0  -         its file is damaged
    DOGE-USDT.db: malformed
";

    #[test]
    fn a_dashboard_tells_the_state_of_the_stream() {
        let sight = sample(1_714_521_600_000);
        assert_eq!(run(Some(&sight), false, Paint::default()), BOARD);
        let painted = run(Some(&sight), false, Paint::new(true));
        assert!(painted.contains("connection   \u{1b}[32m●\u{1b}[0m connected"), "{painted}");
        let unpainted = painted.replace("\u{1b}[0m", "");
        let plain = |line: &str| crate::cli::paint::width(line) <= 82;
        assert!(unpainted.lines().all(plain), "{painted}");
    }

    #[test]
    fn what_is_wrong_is_told_where_it_belongs() {
        let mut sight = sample(1_714_521_600_000);
        sight.age_ms = Some(12 * SECOND);
        let snapshot = &mut sight.snapshot;
        let damaged = &mut snapshot.instruments[3];
        let last_error = damaged.error.clone();
        damaged.series = vec![SeriesView { last_error, ..SeriesView::default() }];
        snapshot.config_error = Some("config.json:3: sandbox: give true or false".into());
        snapshot.stalled = Some("the disk is full".into());
        snapshot.rest.paused = Some("50011: too many requests".into());
        let stream = &mut snapshot.stream;
        (stream.connected, stream.breaker, stream.failures) = (false, "open".into(), 5);
        (stream.retry_in_ms, stream.rtt_ms) = (Some(42_000), Some(1));
        (stream.frames, stream.subscriptions) = (0, 0);
        stream.login = Some("refused: 60009".into());
        stream.last_error = Some("WebSocketConnectionError: ws.okx.com:443: tcp: refused".into());
        let text = run(Some(&sight), false, Paint::default());
        for line in [
            "connection   resting: the breaker is open after 5 failures, next try in 30s",
            "             WebSocketConnectionError: ws.okx.com:443: tcp: refused",
            "login        refused: 60009",
            "series       0 of 5 subscribed",
            "last frame   12s ago",
            "ping         -",
            "errors       3 in 24h",
            "breaker      open, 5 failures in a row",
            "rest rests   50011: too many requests",
            "storage      the disk is full",
            "config       config.json:3: sandbox: give true or false",
            "daemon       running, pid 1234, up 3h 5m; snapshot 12s old",
            "             it shows nothing new: it is held up, or cannot write its snapshot,",
        ] {
            assert!(text.lines().any(|told| told == line), "{line:?} is not in:\n{text}");
        }
        assert_eq!(text.matches("DOGE-USDT.db: malformed").count(), 1, "{text}");
    }

    #[test]
    fn a_long_reason_of_many_is_told_once() {
        let mut sight = sample(1_714_521_600_000);
        for view in &mut sight.snapshot.instruments {
            view.reason = "WebSocketConnectionError: ws.okx.com: it hung up".into();
        }
        let text = run(Some(&sight), false, Paint::default());
        assert_eq!(text.matches("it hung up").count(), 1, "{text}");
        assert!(
            text.contains("\nSOL-USDT       poll    12m   0/1  31s ago   as above\n"),
            "{text}"
        );
    }

    #[test]
    fn without_a_daemon_it_says_how_to_get_one() {
        let text = run(None, false, Paint::default());
        let expected = "\
connection   none: no daemon is running
would go to  wss://ws.okx.com
settings     realtime_mode hybrid, enable_websocket true

Start one with: nohup okx-store daemon &
Try the stream with: okx-store websocket test
";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_stable_names_with_a_daemon_and_without() {
        let read = |sight: Option<&Sight>| -> serde_json::Value {
            serde_json::from_str(&run(sight, true, Paint::new(true))).unwrap()
        };
        let (with, without) = (read(Some(&sample(1_714_521_600_000))), read(None));
        for (path, with_daemon, without_one) in [
            ("/daemon/running", true.into(), false.into()),
            ("/daemon/pid", 1234.into(), serde_json::Value::Null),
            ("/websocket/connected", true.into(), false.into()),
            ("/websocket/subscriptions", 4.into(), 0.into()),
            ("/websocket/reconnects", 2.into(), 0.into()),
            ("/websocket/breaker", "closed".into(), "closed".into()),
            ("/websocket/rtt_ms", 23.into(), serde_json::Value::Null),
            ("/latency/confirmed_p99_ms", 9.into(), serde_json::Value::Null),
            ("/rest/saved", 31_204.into(), 0.into()),
            ("/compression", false.into(), false.into()),
        ] {
            assert_eq!(with.pointer(path), Some(&with_daemon), "{path}");
            assert_eq!(without.pointer(path), Some(&without_one), "{path}");
        }
        assert_eq!(with.pointer("/instruments/1/series/1/via"), Some(&"poll".into()));
        assert_eq!(without.pointer("/instruments"), Some(&serde_json::json!([])));
    }
}

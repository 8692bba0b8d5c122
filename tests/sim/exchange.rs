//! The model of the exchange: the market and the rules of the fixture exchange, with neither socket
//! nor thread; and its REST interface. It fails the run when a client breaks a rule.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use okx_local_store::candle::Candle;
use okx_local_store::instrument;
use okx_local_store::store::Scope;
use okx_local_store::time::{DAY, Millis, SECOND};
use okx_local_store::wire::Answer;

use crate::floor::{Feed, Line};
use crate::grid::Bar;
use crate::listing::Listing;
use crate::market::{Cursor, Market};
use crate::row::Row;
use crate::rules::{Ask, Endpoint, Rules};
use crate::stage::{Event, Lane, Page, Stage, ToClient, note};
use crate::talk;
use crate::weather::{RestFault, Spell, Weather};

/// Longer pages do not travel as text: to write and read them would take most of the time of a run.
const TEXT_ROWS_MAX: usize = 24;
/// Requests that are held back arrive together, once in so many ms.
const HICCUP_MS: Millis = 450;
/// About one range the exchange denies so often that history goes on. What it says three times is
/// believed for a week.
const DENIALS_MAX: u32 = 2;

/// One series by all of its names.
pub struct Known {
    pub series: instrument::Series,
    pub name: talk::Series,
    pub bar: Bar,
}

/// The exchange.
pub struct Exchange {
    pub market: Market,
    pub series: Vec<Known>,
    pub symbols: Vec<(String, Millis)>,
    /// The values that closed bars had before they were revised, by the number of the series.
    pub versions: BTreeMap<(usize, Millis), Vec<Row>>,
    pub spells: Vec<(Spell, Millis)>,
    pub rest: Vec<(RestFault, f64)>,
    pub lines: BTreeMap<u64, Line>,
    pub feeds: BTreeMap<usize, Feed>,
    pub connects: VecDeque<Millis>,
    pub push_ms: Millis,
    pub latency_ms: Millis,
    pub requests: u64,
    /// The faults that have struck.
    pub struck: Vec<RestFault>,
    /// Instruments whose file is damaged.
    pub damaged: BTreeSet<instrument::Instrument>,
    is_bursty: bool,
    page_cap: usize,
    rules: Rules,
    denials: BTreeMap<String, u32>,
}

impl Exchange {
    pub fn new(seed: u64, weather: &Weather) -> Exchange {
        let mut market = Market::new();
        market.history_lag_bars = weather.history_lag;
        let mut symbols = Vec::new();
        for (n, (member, &listed)) in weather.members.iter().zip(&weather.listed).enumerate() {
            let symbol = member.instrument.as_str().to_owned();
            let mut listing = Listing::synthetic(&symbol, seed, listed);
            for &(_, start, end) in weather.holes.iter().filter(|hole| hole.0 == n) {
                listing.add_hole(start, end);
            }
            symbols.push((symbol, listing.first_ms()));
            market.add(listing);
        }
        let series = weather.members.iter().flat_map(|member| member.series());
        let known = |series: instrument::Series| {
            let bar = Bar::named(series.bar.name());
            let symbol = series.instrument.as_str().to_owned();
            Known { series, name: talk::Series { symbol, bar: bar.name() }, bar }
        };
        Exchange {
            market,
            series: series.map(known).collect(),
            symbols,
            versions: BTreeMap::new(),
            spells: Vec::new(),
            rest: weather.rest.clone(),
            lines: BTreeMap::new(),
            feeds: BTreeMap::new(),
            connects: VecDeque::new(),
            push_ms: weather.push_ms,
            latency_ms: weather.latency_ms,
            requests: 0,
            struck: Vec::new(),
            damaged: BTreeSet::new(),
            is_bursty: weather.is_bursty,
            page_cap: weather.page_cap,
            rules: Rules::new(false),
            denials: BTreeMap::new(),
        }
    }

    /// What `pick` finds in a spell that lasts.
    pub fn spell<T>(&self, at: Millis, pick: impl Fn(Spell) -> Option<T>) -> Option<T> {
        let lasting = self.spells.iter().filter(|(_, until)| at < *until);
        lasting.rev().find_map(|(spell, _)| pick(*spell))
    }

    pub fn has(&self, at: Millis, spell: Spell) -> bool {
        self.spell(at, |it| (it == spell).then_some(())).is_some()
    }

    /// Begins a spell.
    pub fn bewitch(&mut self, at: Millis, spell: Spell, length_ms: Millis) {
        self.spells.retain(|(_, until)| at < *until);
        self.spells.push((spell, at + length_ms));
    }

    /// From now on everything is right.
    pub fn heal(&mut self) {
        self.spells.clear();
        self.rest.clear();
        self.damaged.clear();
        self.market.late_confirm_ms = 0;
    }

    /// Until when a request that arrives now is held back.
    pub fn held_ms(&self, at: Millis) -> Millis {
        let held = self.is_bursty || self.has(at, Spell::Hiccup);
        if held { (HICCUP_MS - at % HICCUP_MS) % HICCUP_MS } else { 0 }
    }

    /// How a commit fails, and whether it may be this file alone that does.
    pub fn disk(&self, at: Millis, name: &instrument::Instrument) -> Option<(Scope, bool)> {
        if self.damaged.contains(name) {
            return Some((Scope::ThisFile, false));
        }
        let number = self.symbols.iter().position(|(symbol, _)| symbol == name.as_str());
        self.spell(at, |spell| match spell {
            Spell::Disk(scope, None) => Some((scope, false)),
            Spell::Disk(scope, only) if only == number => Some((scope, scope == Scope::WholeDisk)),
            _ => None,
        })
    }

    pub fn number(&self, series: &instrument::Series) -> usize {
        let found = self.series.iter().position(|known| known.series == *series);
        found.expect("because nobody keeps another series")
    }

    pub fn is_listed(&self, symbol: &str, at: Millis) -> bool {
        self.symbols.iter().any(|(name, listed)| name == symbol && *listed <= at)
    }

    /// Answers a request, unless something on the way spoils it.
    pub fn get(&mut self, stage: &mut Stage, life: u64, ticket: u64, path: &str) {
        let (at, ask) = (stage.at, Ask::parse(path));
        assert!(ask.slips.is_empty(), "a request breaks the rules {:?}: {path}", ask.slips);
        let granted = self.rules.grant(&ask, at as u64);
        assert!(granted, "more requests than the exchange allows: {path}");
        self.requests += 1;
        self.market.late_confirm_ms = self.late_ms(at);
        let fault = self.draw(stage, &ask);
        self.struck.extend(fault.filter(|fault| !self.struck.contains(fault)));
        let answer = match fault {
            Some(RestFault::Mute) => None,
            Some(RestFault::Reset) => Some(Err("the connection was reset")),
            fault => Some(Ok(self.answer(stage, &ask, fault))),
        };
        let shown = || match &answer {
            Some(Ok(Page::Rows(rows))) => format!("{} rows", rows.len()),
            Some(Ok(Page::Bytes(answer))) => {
                let body: String =
                    String::from_utf8_lossy(&answer.body).chars().take(150).collect();
                format!("{} {body}", answer.status)
            }
            Some(Err(why)) => (*why).to_owned(),
            None => "no answer".to_owned(),
        };
        note!(stage, "exchange: {path} -> {} {fault:?}", shown());
        if let Some(answer) = answer {
            let travel_ms = 1 + stage.draw(self.latency_ms);
            stage.post(travel_ms, Event::Client(life, ToClient::Answer(ticket, answer)));
        }
    }

    /// How late bars are confirmed now.
    pub fn late_ms(&self, at: Millis) -> Millis {
        self.spell(at, |spell| match spell {
            Spell::LateMarket(ms) => Some(ms),
            _ => None,
        })
        .unwrap_or(0)
    }

    fn draw(&mut self, stage: &mut Stage, ask: &Ask) -> Option<RestFault> {
        if self.has(stage.at, Spell::RestMute) {
            return Some(RestFault::Mute);
        }
        if self.has(stage.at, Spell::RestDown) {
            return Some(RestFault::Unavailable);
        }
        let below = ask.limit == Some(1) && ask.before.is_none() && ask.after.is_some();
        let mut struck = None;
        for &(fault, rate) in &self.rest {
            if stage.dice.chance(rate) {
                struck = Some(fault);
            }
        }
        if !below {
            return struck;
        }
        // That history goes on is denied more often than anything else goes wrong.
        let denies = self.rest.iter().any(|(fault, _)| *fault == RestFault::Empty);
        let denials = self.denials.entry(ask.symbol.clone()?).or_default();
        if denies && *denials < DENIALS_MAX && stage.dice.below(2) == 0 {
            *denials += 1;
            return Some(RestFault::Empty);
        }
        // A row of these that cannot be read is left to a later command, for good reason.
        let lies = [RestFault::Empty, RestFault::NoNumber];
        struck.filter(|fault| !lies.contains(fault) && !matches!(fault, RestFault::Stale(_)))
    }

    fn answer(&mut self, stage: &mut Stage, ask: &Ask, fault: Option<RestFault>) -> Page {
        let at = stage.at;
        if self.has(at, Spell::RestDenied) {
            return text(403, "<html>denied</html>", None);
        }
        match fault {
            Some(RestFault::TooMany) => {
                let retry_after_ms = (stage.dice.below(2) == 0).then_some(3_000);
                return text(429, r#"{"msg":"Too Many Requests","code":"50011"}"#, retry_after_ms);
            }
            Some(RestFault::TooManyInside) => return error("50011", "Too Many Requests"),
            Some(RestFault::Unavailable) => {
                let body = r#"{"code":"50001","msg":"Service temporarily unavailable","data":[]}"#;
                return text(503, body, None);
            }
            Some(RestFault::Html) => return text(502, "<html>bad gateway</html>", None),
            _ => {}
        }
        if ask.endpoint == Endpoint::Time {
            return text(
                200,
                &format!(r#"{{"code":"0","msg":"","data":[{{"ts":"{at}"}}]}}"#),
                None,
            );
        }
        let symbol = ask.symbol.as_deref().unwrap_or_default();
        if !self.is_listed(symbol, at) {
            return error("51001", "Instrument ID doesn't exist.");
        }
        self.page(stage, ask, fault)
    }

    fn page(&mut self, stage: &mut Stage, ask: &Ask, fault: Option<RestFault>) -> Page {
        let symbol = ask.symbol.as_deref().unwrap_or_default();
        let bar = ask.bar().expect("because a request without a bar is refused");
        let limit = (ask.limit.unwrap_or(100) as usize).min(self.page_cap);
        let cursor = Cursor { after: ask.after, before: ask.before, limit };
        let at = match fault {
            Some(RestFault::Stale(lag_ms)) => stage.at - stage.draw(lag_ms),
            _ => stage.at,
        };
        let mut rows = match ask.endpoint {
            Endpoint::Candles => self.market.candles(symbol, bar, cursor, at),
            _ => self.market.history(symbol, bar, cursor, at),
        };
        match fault {
            Some(RestFault::Empty) => rows.clear(),
            Some(RestFault::Short) if rows.len() > 1 => {
                rows.truncate(1 + stage.dice.below(rows.len()));
            }
            Some(RestFault::Duplicates) => {
                rows = rows.iter().flat_map(|&row| [row, row]).collect();
            }
            _ => {}
        }
        let spoilt = matches!(fault, Some(RestFault::NoNumber | RestFault::Truncated));
        if rows.len() > TEXT_ROWS_MAX && !spoilt {
            return Page::Rows(rows.iter().map(|it| candle(&it.row, it.confirmed)).collect());
        }
        let mut lines: Vec<String> =
            rows.iter().map(|it| row_text(&it.row, it.confirmed)).collect();
        if let (Some(RestFault::NoNumber), false) = (fault, lines.is_empty()) {
            let spoilt = stage.dice.below(lines.len());
            let fields = rows[spoilt].row.fields(rows[spoilt].confirmed);
            lines[spoilt] = format!(r#"["{}","NaN","1","1","1","1","1","1","1"]"#, fields[0]);
        }
        let mut body = format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, lines.join(","));
        if fault == Some(RestFault::Truncated) {
            body.truncate(body.len() / 2);
        }
        text(200, &body, None)
    }

    /// Gives a closed bar other values, so many bars back; tells which, if there is one.
    pub fn revise(&mut self, at: Millis, number: usize, back: i64) -> Option<Millis> {
        let late_ms = self.late_ms(at);
        let Known { bar, name, .. } = &self.series[number];
        let ts = bar.back(bar.open(at - late_ms), back as i32);
        let listing = self.market.find(&name.symbol)?;
        let old = (ts >= listing.first_ms()).then(|| listing.closed(*bar, ts)).flatten()?;
        let [o, h, l, c] = [old.o, old.h, old.l, old.c].map(|price| price * 2.0);
        let row = Row { o, h, l, c, vol: old.vol + 1.0, ..old };
        listing.revise(*bar, row);
        self.versions.entry((number, ts)).or_default().push(old);
        Some(ts)
    }

    /// Whether a closed bar has these values, or had them once.
    pub fn is_true(&mut self, number: usize, row: &Candle) -> bool {
        let Known { bar, name, .. } = &self.series[number];
        let listing = self.market.find(&name.symbol).expect("because the series is known");
        if row.ts < bar.open(listing.first_ms()) {
            return false;
        }
        let same = |it: &Row| candle(it, true).values() == row.values();
        listing.closed(*bar, row.ts).is_some_and(|now| same(&now))
            || self.versions.get(&(number, row.ts)).is_some_and(|old| old.iter().any(same))
    }

    /// The closed bars of a range that has ended.
    pub fn truth(&mut self, number: usize, start: Millis, end: Millis) -> Vec<Candle> {
        let Known { bar, name, .. } = &self.series[number];
        let rows = self.market.truth(&name.symbol, *bar, (start, end), end + DAY);
        rows.iter().map(|row| candle(row, true)).collect()
    }

    pub fn say(&mut self, stage: &mut Stage, line: u64, text: String) {
        if self.has(stage.at, Spell::Silence) {
            return;
        }
        let Some(it) = self.lines.get_mut(&line) else { return };
        it.sent_at = stage.at;
        let (life, conn) = (it.life, it.conn);
        let travel_ms = 1 + stage.draw(self.latency_ms);
        let event = Event::Client(life, ToClient::Text(conn, text));
        stage.post_in(Lane::Down(line), travel_ms, event);
    }
}

/// The time that nothing was sent for, after which a connection is closed.
pub const IDLE_MS: Millis = 30 * SECOND;

pub fn candle(row: &Row, confirmed: bool) -> Candle {
    Candle {
        ts: row.ts,
        open: row.o,
        high: row.h,
        low: row.l,
        close: row.c,
        volume: row.vol,
        volume_ccy: row.vol_ccy,
        volume_quote: row.vol_quote,
        confirmed,
    }
}

/// A row as it stands on the wire.
pub fn row_text(row: &Row, confirmed: bool) -> String {
    format!("[\"{}\"]", row.fields(confirmed).join("\",\""))
}

fn text(status: u16, body: &str, retry_after_ms: Option<Millis>) -> Page {
    let body = body.as_bytes().to_vec();
    Page::Bytes(Answer { host: "model".into(), status, retry_after_ms, body })
}

fn error(code: &str, msg: &str) -> Page {
    text(200, &format!(r#"{{"code":"{code}","msg":"{msg}","data":[]}}"#), None)
}

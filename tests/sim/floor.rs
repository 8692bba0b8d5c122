//! The stream of the model exchange: its connections, what is subscribed over them, and what is
//! pushed. What a connection is answered is the fixture exchange's to say.

use okx_local_store::instrument;
use okx_local_store::time::{Millis, SECOND};

use crate::exchange::{Exchange, IDLE_MS, Known, row_text};
use crate::grid::Bar;
use crate::listing::Listing;
use crate::stage::{Event, Lane, Stage, ToClient, ToExchange, note};
use crate::talk::Series;
use crate::talk::session::{Effect, Moment, Session, World};
use crate::weather::{Garbage, Spell};

/// New connections that an address may open in a second.
const CONNECTS_MAX: usize = 3;
/// How long an attempt to connect waits for its answer.
const CONNECT_MS: Millis = 10 * SECOND;
/// Connections of a process are numbered from here on, so that no two processes share a number.
const LINES: u64 = 1_000_000;

/// One connection.
pub struct Line {
    pub life: u64,
    pub conn: u64,
    pub sent_at: Millis,
    session: Session,
}

/// The pushes of one series.
pub struct Feed {
    /// The oldest bar that has had no closing push yet.
    open_bar: Millis,
    /// The running bar that was pushed last.
    shown: Millis,
    due: Millis,
    last: Option<(Millis, String)>,
}

/// The number of a connection at the exchange.
pub fn line_of(life: u64, conn: u64) -> u64 {
    life * LINES + conn
}

/// What the session asks the world.
struct Served {
    listed: Vec<String>,
    refused: Option<Series>,
}

impl World for Served {
    fn is_served(&self, symbol: &str) -> bool {
        self.listed.iter().any(|listed| listed == symbol)
    }

    fn is_refused(&self, series: &Series) -> bool {
        self.refused.as_ref() == Some(series)
    }
}

impl Exchange {
    pub fn connect(&mut self, stage: &mut Stage, life: u64, conn: u64) {
        let at = stage.at;
        while self.connects.front().is_some_and(|&then| then + SECOND <= at) {
            self.connects.pop_front();
        }
        self.connects.push_back(at);
        assert!(self.connects.len() <= CONNECTS_MAX, "more than three connections in a second");
        let (after_ms, result) = if self.has(at, Spell::Mute) {
            (CONNECT_MS, Err("no answer"))
        } else if self.has(at, Spell::Refuse) {
            (1, Err("refused"))
        } else {
            let session = Session::new(format!("{conn:08x}"), "/ws/v5/business", None);
            self.lines.insert(line_of(life, conn), Line { life, conn, sent_at: at, session });
            (1 + stage.draw(self.latency_ms), Ok(()))
        };
        note!(stage, "exchange: connection {conn} {result:?}");
        let event = Event::Client(life, ToClient::Dialled(conn, result));
        stage.post_in(Lane::Down(line_of(life, conn)), after_ms, event);
    }

    pub fn hear(&mut self, stage: &mut Stage, line: u64, text: &str) {
        let Some(it) = self.lines.get_mut(&line) else { return };
        note!(stage, "exchange: {line} says {text}");
        it.sent_at = stage.at;
        let at = stage.at;
        let listed = self.symbols.iter().filter(|(_, listed)| *listed <= at);
        let served = Served {
            listed: listed.map(|(symbol, _)| symbol.clone()).collect(),
            refused: self.spells.iter().rev().find_map(|&(spell, until)| match spell {
                Spell::RefuseSeries(number, _) if at < until => {
                    Some(self.series[number].name.clone())
                }
                _ => None,
            }),
        };
        let effects = it.session.on(text, Moment { at_ms: at as u64, exchange_ms: at }, &served);
        effects.into_iter().for_each(|effect| self.act(stage, line, effect));
        let most = self.spell(at, |spell| match spell {
            Spell::Limit(most, code) => Some((most, code)),
            _ => None,
        });
        let count = self.lines.get(&line).map_or(0, |it| it.session.subscriptions().len());
        if let Some((_, code)) = most.filter(|(most, _)| count > *most) {
            self.close(stage, line, Some(code));
        }
    }

    fn act(&mut self, stage: &mut Stage, line: u64, effect: Effect) {
        let at = stage.at;
        match effect {
            Effect::Pong if self.has(at, Spell::Deaf) => {}
            Effect::Pong => self.say(stage, line, "pong".to_owned()),
            Effect::Acknowledge(_) if self.has(at, Spell::LostAcks) => {}
            Effect::Acknowledge(text) => {
                let late_ms = self.spell(at, |spell| match spell {
                    Spell::LateAcks(ms) => Some(ms),
                    Spell::DataFirst => Some(300),
                    _ => None,
                });
                let Some(late_ms) = late_ms else { return self.say(stage, line, text) };
                // What comes late does not hold back what comes after it.
                if let Some(it) = self.lines.get(&line) {
                    let event = Event::Client(it.life, ToClient::Text(it.conn, text));
                    stage.post(late_ms, event);
                }
            }
            Effect::Say(text) => self.say(stage, line, text),
            Effect::Join(series) => self.join(stage, line, &series),
            Effect::Leave(_) => {}
            Effect::Broke(rule, about) => panic!("the stream's rule {rule:?} is broken: {about}"),
        }
    }

    fn join(&mut self, stage: &mut Stage, line: u64, series: &Series) {
        let at = stage.at;
        let Some(number) = self.series.iter().position(|known| known.name == *series) else {
            return;
        };
        let (late_ms, bar) = (self.late_ms(at), self.series[number].bar);
        let first = Feed {
            open_bar: bar.open(at - late_ms),
            shown: bar.open(at),
            due: at + 1 + stage.draw(self.push_ms),
            last: None,
        };
        self.feeds.entry(number).or_insert(first);
        if let Some(text) = self.running(number, at)
            && !self.has(at, Spell::Quiet(number))
        {
            self.say(stage, line, text);
        }
    }

    /// Ends a connection: with a code, or without a word.
    pub fn close(&mut self, stage: &mut Stage, line: u64, code: Option<u16>) {
        let Some(it) = self.lines.remove(&line) else { return };
        note!(stage, "exchange: {line} ends with {code:?}");
        let event = match code {
            Some(code) => ToClient::Closed(it.conn, code),
            None => ToClient::Broke(it.conn),
        };
        let travel_ms = 1 + stage.draw(self.latency_ms);
        stage.post_in(Lane::Down(line), travel_ms, Event::Client(it.life, event));
    }

    pub fn close_all(&mut self, stage: &mut Stage, code: Option<u16>) {
        let lines: Vec<u64> = self.lines.keys().copied().collect();
        lines.into_iter().for_each(|line| self.close(stage, line, code));
    }

    /// Whether a series is pushed to anybody.
    pub fn pushes(&self, series: &instrument::Series) -> bool {
        !self.subscribers(&self.series[self.number(series)].name).is_empty()
    }

    /// Something on the way forgets all connections: nothing comes over them any more, and nothing
    /// tells of it.
    pub fn vanish(&mut self) {
        self.lines.clear();
    }

    /// A process is gone, and its connections with it. The next one does not know how many it made
    /// in its last second: no process starts as fast as here.
    pub fn forget(&mut self, life: u64) {
        self.connects.clear();
        self.lines.retain(|_, line| line.life != life);
    }

    pub fn announce_end(&mut self, stage: &mut Stage, after_ms: Millis) {
        let text =
            r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed"}"#;
        for line in self.lines.keys().copied().collect::<Vec<u64>>() {
            self.say(stage, line, text.to_owned());
            stage.post(after_ms, Event::Exchange(ToExchange::End { line }));
        }
    }

    pub fn babble(&mut self, stage: &mut Stage, garbage: Garbage) {
        let name = &self.series[0].name;
        let head = format!(r#"{{"arg":{{"channel":"candle{}","instId":"#, name.bar);
        let text = match garbage {
            Garbage::NoJson | Garbage::Binary => "{\"event\":".to_owned(),
            Garbage::NoNumber => {
                let row = r#"["60000","NaN","1","1","1","1","1","1","1"]"#;
                format!(r#"{head}"{}"}},"data":[{row}]}}"#, name.symbol)
            }
            Garbage::Stranger => {
                let row = r#"["60000","1","1","1","1","1","1","1","1"]"#;
                format!(r#"{head}"NOBODY-USDT"}},"data":[{row}]}}"#)
            }
            Garbage::UnknownEvent => r#"{"event":"news","data":{}}"#.to_owned(),
            Garbage::Error(code) => {
                format!(r#"{{"event":"error","code":"{code}","msg":"something is wrong"}}"#)
            }
        };
        for line in self.lines.keys().copied().collect::<Vec<u64>>() {
            if garbage == Garbage::Binary {
                let it = &self.lines[&line];
                stage.post(5, Event::Client(it.life, ToClient::Binary(it.conn)));
            } else {
                self.say(stage, line, text.clone());
            }
        }
    }

    /// Ends the subscription of a series over all connections that have it.
    pub fn unsubscribe(&mut self, stage: &mut Stage, number: usize) {
        if self.has(stage.at, Spell::Silence) || self.has(stage.at, Spell::LostAcks) {
            // It would not be told, which no connection does that stands.
            return;
        }
        let name = self.series[number].name.clone();
        let arg = format!(r#"{{"channel":"candle{}","instId":"{}"}}"#, name.bar, name.symbol);
        let text = format!(r#"{{"op":"unsubscribe","args":[{arg}]}}"#);
        for line in self.subscribers(&name) {
            self.hear(stage, line, &text);
        }
    }

    fn subscribers(&self, series: &Series) -> Vec<u64> {
        let having =
            self.lines.iter().filter(|(_, it)| it.session.subscriptions().contains(series));
        having.map(|(&line, _)| line).collect()
    }

    /// A second has passed: pushes what is due, and closes who was idle.
    pub fn tick(&mut self, stage: &mut Stage) {
        let at = stage.at;
        stage.post(SECOND, Event::Exchange(ToExchange::Tick));
        self.market.late_confirm_ms = self.late_ms(at);
        let idle: Vec<u64> = self
            .lines
            .iter()
            .filter(|(_, it)| it.sent_at + IDLE_MS <= at)
            .map(|(&line, _)| line)
            .collect();
        idle.into_iter().for_each(|line| self.close(stage, line, Some(4004)));
        for number in 0..self.series.len() {
            let subscribers = self.subscribers(&self.series[number].name);
            if subscribers.is_empty() {
                self.feeds.remove(&number);
            } else if self.feeds.contains_key(&number) {
                self.push(stage, number, &subscribers);
            }
        }
    }

    fn push(&mut self, stage: &mut Stage, number: usize, to: &[u64]) {
        let (at, bar) = (stage.at, self.series[number].bar);
        let late_ms = self.late_ms(at)
            + self
                .spell(at, |spell| match spell {
                    Spell::LateConfirms(ms) => Some(ms),
                    _ => None,
                })
                .unwrap_or(0);
        let is_quiet = self.has(at, Spell::Quiet(number));
        let mut feed = self.feeds.remove(&number).expect("because it was looked for");
        let mut texts = Vec::new();
        while bar.end(feed.open_bar) + late_ms <= at {
            let open = feed.open_bar;
            feed.open_bar = bar.end(open);
            let left_out = is_quiet || self.has(at, Spell::NoConfirms);
            texts.extend(self.closing(number, open).filter(|_| !left_out));
            let stale = feed.last.clone().filter(|(of, _)| *of == open);
            if self.has(at, Spell::OutOfOrder) {
                texts.extend(stale.map(|(_, text)| text));
            }
        }
        if (at >= feed.due || bar.open(at) != feed.shown) && !is_quiet {
            feed.shown = bar.open(at);
            feed.due = at + self.push_ms;
            if let Some(text) = self.running(number, at) {
                let before = feed.last.replace((feed.shown, text.clone()));
                texts.push(text);
                let before = before.filter(|(of, _)| *of == feed.shown);
                if self.has(at, Spell::OutOfOrder) {
                    texts.extend(before.map(|(_, text)| text));
                }
            }
        }
        self.feeds.insert(number, feed);
        for text in texts {
            for &line in to {
                self.say(stage, line, text.clone());
                if self.has(at, Spell::Duplicates) {
                    self.say(stage, line, text.clone());
                }
            }
        }
    }

    fn closing(&mut self, number: usize, open: Millis) -> Option<String> {
        self.pushed(number, true, |listing, bar| {
            let has_traded = bar.end(open) > listing.first_ms();
            has_traded.then(|| listing.closed(bar, open)).flatten()
        })
    }

    fn running(&mut self, number: usize, at: Millis) -> Option<String> {
        self.pushed(number, false, |listing, bar| listing.running(bar, bar.open(at), at))
    }

    fn pushed(
        &mut self,
        number: usize,
        confirmed: bool,
        row: impl Fn(&mut Listing, Bar) -> Option<crate::row::Row>,
    ) -> Option<String> {
        let Known { bar, name, .. } = &self.series[number];
        let row = row(self.market.find(&name.symbol)?, *bar)?;
        let (channel, symbol) = (name.bar, &name.symbol);
        let row = row_text(&row, confirmed);
        Some(format!(
            r#"{{"arg":{{"channel":"candle{channel}","instId":"{symbol}"}},"data":[{row}]}}"#
        ))
    }
}

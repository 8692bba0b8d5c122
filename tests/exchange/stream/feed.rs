//! The pushes of one series: the running bar at its pace, and each bar's closing push.

use std::sync::Arc;

use tungstenite::Utf8Bytes;

use super::super::dice::mix_text;
use super::super::grid::Bar;
use super::super::market::Market;
use super::Series;
use super::post::{Parcel, Post};
use super::strike::{StreamFault, Strikes};

/// A clock that leaps over more bars than this has them end unnoticed, but for the newest.
const LEAP_BARS_MAX: i32 = 2_000;

/// The world as a feed sees it.
pub struct Scene<'a> {
    /// Real time since the exchange started.
    pub at_ms: u64,
    pub exchange_ms: i64,
    pub push_ms: u64,
    pub market: &'a mut Market,
    pub strikes: &'a Strikes,
}

pub struct Feed {
    series: Arc<Series>,
    bar: Bar,
    /// Each push up to its row.
    head: String,
    posts: Vec<Arc<Post>>,
    /// The oldest bar that has had no closing push yet, and its end.
    open_bar: (i64, i64),
    /// The running bar that was pushed last, and its end.
    shown: (i64, i64),
    /// When the running bar is pushed next.
    due_ms: u64,
    last: Option<(i64, Utf8Bytes)>,
}

impl Feed {
    pub fn new(series: &Series, scene: &Scene) -> Self {
        let bar = Bar::named(series.bar);
        let (symbol, channel) = (&series.symbol, series.bar);
        let head = format!(r#"{{"arg":{{"channel":"candle{channel}","instId":"{symbol}"}},"#);
        let oldest = bar.open(scene.exchange_ms - scene.market.late_confirm_ms);
        let running = bar.open(scene.exchange_ms);
        // Series that were subscribed together are not pushed together.
        let spread_ms = mix_text(1, &head) % scene.push_ms.max(1);
        Self {
            series: Arc::new(series.clone()),
            bar,
            head,
            posts: Vec::new(),
            open_bar: (oldest, bar.end(oldest)),
            shown: (running, bar.end(running)),
            due_ms: scene.at_ms + scene.push_ms + spread_ms,
            last: None,
        }
    }

    /// From now on `post` gets the pushes, beginning with the running bar as it is.
    pub fn join(&mut self, post: &Arc<Post>, scene: &mut Scene) {
        if !self.posts.iter().any(|other| other.id() == post.id()) {
            self.posts.push(Arc::clone(post));
        }
        let open = self.bar.open(scene.exchange_ms);
        if let Some(text) = self.running(open, scene) {
            post.put(Parcel::Push { text, series: Arc::clone(&self.series), confirmed: None });
        }
    }

    /// Whether anybody is left.
    pub fn leave(&mut self, link: u64) -> bool {
        self.posts.retain(|post| post.id() != link);
        !self.posts.is_empty()
    }

    /// Pushes what is due.
    pub fn tick(&mut self, scene: &mut Scene) {
        let now = scene.exchange_ms;
        let runs_on = (self.shown.0..self.shown.1).contains(&now);
        let confirm_due = self.open_bar.1 + scene.market.late_confirm_ms <= now;
        if runs_on && !confirm_due && scene.at_ms < self.due_ms {
            return;
        }
        if scene.market.served(&self.series.symbol, now).is_err() {
            return;
        }
        self.close_bars(scene);
        if runs_on && scene.at_ms < self.due_ms {
            return;
        }
        let open = self.bar.open(now);
        self.shown = (open, self.bar.end(open));
        // The pace keeps its phase, so that series stay spread over the interval when their bars
        // end together: a bar's first push comes before its time, and the next one skips a turn.
        let push_ms = scene.push_ms.max(1);
        self.due_ms += (1 + scene.at_ms.saturating_sub(self.due_ms) / push_ms) * push_ms;
        if let Some(text) = self.running(open, scene) {
            let before = self.last.replace((open, text.clone()));
            self.send(text, None, scene);
            let stale = before.filter(|(of, _)| *of == open);
            if let Some((_, text)) = stale
                && scene.strikes.spoils(&self.series, StreamFault::OutOfOrder)
            {
                self.send(text, None, scene);
            }
        }
    }

    /// The closing pushes that are due, oldest first.
    fn close_bars(&mut self, scene: &mut Scene) {
        let now = scene.exchange_ms;
        let late_ms = scene.market.late_confirm_ms + scene.strikes.confirm_delay_ms(&self.series);
        if now < self.open_bar.0 {
            let open = self.bar.open(now);
            self.open_bar = (open, self.bar.end(open));
        }
        let horizon = self.bar.back(self.bar.open(now - late_ms), LEAP_BARS_MAX);
        if self.open_bar.0 < horizon {
            self.open_bar = (horizon, self.bar.end(horizon));
        }
        while self.open_bar.1 + late_ms <= now {
            let (open, end) = self.open_bar;
            self.open_bar = (end, self.bar.end(end));
            if !scene.strikes.spoils(&self.series, StreamFault::NoConfirms) {
                self.close(open, scene);
            }
        }
    }

    fn close(&mut self, open: i64, scene: &mut Scene) {
        let listing = scene.market.find(&self.series.symbol);
        let Some(row) = listing.and_then(|listing| listing.closed(self.bar, open)) else {
            return;
        };
        let text = self.text(&row.fields(true));
        self.send(text, Some(open), scene);
        let stale = self.last.clone().filter(|(of, _)| *of == open);
        if let Some((_, text)) = stale
            && scene.strikes.spoils(&self.series, StreamFault::OutOfOrder)
        {
            self.send(text, None, scene);
        }
    }

    fn running(&self, open: i64, scene: &mut Scene) -> Option<Utf8Bytes> {
        let listing = scene.market.find(&self.series.symbol)?;
        let row = listing.running(self.bar, open, scene.exchange_ms)?;
        Some(self.text(&row.fields(false)))
    }

    fn text(&self, fields: &[String]) -> Utf8Bytes {
        format!(r#"{}"data":[["{}"]]}}"#, self.head, fields.join(r#"",""#)).into()
    }

    fn send(&self, text: Utf8Bytes, confirmed: Option<i64>, scene: &Scene) {
        let twice = scene.strikes.spoils(&self.series, StreamFault::Duplicates);
        for _ in 0..if twice { 2 } else { 1 } {
            for post in &self.posts {
                let (text, series) = (text.clone(), Arc::clone(&self.series));
                post.put(Parcel::Push { text, series, confirmed });
            }
        }
    }
}

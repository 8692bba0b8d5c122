//! An endless market that a seed decides: any minute can be worked out without those before it.

use super::dice::{fraction, mix, mix_text};
use super::grid::{HOUR_MS, MINUTE_MS};
use super::row::{Kind, Row, power_of_ten};

/// Prices to start from, so that the digits look like the real ones. Others get one by their name.
const KNOWN: [(&str, f64); 7] = [
    ("BTC", 87_000.0),
    ("ETH", 3_100.0),
    ("SOL", 140.0),
    ("XRP", 2.1),
    ("DOGE", 0.15),
    ("SHIB", 0.000_009),
    ("PEPE", 0.000_004_5),
];

/// The price is a sum of waves of smoothed chance: period in minutes and share of the price. The
/// shares add up to less than one, so it never reaches zero, however long the market runs.
const WAVES: [(i64, f64); 6] =
    [(43_200, 0.30), (7_200, 0.12), (1_440, 0.04), (180, 0.012), (20, 0.004), (3, 0.0012)];

/// Quote currency that changes hands in an ordinary minute.
const MINUTE_TURNOVER: f64 = 50_000.0;
/// One hour in so many has no trade at all, as if the exchange had been out: flat bars up to 1H.
const QUIET_HOURS: u64 = 150;

pub struct Synthetic {
    seed: u64,
    listed_ms: i64,
    kind: Kind,
    price: f64,
    price_scale: f64,
    lot_scale: f64,
    quiet_permille: u64,
}

impl Synthetic {
    /// The market of `symbol` under `seed`, from the minute of `listed_ms` on.
    pub fn new(symbol: &str, seed: u64, listed_ms: i64) -> Self {
        let seed = mix_text(seed, symbol);
        let price = start_price(symbol, seed);
        let kind = kind_of(symbol, price);
        let (decimals, lots) = (price_decimals(price), lot_decimals(kind, price));
        Self {
            seed,
            listed_ms: listed_ms - listed_ms.rem_euclid(MINUTE_MS),
            kind,
            price,
            price_scale: power_of_ten(decimals),
            lot_scale: power_of_ten(lots),
            quiet_permille: 20 + mix(seed, 1) % 180,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn listed_ms(&self) -> i64 {
        self.listed_ms
    }

    /// The smallest steps of the price and of the volume.
    pub fn steps(&self) -> (f64, f64) {
        (1.0 / self.price_scale, 1.0 / self.lot_scale)
    }

    /// The minute that opens at `ts`, which must be on the grid.
    pub fn row(&self, ts: i64) -> Option<Row> {
        if ts < self.listed_ms {
            return None;
        }
        let minute = ts / MINUTE_MS;
        if !self.trades(minute) {
            let mut last = minute - 1;
            while !self.trades(last) {
                last -= 1;
            }
            return Some(Row::flat(ts, self.ticks(last + 1) / self.price_scale));
        }
        Some(self.traded(minute, ts))
    }

    /// The first minute always trades: a flat one needs a close before it.
    fn trades(&self, minute: i64) -> bool {
        let hour = minute / (HOUR_MS / MINUTE_MS);
        minute * MINUTE_MS <= self.listed_ms
            || (!mix(self.seed ^ 2, hour as u64).is_multiple_of(QUIET_HOURS)
                && mix(self.seed ^ 3, minute as u64) % 1_000 >= self.quiet_permille)
    }

    fn traded(&self, minute: i64, ts: i64) -> Row {
        let luck = mix(self.seed ^ 4, minute as u64);
        // The open is a few ticks off the close before it, as in a real book; without that gap a
        // client that folds flat bars in would go unnoticed.
        let gap = (luck % 7) as f64 - 3.0;
        let (open, close) = ((self.ticks(minute) + gap).max(2.0), self.ticks(minute + 1));
        let reach = |salt| 1.0 + (fraction(mix(luck, salt)) * open * 0.0004).floor();
        let high = open.max(close) + reach(5);
        let low = (open.min(close) - reach(6)).max(1.0);
        let burst = fraction(mix(luck, 7)).powi(3) * 4.0;
        let contract = match self.kind {
            Kind::Spot => self.price,
            Kind::Linear { ct_val } => self.price * ct_val,
            Kind::Inverse { ct_val } => ct_val,
        };
        let lots = (MINUTE_TURNOVER * burst / contract * self.lot_scale).round().max(1.0);
        let (vol, c) = (lots / self.lot_scale, close / self.price_scale);
        let (vol_ccy, vol_quote) = self.kind.volumes(vol, c);
        let [o, h, l] = [open, high, low].map(|ticks| ticks / self.price_scale);
        Row { ts, o, h, l, c, vol, vol_ccy, vol_quote }
    }

    /// The price in ticks where `minute` begins.
    fn ticks(&self, minute: i64) -> f64 {
        let waves = WAVES.iter().zip(10..);
        let sum: f64 =
            waves.map(|(&(period, share), salt)| share * self.wave(minute, period, salt)).sum();
        (self.price * (1.0 + sum) * self.price_scale).round().max(2.0)
    }

    /// Smoothed chance in [-1, 1): drawn at each multiple of the period, blended between them.
    fn wave(&self, minute: i64, period: i64, salt: u64) -> f64 {
        let knot = minute.div_euclid(period);
        let at = |knot: i64| fraction(mix(self.seed ^ salt, knot as u64)) * 2.0 - 1.0;
        let way = minute.rem_euclid(period) as f64 / period as f64;
        let blend = way * way * (3.0 - 2.0 * way);
        at(knot) * (1.0 - blend) + at(knot + 1) * blend
    }
}

/// What the volumes of `symbol` count, told by its name; contracts are worth some hundred units
/// of the quote currency, as the real ones are.
pub fn kind_of(symbol: &str, price: f64) -> Kind {
    let parts: Vec<&str> = symbol.split('-').collect();
    match parts.as_slice() {
        [_, _] | [_] => Kind::Spot,
        [_, "USD", ..] => Kind::Inverse { ct_val: if price > 20_000.0 { 100.0 } else { 10.0 } },
        _ => Kind::Linear { ct_val: power_of_ten(3 - price.log10().ceil() as i32) },
    }
}

fn start_price(symbol: &str, seed: u64) -> f64 {
    let known = KNOWN.iter().find(|(base, _)| symbol.split('-').next() == Some(base));
    known.map_or_else(|| 10f64.powf(fraction(mix(seed, 8)) * 8.0 - 5.0), |&(_, price)| price)
}

/// Six digits in all, between 1 and 10 of them decimals.
fn price_decimals(price: f64) -> i32 {
    (5 - price.log10().floor() as i32).clamp(1, 10)
}

fn lot_decimals(kind: Kind, price: f64) -> i32 {
    match kind {
        Kind::Linear { .. } => 2,
        Kind::Inverse { .. } => 0,
        Kind::Spot if price >= 1_000.0 => 8,
        Kind::Spot if price >= 1.0 => 6,
        Kind::Spot if price >= 0.01 => 2,
        Kind::Spot => 0,
    }
}

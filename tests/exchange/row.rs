//! One candle, how it is written on the wire, and how finer ones make a coarser one.

use super::dice::mix;
use super::grid::SECOND_MS;

/// A candle with the exchange's values; times are Unix ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub ts: i64,
    pub o: f64,
    pub h: f64,
    pub l: f64,
    pub c: f64,
    pub vol: f64,
    pub vol_ccy: f64,
    pub vol_quote: f64,
}

/// What the three volumes of an instrument count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Spot,
    Linear { ct_val: f64 },
    Inverse { ct_val: f64 },
}

impl Kind {
    /// `volCcy` and `volCcyQuote` of a bar that traded `vol` around `price`.
    pub fn volumes(self, vol: f64, price: f64) -> (f64, f64) {
        match self {
            Kind::Spot => (tidy(vol * price), tidy(vol * price)),
            Kind::Linear { ct_val } => (tidy(vol * ct_val), tidy(vol * ct_val * price)),
            Kind::Inverse { ct_val } => (tidy(vol * ct_val / price), tidy(vol * ct_val)),
        }
    }
}

impl Row {
    /// A bar in which nothing was traded: the previous close, four times.
    pub fn flat(ts: i64, close: f64) -> Row {
        let (o, h, l, c) = (close, close, close, close);
        Row { ts, o, h, l, c, vol: 0.0, vol_ccy: 0.0, vol_quote: 0.0 }
    }

    /// The nine fields of the wire. Rust prints an f64 in the shortest decimal form that reads
    /// back the same and never with an exponent, which is what the exchange does too.
    pub fn fields(&self, confirmed: bool) -> Vec<String> {
        let prices = [self.o, self.h, self.l, self.c].map(|price| price.to_string());
        let mut volume = self.vol.to_string();
        // The exchange leaves a trailing zero now and then, so readers meet one here as well.
        if volume.contains('.') && (self.ts / SECOND_MS) % 7 == 0 {
            volume.push('0');
        }
        let mut fields = vec![self.ts.to_string()];
        fields.extend(prices);
        fields.extend([volume, self.vol_ccy.to_string(), self.vol_quote.to_string()]);
        fields.push(if confirmed { "1" } else { "0" }.to_owned());
        fields
    }
}

/// Drops the dust that f64 arithmetic leaves behind the digits an exchange would print.
pub fn tidy(value: f64) -> f64 {
    round_to(scale_of(value), value)
}

/// How many parts of one a volume of that size is counted in; the tiniest are left as they are.
fn scale_of(value: f64) -> Option<f64> {
    match value.abs() {
        size if size < 1e-9 => None,
        size if size < 1e-4 => Some(1e14),
        size if size < 9e6 => Some(1e8),
        size if size < 9e10 => Some(1e4),
        _ => Some(1.0),
    }
}

fn round_to(scale: Option<f64>, value: f64) -> f64 {
    scale.map_or(value, |scale| (value * scale).round() / scale)
}

/// Ten to the power of `n`. A negative power taken directly can miss the nearest f64.
pub fn power_of_ten(n: i32) -> f64 {
    let power = 10f64.powi(n.abs());
    if n < 0 { 1.0 / power } else { power }
}

/// Builds a coarser bar from finer ones, given oldest first.
///
/// Only those with a volume shape the prices: a flat one repeats the close before it and would
/// falsify the open, the high or the low. If all are flat, so is the result.
#[derive(Clone, Default)]
pub struct Fold {
    row: Option<Row>,
    traded: bool,
}

impl Fold {
    pub fn push(&mut self, part: &Row) {
        let Some(row) = &mut self.row else {
            self.traded = part.vol > 0.0;
            self.row = Some(if self.traded { *part } else { Row::flat(part.ts, part.c) });
            return;
        };
        row.vol += part.vol;
        row.vol_ccy += part.vol_ccy;
        row.vol_quote += part.vol_quote;
        if part.vol > 0.0 && self.traded {
            row.h = row.h.max(part.h);
            row.l = row.l.min(part.l);
            row.c = part.c;
        } else if !self.traded {
            let flat = Row::flat(part.ts, part.c);
            let shape = if part.vol > 0.0 { part } else { &flat };
            (row.o, row.h, row.l, row.c) = (shape.o, shape.h, shape.l, shape.c);
            self.traded = part.vol > 0.0;
        }
    }

    /// The bar that opens at `ts`, or nothing if there was no finer one.
    pub fn finish(self, ts: i64) -> Option<Row> {
        let row = self.row?;
        let (vol, vol_ccy, vol_quote) = (tidy(row.vol), tidy(row.vol_ccy), tidy(row.vol_quote));
        Some(Row { ts, vol, vol_ccy, vol_quote, ..row })
    }
}

/// Cuts a bar of `step_ms` into seconds which fold back into exactly that bar.
///
/// In a bar that trades, the last second does. So no state of such a bar while it runs equals its
/// final one, and a client that takes a provisional row for the truth is found out.
pub fn seconds(row: &Row, step_ms: i64, close_before: f64) -> Vec<Row> {
    let count = (step_ms / SECOND_MS) as usize;
    let touches = touches(row, count);
    let total: u64 = touches.iter().flatten().map(|touch| touch.weight).sum();
    // Shares are rounded as the whole is, so that nothing is lost between them.
    let whole = [row.vol, row.vol_ccy, row.vol_quote].map(|volume| (scale_of(volume), volume));
    let mut left = whole.map(|(_, volume)| volume);
    let mut close = close_before;
    let mut parts = Vec::with_capacity(count);
    for (index, touch) in touches.iter().enumerate() {
        let ts = row.ts + index as i64 * SECOND_MS;
        if let Some(touch) = touch {
            close = touch.price;
            let mut share = left;
            if index + 1 < count {
                let part = touch.weight as f64 / total as f64;
                share = whole.map(|(scale, volume)| round_to(scale, volume * part));
            }
            for ((left, (scale, _)), share) in left.iter_mut().zip(whole).zip(share) {
                *left = round_to(scale, *left - share);
            }
            let [vol, vol_ccy, vol_quote] = share;
            parts.push(Row { vol, vol_ccy, vol_quote, ..Row::flat(ts, close) });
        } else {
            parts.push(Row::flat(ts, close));
        }
    }
    parts
}

struct Touch {
    price: f64,
    weight: u64,
}

/// Which seconds of a bar trade, and where: the open first, the close last, the high and the low
/// between them, and about every fourth of the others at a price drawn from these four.
fn touches(row: &Row, count: usize) -> Vec<Option<Touch>> {
    if row.vol <= 0.0 {
        return (0..count).map(|_| None).collect();
    }
    let luck = mix(row.ts as u64, row.vol.to_bits());
    let quarter = (count / 4) as u64;
    let at = |place: u64, salt| (place * quarter + mix(luck, salt) % quarter) as usize;
    let (first, mut high, mut low) = (at(0, 1), at(1, 2), at(2, 3));
    if luck & 1 == 1 {
        std::mem::swap(&mut high, &mut low);
    }
    let price = |index: usize, luck: u64| match index {
        _ if index < first => None,
        _ if index == first => Some(row.o),
        _ if index == high => Some(row.h),
        _ if index == low => Some(row.l),
        _ if index + 1 == count => Some(row.c),
        _ if luck.is_multiple_of(4) => Some([row.o, row.h, row.l, row.c][(luck >> 8) as usize % 4]),
        _ => None,
    };
    (0..count)
        .map(|index| {
            let luck = mix(luck, 100 + index as u64);
            price(index, luck).map(|price| Touch { price, weight: 1 + (luck >> 16) % 8 })
        })
        .collect()
}

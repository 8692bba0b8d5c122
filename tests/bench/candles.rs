//! Candles to measure with: minutes of a market that moves as real ones do, with as many digits.

use okx_local_store::candle::Candle;
use okx_local_store::time::{MINUTE, Millis};

/// The first minute, 2023-01-01T00:00:00Z.
pub const FIRST: Millis = 1_672_531_200_000;

/// The candles of so many minutes from [`FIRST`] on, all closed.
pub fn minutes(count: usize) -> impl Iterator<Item = Candle> {
    candles(MINUTE).take(count)
}

/// Endless closed candles of a length.
pub fn candles(length_ms: Millis) -> impl Iterator<Item = Candle> {
    let (mut dice, mut price) = (0x2545_F491_4F6C_DD1D_u64, 970_000_i64);
    let mut roll = move |sides: i64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice >> 16) as i64 % sides
    };
    (0..).map(move |n| {
        let open = price;
        price = (price + roll(401) - 200).max(10_000);
        let (high, low) = (open.max(price) + roll(150), open.min(price) - roll(150));
        let [open, high, low, close] = [open, high, low, price].map(|ticks| ticks as f64 / 10.0);
        let volume = (1 + roll(3_000_000_000)) as f64 / 1e8;
        let volume_quote = (volume * close * 1e8).round() / 1e8;
        Candle {
            ts: FIRST + n * length_ms,
            open,
            high,
            low,
            close,
            volume,
            volume_ccy: volume_quote,
            volume_quote,
            confirmed: true,
        }
    })
}

//! Candles as CSV: the one public form, byte for byte the same for the same rows.

use std::io::{self, Write};

use crate::candle::Candle;
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND, format_time};

/// What is gathered before it is written, bytes. Larger pieces are no faster.
const CHUNK: usize = 64 << 10;

const HEADER: &str = "timestamp,datetime,open,high,low,close,volume,volume_ccy,volume_quote";

/// Writes candles as lines of CSV, in memory that does not grow.
///
/// Numbers are in the shortest form that reads back the same, without exponent: what the exchange
/// sent comes out digit for digit, less trailing zeros. Times are Unix ms and RFC 3339.
pub struct CsvWriter<'a> {
    out: &'a mut dyn Write,
    /// Whether the running bar is told from closed ones in a column of its own.
    confirmed: bool,
    chunk: Vec<u8>,
    stamp: Stamp,
}

impl<'a> CsvWriter<'a> {
    /// Begins with the line of names; with a column `confirmed` if asked.
    pub fn new(out: &'a mut dyn Write, confirmed: bool) -> CsvWriter<'a> {
        let mut chunk = Vec::with_capacity(CHUNK + 1_024);
        chunk.extend_from_slice(HEADER.as_bytes());
        chunk.extend_from_slice(if confirmed { b",confirmed\n" } else { b"\n" });
        CsvWriter { out, confirmed, chunk, stamp: Stamp::default() }
    }

    /// Adds a line.
    pub fn write(&mut self, candle: &Candle) -> io::Result<()> {
        write!(self.chunk, "{},", candle.ts)?;
        self.stamp.write(&mut self.chunk, candle.ts)?;
        for value in candle.values() {
            self.chunk.push(b',');
            write_number(&mut self.chunk, value)?;
        }
        if self.confirmed {
            self.chunk.extend_from_slice(if candle.confirmed { b",1" } else { b",0" });
        }
        self.chunk.push(b'\n');
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Hands on what is gathered. Without it the last lines are lost.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

/// Writes a number in the fewest digits that read back the same, without exponent or trailing
/// zeros. JSON's form is that, but for its `.0` and its exponents far from 1, and is found several
/// times faster than the one of `{}`: an export is mostly numbers.
fn write_number(out: &mut Vec<u8>, value: f64) -> io::Result<()> {
    let start = out.len();
    serde_json::to_writer(&mut *out, &value)?;
    if !value.is_finite() || out[start..].contains(&b'e') {
        out.truncate(start);
        return write!(out, "{value}");
    }
    if out.ends_with(b".0") {
        out.truncate(out.len() - b".0".len());
    }
    Ok(())
}

/// Writes times one after the other. Neighbours share their date, which costs far more than the
/// time of day, so the last one is kept.
#[derive(Default)]
struct Stamp {
    day: Option<i64>,
    /// `2024-05-01T`.
    date: String,
}

impl Stamp {
    fn write(&mut self, out: &mut Vec<u8>, at: Millis) -> io::Result<()> {
        let day = at.div_euclid(DAY);
        if self.day != Some(day) {
            self.date = format_time(day * DAY);
            self.date.truncate(self.date.find('T').map_or(0, |t| t + 1));
            self.day = Some(day);
        }
        let of_day = at.rem_euclid(DAY);
        if self.date.is_empty() || of_day % SECOND != 0 {
            return out.write_all(format_time(at).as_bytes());
        }
        out.extend_from_slice(self.date.as_bytes());
        let parts = [(of_day / HOUR, b':'), (of_day % HOUR / MINUTE, b':')];
        for (number, end) in parts.into_iter().chain([(of_day % MINUTE / SECOND, b'Z')]) {
            out.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8, end]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::sample::{BASE, candle};
    use crate::time::TIME_MAX;

    fn lines(candles: &[Candle], confirmed: bool) -> String {
        let mut out = Vec::new();
        let mut csv = CsvWriter::new(&mut out, confirmed);
        candles.iter().for_each(|candle| csv.write(candle).unwrap());
        csv.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_public_form() {
        let small = Candle { open: 1e-12, volume: 6.2e13, low: -0.0, ..candle(BASE, 0.5, true) };
        let running = candle(BASE + MINUTE + 1, 64_000.25, false);
        assert_eq!(
            lines(&[small, running], true),
            "timestamp,datetime,open,high,low,close,volume,volume_ccy,volume_quote,confirmed\n\
             1714521600000,2024-05-01T00:00:00Z,0.000000000001,1,-0,0.5,62000000000000,1.25,\
             1.25,1\n\
             1714521660001,2024-05-01T00:01:00.001Z,64000.25,64000.75,63999.25,64000.25,2.5,\
             160000.625,160000.625,0\n"
        );
        assert_eq!(lines(&[], false), format!("{HEADER}\n"));
    }

    proptest! {
        #[test]
        fn every_number_reads_back_the_same(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = lines(&[Candle { volume_quote: value, ..candle(0, 1.0, true) }], false);
            let number = text.trim_end().rsplit(',').next().unwrap();
            prop_assert_eq!(number.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(number.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'));
            prop_assert!(!number.contains('.') || !number.ends_with(['0', '.']));
        }

        #[test]
        fn no_shorter_number_reads_back_the_same(bits in any::<u64>(), price in 0.0..1e9) {
            for value in [f64::from_bits(bits), price, price.trunc(), 1e-9 * price, 1e9 * price] {
                let mut out = Vec::new();
                write_number(&mut out, value).unwrap();
                let text = String::from_utf8(out).unwrap();
                prop_assert_eq!(text.len(), value.to_string().len(), "{}", text);
                prop_assert!(!value.is_finite() || text.parse() == Ok(value), "{}", text);
            }
        }

        /// A price is a decimal number of at most fifteen digits: it comes out as it came in.
        #[test]
        fn prices_come_back_digit_for_digit(
            digits in 1u64..1_000_000_000_000_000,
            point in 0u32..16,
        ) {
            let (whole, part) = (digits / 10u64.pow(point), digits % 10u64.pow(point));
            let text = format!("{whole}.{part:0width$}", width = point as usize);
            let price = text.trim_end_matches('0').trim_end_matches('.');
            let row = Candle { close: text.parse().unwrap(), ..candle(0, 1.0, true) };
            let text = lines(&[row], false);
            prop_assert_eq!(text.lines().nth(1).unwrap().split(',').nth(5), Some(price));
        }

        #[test]
        fn times_are_those_of_the_clock(times in prop::collection::vec(0..=TIME_MAX, 1..5)) {
            let rows: Vec<Candle> = times.iter().map(|&at| candle(at, 1.0, true)).collect();
            for (line, &at) in lines(&rows, false).lines().skip(1).zip(&times) {
                prop_assert_eq!(line.split(',').nth(1).unwrap(), format_time(at));
            }
        }
    }
}

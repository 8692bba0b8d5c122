//! Candle files: `[[ts, o, h, l, c, v], …]`, oldest first, of one-minute or five-minute bars.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::grid::MINUTE_MS;
use super::row::{Row, power_of_ten};
use super::synthetic::kind_of;

/// Base bars of one instrument; what is missing among them is missing at the exchange.
#[derive(Clone, Debug)]
pub struct Base {
    pub step_ms: i64,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub enum FileError {
    Unreadable(PathBuf, std::io::Error),
    Json(PathBuf, serde_json::Error),
    /// The place in the file and what is wrong there.
    Row(PathBuf, usize, &'static str),
    Step(PathBuf, i64),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, _) => write!(f, "cannot read {}", path.display()),
            Self::Json(path, _) => write!(f, "{} is not JSON", path.display()),
            Self::Row(path, row, why) => write!(f, "{}: row {row} {why}", path.display()),
            Self::Step(path, step_ms) => {
                write!(f, "{}: bars of {step_ms} ms, want 1m or 5m", path.display())
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::Json(_, error) => Some(error),
            Self::Row(..) | Self::Step(..) => None,
        }
    }
}

/// Reads the bars of `symbol`; its name says what the file's volume counts.
pub fn read(symbol: &str, path: &Path) -> Result<Base, FileError> {
    let text = fs::read(path).map_err(|error| FileError::Unreadable(path.into(), error))?;
    let values: Vec<Vec<Value>> =
        serde_json::from_slice(&text).map_err(|error| FileError::Json(path.into(), error))?;
    let mut rows: Vec<Row> = Vec::with_capacity(values.len());
    for (index, fields) in values.iter().enumerate() {
        let refuse = |why| FileError::Row(path.into(), index, why);
        let row = parse(symbol, fields).ok_or_else(|| refuse("is not six numbers"))?;
        if rows.last().is_some_and(|last| last.ts >= row.ts) {
            return Err(refuse("is not newer than the one before it"));
        }
        rows.push(row);
    }
    let gaps = rows.windows(2).map(|pair| pair[1].ts - pair[0].ts);
    let step_ms = gaps.min().unwrap_or(MINUTE_MS);
    if step_ms != MINUTE_MS && step_ms != 5 * MINUTE_MS {
        return Err(FileError::Step(path.into(), step_ms));
    }
    match rows.iter().position(|row| row.ts % step_ms != 0) {
        Some(index) => Err(FileError::Row(path.into(), index, "is off the grid")),
        None => Ok(Base { step_ms, rows }),
    }
}

/// An f64 keeps the digits: the shortest text that reads back the same is the text of the file.
fn parse(symbol: &str, fields: &[Value]) -> Option<Row> {
    let [ts, numbers @ ..] = fields else {
        return None;
    };
    let ts = ts.as_i64()?;
    let numbers: Option<Vec<f64>> = numbers.iter().map(Value::as_f64).collect();
    let [o, h, l, c, vol] = numbers?.try_into().ok()?;
    let (vol_ccy, vol_quote) = kind_of(symbol, c).volumes(vol, c);
    Some(Row { ts, o, h, l, c, vol, vol_ccy, vol_quote })
}

/// The smallest power of ten that the values need, as a tick size.
pub fn step_of(values: impl Iterator<Item = f64>) -> f64 {
    let decimals = values.map(|value| match value.to_string().split_once('.') {
        Some((_, decimals)) => decimals.len(),
        None => 0,
    });
    power_of_ten(-(decimals.max().unwrap_or(0) as i32))
}

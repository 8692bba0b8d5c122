//! A local mirror of OKX candlesticks in SQLite.
pub mod bar;
pub mod candle;
pub mod coverage;
pub mod instrument;
pub mod page;
pub mod span;
pub mod store;
pub mod time;

//! A local mirror of OKX candlesticks in SQLite.
pub mod backoff;
pub mod bar;
pub mod candle;
pub mod control;
pub mod coverage;
pub mod http;
pub mod instrument;
pub mod limit;
pub mod okx;
pub mod page;
pub mod plan;
pub mod roots;
pub mod span;
pub mod store;
pub mod time;
pub mod wire;

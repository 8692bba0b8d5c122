//! A local mirror of OKX candlesticks in SQLite.
pub mod bar;
pub mod candle;
pub mod coverage;
pub mod http;
pub mod instrument;
pub mod okx;
pub mod page;
pub mod roots;
pub mod span;
pub mod store;
pub mod time;
pub mod wire;

//! All integration tests: the real engine and the real program against the fixture exchange.

#[path = "../exchange/mod.rs"]
mod exchange;

mod mirror;
mod recorded;
mod sync;

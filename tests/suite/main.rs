//! All integration tests: the real engine and the real program against the fixture exchange.

#[path = "../exchange/mod.rs"]
mod exchange;

// The examples are run by the tests, too.
#[allow(dead_code, reason = "their `main` is for people")]
#[path = "../examples/backfill.rs"]
mod backfill;
#[allow(dead_code, reason = "their `main` is for people")]
#[path = "../examples/basic.rs"]
mod basic;
#[allow(dead_code, reason = "their `main` is for people")]
#[path = "../examples/monitor.rs"]
mod monitor;

mod beside;
mod changes;
mod commands;
mod crash;
mod custody;
mod daemon;
mod damage;
mod edges;
mod faults;
mod hostile;
mod kills;
mod library;
mod live;
mod mirror;
mod offline;
mod operator;
mod peers;
mod process;
mod readme;
mod recorded;
mod refusals;
mod sight;
mod stream;
mod sync;
mod trouble;
mod verify;

//! `okx-store` keeps a local copy of OKX candlesticks in SQLite, one file per instrument. Each
//! closed bar that the exchange has is in the store, once, with the exchange's values, whatever
//! happened on the way.
//!
//! A program of your own begins with [`OkxLocalStore`]: what it gives and takes is named on this
//! page, and nothing else is. [`Query`], which it hands out, reads without the network and without
//! a lock, whoever writes the files. The modules serve the program `okx-store` and its tests, and
//! change with them.
//!
//! This keeps what `config.json` names fresh, and prints each minute of BTC-USDT once it is closed
//! and on disk:
//!
//! ```no_run
//! use okx_local_store::{OkxLocalStore, Updates, format_time};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = OkxLocalStore::open("config.json")?;
//!     let minutes = store.subscribe(&"BTC-USDT".parse()?, "1m".parse()?, Updates::Closed);
//!     store.start()?;
//!     for minute in minutes {
//!         println!("{} {}", format_time(minute.ts), minute.close);
//!     }
//!     Ok(store.stop()?)
//! }
//! ```
//!
//! # Layers
//!
//! A file imports its own layer and lower ones; `tests/tidy.rs` sees to it.
//!
//! | layer | modules | what it may do |
//! |---|---|---|
//! | faces | `local` `cli` `main` | talk to programs, people and scripts |
//! | assembly | `engine` `daemon` `crew` `supervisor` `steward` | start, stop, put together |
//! |  | `hosted` `inquiry` `config` `logging` `error` |  |
//! |  | `house` `query` `survey` `market` `status` `sight` | look at what is there |
//! |  | `export` `draft` | and write it down |
//! | threads | `poller` `stream` `writer` `auditor` `desk` `signal` | carry out, one loop each |
//! | edges | `http` `socket` `proxy` `roots` `thread` | all I/O there is: the network |
//! |  | `store` `grants` `lock` `lines` `board` `csv` `audience` | and the disk |
//! | brains | `keeper` `feed` `control` `plan` `mode` | only decide: what is kept |
//! |  | `link` `session` `breaker` `queue` | how it comes and is written |
//! |  | `limit` `backoff` `view` `request` | how often, and what is told |
//! |  | `verification` | whether the store is right |
//! | wire | `okx` `wire` | turn bytes into words and back |
//! | words | `time` `span` `bar` `candle` `instrument` `page` | mean things |
//! |  | `coverage` `snapshot` `latency` `meter` `spelling` `analysis` |  |
//!
//! **Architecture invariant:** brains know no socket, file, thread, sleep or clock. They are told
//! what happened and when it is, and answer with what to do next, so that a table of a test can
//! lead them through anything.
//!
//! **Architecture invariant:** nothing but `time` reads a clock. Bars end by the exchange's clock,
//! budgets and pauses count in local time which never steps.
//!
//! # Threads and channels
//!
//! ```text
//!             orders           pages            receipts
//! supervisor ─┬──────▶ pollers ──────▶ writer ───────────▶ supervisor
//!             │ wishes          pushes ▲    ▲
//!             ├──────▶ stream ─────────┘    │
//!             └─────────────────────────────┘ notes
//!
//! pollers, stream, auditor, desk, signal ────────────────▶ supervisor
//! ```
//!
//! A one-shot command has the upper row and `signal`; a daemon has all of them; in a program of
//! somebody else's all but `signal`, and the supervisor is a thread of its own. Each thread's loop
//! is the only place where it waits, and a mind without I/O decides for it: `keeper` for the
//! supervisor, `link` for the stream, `queue` for the writer.
//!
//! Threads carry names, which `top -H` shows: `poll-1` and so on, `stream`, `writer`, `audit`,
//! `signal`, and the desk's `desk`, `desk-door` and `desk-1` to `desk-8`, its clerks. The
//! supervisor is the program's first one, and in another's program `supervisor`. `dial`, `resolve`
//! and `lock` take a single call that can be long off one of these; `screen` writes the log to the
//! terminal.
//!
//! | channel | from, to | holds | its sender | it ends when |
//! |---|---|---|---|---|
//! | orders | supervisor, pollers | one per poller | never waits | the supervisor drops it |
//! | wishes | supervisor, stream | 16 | never waits | the supervisor drops it |
//! | pages, pushes, notes | the three, writer | 64, or `buffer_size` | see below | all are gone |
//! | reports | pollers, supervisor | two per poller | waits | all pollers are gone |
//! | news | stream, supervisor | 256 | waits, but not against a stop | the stream is gone |
//! | receipts | writer, supervisor | 256 | waits | everything is on disk |
//! | to count | steward, auditor | 10,000 series | never waits | the run is over |
//! | counts | auditor, supervisor | 16 | waits | – |
//! | signals | signal or `hosted`, supervisor | 4 | never waits | – |
//! | calls | desk and `hosted`, supervisor | one per clerk | waits; the desk 5 s | all are gone |
//! | answers | supervisor, one clerk | 4 | never waits | the last one, or the client is gone |
//! | candles | writer, a subscriber | 1,024 | never waits | it is full, or the run is over |
//! | exits | every thread, supervisor | 64 | never waits | – |
//!
//! The writer's channel holds `buffer_size` orders in a daemon. When it is full the pollers wait,
//! which holds back requests; the stream waits with what is closed, and keeps of a running bar the
//! newest state alone; the supervisor comes again.
//!
//! **Architecture invariant:** the supervisor never blocks on a send, so it always comes back to
//! hear. Everybody else's waits lead to it: pollers and stream by the writer, or directly; the
//! auditor and the clerks directly. There is no cycle, hence no dead-lock. It holds no sender into
//! a channel whose end it awaits, so the drain at the end ends.
//!
//! **Architecture invariant:** there is no unbounded channel and no sleep. All waits have an end:
//! a message, a sender that is gone, or a deadline.
//!
//! **Architecture invariant:** what can take long is on a thread of its own. To connect to the
//! stream is (`dial`), so an order is obeyed meanwhile; to write to a terminal is (`screen`).
//!
//! A stop has one order: no new requests, and the stream leaves; the pollers end with their last
//! page; the writer commits what it has, moves the logs into the files and ends; the last receipts
//! are heard; the desk closes, and the lock is given back. A second signal, or 15 seconds, leaves
//! the pollers behind and the logs where they are, never a commit. A thread that panics
//! is heard of like any end, and ends the run as a second signal does, with exit code 70.
//!
//! # How one candle travels
//!
//! When it is asked for:
//!
//! 1. A `plan::Plan` compares what is wanted with what is covered and has a question;
//!    `control::Control` picks it among those of all series once the budget lets it out.
//! 2. A poller asks it by `http`, and `okx` reads the answer into a `page::Page`.
//! 3. The page says what it proves: its `page::Evidence`. It vouches for the range from its
//!    oldest row to its newest; what else was asked for is still missing.
//! 4. The writer commits rows, spans and ledger of empties in one transaction
//!    (`store::file::File::commit`), and only then sends the receipt.
//! 5. The receipt carries the evidence to the plan, which takes it in by the same
//!    `coverage::Coverage::absorb` as the file did, and asks on.
//! 6. A [`Query`] reads it through a `store::read::Reader`, without any of the above.
//!
//! When it is pushed, the first half differs:
//!
//! 1. `socket` reads a frame, under a deadline and a bound of its size; the connection's `session`
//!    has `okx::stream` read it; `link` lets the rows pass, whichever of its connections, the
//!    current one or the one that is to replace it, brought them.
//! 2. The stream's thread stamps them and hands them to the writer.
//! 3. The writer's `queue` has closed bars committed at once. Running ones wait for a few
//!    milliseconds, then for `commit_interval_ms` since the file's last commit, and merge.
//! 4. They become a page that vouches for its closed bars alone, and go the way of all pages.
//! 5. The receipt goes to the `keeper`. The plan tells whether the stream has left bars out before
//!    these; the instrument's `feed` whether the series has met what is stored, or is lost.
//!
//! **Architecture invariant:** only a receipt moves a plan, and joins a series to the stream. What
//! was sent, answered or pushed counts for nothing until it is on disk.
//!
//! **Architecture invariant:** a plan remembers nothing that the files do not tell. There is no
//! cursor, no queue and no journal: a killed process resumes by looking at what is missing.
//!
//! **Architecture invariant:** a series is left to the stream only while it has joined; else it is
//! polled, unless its settings say that it waits. A bar that the stream does not close in time is
//! looked up by REST, so nothing is waited for that nobody brings.
//!
//! **Architecture invariant:** only `confirm` closes a bar, never the clock, and a closed bar is
//! never overwritten by an unclosed one.
//!
//! **Architecture invariant:** a poller does not retry, and the writer does not fetch. One ticket
//! is one request, and ends in exactly one of stored, broken, failed, or clock read.
//!
//! **Architecture invariant:** only the writer thread opens a file for writing, and a reader needs
//! neither the network nor the lock.
//!
//! # Where to add
//!
//! - **A bar**: a line in the table of `bar.rs`: its name, its table's, its grid. Words, wire and
//!   store follow; where it opens at an odd hour `Bar::remark` says so.
//! - **A command**: its grammar in `cli/args.rs`, its checked form in `cli/command.rs` and
//!   `cli/check.rs`, a file of its own under `cli/`, and its arm in `cli.rs`. If it writes, it also
//!   has a word in `request.rs`, which a daemon's `steward` serves.
//! - **A call of the library**: what it does in the assembly, where a command can use it too, and
//!   the call itself in `local.rs` or `query.rs`, with an example that runs. New words of it are
//!   named at the end of `lib.rs`: what is not named there is not shown.
//! - **A key of the configuration**: its bounds in `config/check.rs`, its default in `config.rs`,
//!   a setter in `config/builder.rs`, and a line in `config.json`. A daemon takes it in while it
//!   runs, or `steward` lists it among those that wait for the next start.
//! - **A number for `status`**: a field in `snapshot.rs`, drawn in `steward/picture.rs`, typed for
//!   programs in `status.rs`, and shown by `cli/status`, to Prometheus too.
//! - **A venue**: a folder beside `okx` with the same functions, from a question to a path and from
//!   an answer or a frame to rows. Nothing above it reads the wire; who names `okx` today is told
//!   by `grep -rl crate::okx src`, and calls the other folder in its place where that is asked.

#![forbid(unsafe_code)]

/// The README, whose programs are tests like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Public for the program's tests, not for embedding.
#[doc(hidden)]
pub mod backoff;
#[doc(hidden)]
pub mod bar;
#[doc(hidden)]
pub mod breaker;
#[doc(hidden)]
pub mod candle;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod coverage;
#[doc(hidden)]
pub mod crew;
#[doc(hidden)]
pub mod desk;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod instrument;
#[doc(hidden)]
pub mod keeper;
#[doc(hidden)]
pub mod latency;
#[doc(hidden)]
pub mod limit;
#[doc(hidden)]
pub mod link;
#[doc(hidden)]
pub mod lock;
#[doc(hidden)]
pub mod logging;
#[doc(hidden)]
pub mod meter;
#[doc(hidden)]
pub mod mode;
#[doc(hidden)]
pub mod okx;
#[doc(hidden)]
pub mod page;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod queue;
#[doc(hidden)]
pub mod request;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod snapshot;
#[doc(hidden)]
pub mod socket;
#[doc(hidden)]
pub mod span;
#[doc(hidden)]
pub mod spelling;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod stream;
#[doc(hidden)]
pub mod thread;
#[doc(hidden)]
pub mod time;
#[doc(hidden)]
pub mod verification;
#[doc(hidden)]
pub mod view;
#[doc(hidden)]
pub mod wire;
#[doc(hidden)]
pub mod writer;

mod analysis;
mod audience;
mod auditor;
mod board;
mod config;
mod csv;
mod daemon;
mod draft;
mod error;
mod export;
mod feed;
mod grants;
mod hosted;
mod house;
mod inquiry;
mod lines;
mod local;
mod market;
mod poller;
mod proxy;
mod query;
mod roots;
mod sight;
mod signal;
mod status;
mod steward;
mod supervisor;
mod survey;

pub use crate::analysis::{DailySummary, Return, Volatility};
pub use crate::audience::{Subscription, SubscriptionError, Updates};
pub use crate::bar::{Bar, BarError};
pub use crate::candle::Candle;
pub use crate::config::{
    CircuitBreaker, Config, ConfigBuilder, ConfigError, InstrumentConfig, Refusal, WebsocketConfig,
};
pub use crate::error::{Error, Remedy};
pub use crate::instrument::{Instrument, InstrumentError, Series};
pub use crate::local::{OkxLocalStore, Progress};
pub use crate::market::Market;
pub use crate::mode::{Mode, RealtimeMode, RealtimeModeError};
pub use crate::okx::{Region, RegionError};
pub use crate::plan::Wanted;
pub use crate::query::{DataCoverage, Exported, Price, Query};
pub use crate::sight::DaemonStatus;
pub use crate::span::Span;
pub use crate::status::{InstrumentStatus, SeriesStatus, Status, Via, WebSocketStatus};
pub use crate::store::query::Selection;
pub use crate::survey::{EmptyRange, Kind, MissingRange, Range, SeriesGaps};
pub use crate::time::{Millis, TimeError, format_time, parse_time};

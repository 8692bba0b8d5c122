//! How fast it is, beside the best that could be: `make bench`.
//!
//! Each line measures the program, or the library, and its limit by turns in one run, and its
//! verdict rests on the ratio of the two. Absolute figures are remarks: they are of this machine
//! on this day.

#[path = "../exchange/mod.rs"]
mod exchange;

mod backfill;
mod candles;
mod command;
mod daemon;
mod growth;
mod hour;
mod intake;
mod live;
mod measure;
mod process;
mod start;
mod store;
mod table;
mod wire;
mod yard;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use table::{HEAD, Line};
use yard::Yard;

/// Measures one thing, or a few that belong together; or says why it cannot.
type Measure = fn(&Yard) -> Result<Vec<Line>, String>;

/// What there is to measure, by the words of `ONLY`.
const LINES: [(&str, Measure); 16] = [
    ("upsert", store::upsert),
    ("single", store::one_row_per_commit),
    ("reads", store::reads),
    ("query", command::query),
    ("export", command::export),
    ("decode", wire::decode),
    ("version", command::version),
    ("size", command::size),
    ("intake", intake::intake),
    ("crowd", live::crowd),
    ("calm", live::calm),
    ("start", start::start),
    ("backfill", backfill::backfill),
    ("hour", hour::hour),
    ("rows", growth::rows),
    ("instruments", live::instruments),
];

fn main() -> ExitCode {
    let only = std::env::var("ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let names = LINES.map(|(name, _)| name);
    if let Some(unknown) = only.iter().find(|word| !names.contains(word)) {
        eprintln!("ONLY={unknown} is nothing that is measured, use {}", names.join(" "));
        return ExitCode::from(2);
    }
    let yard = Yard::new();
    let (mut kept, mut missed) = (0, 0);
    println!("{HEAD}");
    for (name, measure) in LINES.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let measured = catch_unwind(AssertUnwindSafe(|| measure(&yard)))
            .unwrap_or_else(|_| Err("it panicked, see above".to_owned()))
            .unwrap_or_else(|why| vec![Line::failed(name, &why)]);
        for line in measured {
            println!("{line}");
            *if line.is_kept() { &mut kept } else { &mut missed } += 1;
        }
    }
    println!("{kept} kept, {missed} missed");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

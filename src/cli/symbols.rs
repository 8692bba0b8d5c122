//! `add-symbol`, `remove-symbol` and `list --available`: which instruments are mirrored, and which
//! there are.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::remote::{Gate, Writer};
use crate::cli::sight::Sight;
use crate::cli::table::{Align, Layout, count};
use crate::config::{Addition, Config, Edit, add_instrument, remove_instrument};
use crate::engine::Setup;
use crate::inquiry::Inquirer;
use crate::inquiry::listed::{check_listed, listings};
use crate::instrument::Instrument;
use crate::okx::{Kind, Listing};
use crate::store::{self, file_path};

/// An instrument in JSON. These names are public.
#[derive(Debug, Serialize)]
struct Available {
    symbol: String,
    kind: &'static str,
    state: String,
    base: String,
    quote: String,
    settle: String,
    tick_size: String,
}

/// Lists what the exchange offers of one kind.
pub fn list_available(
    setup: &Setup,
    kind: Kind,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut inquirer = Inquirer::new(setup).map_err(Failure::Inquiry)?;
    let mut listings = listings(&mut inquirer, kind).map_err(Failure::Inquiry)?;
    listings.sort_by(|a, b| a.instrument.cmp(&b.instrument));
    finish(show(&listings, json, out), out)
}

fn show(listings: &[Listing], json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        let available = listings.iter().map(|listing| Available {
            symbol: listing.instrument.to_string(),
            kind: listing.kind.as_str(),
            state: listing.state.to_string(),
            base: listing.base.to_string(),
            quote: listing.quote.to_string(),
            settle: listing.settle.to_string(),
            tick_size: listing.tick_size.to_string(),
        });
        let available: Vec<Available> = available.collect();
        serde_json::to_writer_pretty(&mut *out, &available).map_err(std::io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    let columns = [
        ("symbol", Align::Left),
        ("kind", Align::Left),
        ("state", Align::Left),
        ("tick size", Align::Right),
    ];
    let row = |listing: &Listing| {
        vec![
            listing.instrument.to_string(),
            listing.kind.to_string(),
            listing.state.to_string(),
            listing.tick_size.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = listings.iter().map(row).collect();
    Layout::new("", &columns).write(out, &rows)?;
    Ok(writeln!(out, "{}", count(listings.len() as i64, "instrument"))?)
}

/// Adds an instrument to the configuration, once the exchange has shown a candle of it.
pub fn add(
    setup: &Setup,
    config: &Config,
    addition: &Addition,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    check_listed(setup, &addition.instrument, &addition.timeframes)?;
    let edit = add_instrument(&config.file, addition).map_err(Failure::Config)?;
    let (instrument, file) = (&addition.instrument, config.file.display());
    match edit {
        Edit::Done => writeln!(out, "{instrument} added to {file}")?,
        Edit::Updated => writeln!(out, "{instrument} changed in {file}")?,
        Edit::Unchanged => writeln!(out, "{instrument} is in {file} already")?,
    }
    out.flush()?;
    match Sight::look(&setup.data_dir) {
        _ if edit == Edit::Unchanged => {}
        Some(sight) => {
            let pid = sight.snapshot.pid;
            note(notes, format_args!("the running daemon, pid {pid}, takes it up within 5 s"));
        }
        None => note(notes, format_args!("fetch its candles with: okx-store sync {instrument}")),
    }
    finish(Ok(()), out)
}

/// Takes an instrument out of the configuration, and with `purge` its file from the disk, which a
/// running daemon is asked to do.
pub fn remove(
    setup: &Setup,
    config: &Config,
    instrument: &Instrument,
    purge: bool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let path = file_path(&setup.data_dir, instrument);
    let configured = config.instrument(instrument).is_some();
    let stored = path.exists();
    if !(configured || purge && stored) {
        return Err(Failure::NothingToRemove { instrument: instrument.clone(), stored });
    }
    // The right to write comes first: nothing is changed while another command has it. A daemon
    // comes with its socket; it deletes nothing that is still configured.
    let mut gate = purge.then(|| Gate::new(&setup.data_dir)).transpose()?;
    let writer = gate.as_mut().map(Gate::pass).transpose()?;
    if configured {
        remove_instrument(&config.file, instrument).map_err(Failure::Config)?;
        writeln!(out, "{instrument} removed from {}", config.file.display())?;
        // Whoever does not wait for the rest has read what is done.
        out.flush()?;
    }
    if let Some((gate, writer)) = gate.as_mut().zip(writer) {
        if let Err(failure) = delete_by(writer, gate, instrument, &path) {
            let path = path.display();
            note(notes, format_args!("{path} is still there: the same command again deletes it"));
            return Err(failure);
        }
        writeln!(out, "{} deleted", path.display())?;
    } else if stored {
        note(notes, format_args!("its candles stay in {}: --purge deletes them", path.display()));
    }
    if let Some(sight) = Sight::look(&setup.data_dir).filter(|_| configured) {
        let pid = sight.snapshot.pid;
        note(notes, format_args!("the running daemon, pid {pid}, takes it up within 5 s"));
    }
    finish(Ok(()), out)
}

/// Has a file deleted by whoever may, which is somebody else once a daemon has ended.
fn delete_by(
    mut writer: Writer,
    gate: &mut Gate,
    instrument: &Instrument,
    path: &Path,
) -> Result<(), Failure> {
    loop {
        let deleted = match writer {
            Writer::Here(_lock) => return Ok(store::delete(path)?),
            Writer::Daemon(daemon) => daemon.purge(instrument)?,
        };
        if deleted {
            return Ok(());
        }
        writer = gate.pass()?;
    }
}

//! What the supervisor holds of the channels, and what else a process does beside its mind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender};

use crate::auditor::Audit;
use crate::control;
use crate::desk::Call;
use crate::instrument::Instrument;
use crate::keeper::Keeper;
use crate::link::{self, Health};
use crate::poller;
use crate::signal::Signal;
use crate::store::order::Order;
use crate::thread::Exit;
use crate::time::Now;
use crate::writer::{Pushed, Receipt};

/// The supervisor's ends of all channels.
pub struct Ports {
    /// Orders to the pollers; dropped to end them.
    pub actions: Option<Sender<control::Action>>,
    /// Orders to the stream; dropped to end it.
    pub stream: Option<Sender<link::Order>>,
    /// Notes to the writer; dropped so that it can end.
    pub notes: Option<Sender<Order>>,
    /// Tells the writer that somebody is in a hurry.
    pub hurry: Arc<AtomicBool>,
    /// From the pollers.
    pub reports: Receiver<poller::Report>,
    /// From the stream.
    pub streamed: Receiver<link::Report>,
    /// From the writer.
    pub receipts: Receiver<Receipt>,
    /// From the auditor.
    pub audits: Receiver<Audit>,
    /// From commands beside a daemon.
    pub calls: Receiver<Call>,
    /// From the signal thread.
    pub signals: Receiver<Signal>,
    /// From every thread, when it ends.
    pub exits: Receiver<Exit>,
}

/// What a process does beside its mind's orders: shows where things stand, takes in a changed
/// configuration, serves commands.
pub trait Chores {
    /// About ten times a second, and once at the end.
    fn turn(&mut self, mind: &mut Keeper, now: Now);

    /// Something has happened that is no business of the mind.
    fn hear(&mut self, _news: News<'_>, _mind: &mut Keeper, _now: Now) {}

    /// What the writer is to be told next; it comes again while it cannot be sent.
    fn note(&mut self) -> Option<Order> {
        None
    }
}

/// What [`Chores`] may want to hear of.
#[derive(Debug)]
pub enum News<'a> {
    /// How the stream is.
    Health(Health),
    /// The stream's bars are on disk.
    Pushed(&'a Pushed),
    /// Nothing can be written, for this reason, or again.
    Stalled(Option<String>),
    /// The rows of a series were counted.
    Audited(&'a Audit),
    /// The file of an instrument is gone, or why not.
    Purged(Instrument, Option<String>),
    /// The configuration is to be read again.
    Reload,
    /// A command asks for something.
    Call(Call),
    /// A failure, in words.
    Remark(&'a str),
}

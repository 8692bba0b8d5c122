//! The writer: the one thread that changes files.
//!
//! It hears pages from the pollers, pushes from the stream and notes from the supervisor, and tells
//! the supervisor what is on disk, after each commit and never before. When to commit what is the
//! [`Queue`]'s to say. It ends when nobody can send to it any more, or when it is told to.
//!
//! **Invariant:** every read-write connection is opened, used and closed here.
//!
//! **Invariant:** it keeps no more than fits the queue. On a disk that takes nothing the queue
//! fills up, then the channel, and then the senders wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, never, select};
use log::{debug, warn};

use crate::audience::Audience;
use crate::instrument::{Instrument, Series};
use crate::page::Stored;
use crate::queue::{Heard, Queue, Work};
use crate::store::file::Entry;
use crate::store::files::Files;
use crate::store::order::{Batch, Order, Push};
use crate::store::{Scope, StoreError};
use crate::time::{Clock, MINUTE, Millis, SECOND};

/// The thread's name: the supervisor waits for its end.
pub const NAME: &str = "writer";

/// Rows that may wait in the queue. All pages that can be under way are fewer (16 pollers, 300 rows
/// each), so only a disk that takes nothing fills it.
const QUEUED_MAX: usize = 10_000;
/// Orders that are taken in before the next commit: a round of everything that a channel holds.
const DRAIN_MAX: usize = 256;
/// The longest pause of a writer whose disk is full. It begins with a second and doubles.
const STALL_MAX_MS: Millis = 30 * SECOND;
/// The longest pause of a file that somebody else has locked: people close their shells.
const BUSY_PAUSE_MAX_MS: Millis = 8 * SECOND;
/// When a locked file is given up: by the daemon, and by a command that somebody waits for.
const BUSY_PATIENCE_MS: (Millis, Millis) = (MINUTE, 10 * SECOND);
/// When a file is given up that fails as on a broken disk while others take commits.
const ALONE_MS: Millis = MINUTE;
/// How often somebody's hurry is looked for during a pause.
const HURRY_MS: Millis = 250;

/// What the supervisor hears, in the order of the commits.
#[derive(Debug)]
pub enum Receipt {
    /// A page is on disk.
    Stored {
        /// The ticket under which it was fetched.
        ticket: u64,
        /// What is there now.
        stored: Stored,
    },
    /// A page could not be stored.
    Broken {
        /// The ticket under which it was fetched.
        ticket: u64,
        /// Why.
        error: Arc<StoreError>,
    },
    /// What was pushed of a series is on disk.
    Pushed(Pushed),
    /// The file of an instrument takes no pushes; what was pushed is lost here and has to be
    /// fetched.
    PushBroken {
        /// Whose file.
        instrument: Instrument,
        /// Why.
        error: Arc<StoreError>,
    },
    /// No file can be written. Everything is kept and tried again; this is told once.
    Stalled {
        /// Why.
        error: Arc<StoreError>,
    },
    /// Files can be written again.
    Resumed,
    /// The file of an instrument is deleted, or cannot be.
    Purged {
        /// Whose file.
        instrument: Instrument,
        /// Why it is still there.
        error: Option<Arc<StoreError>>,
    },
}

/// What one commit has stored of the pushes of one series.
#[derive(Debug)]
pub struct Pushed {
    /// Which series.
    pub series: Series,
    /// What is there now.
    pub stored: Stored,
    /// How many states of bars had been pushed.
    pub rows: u32,
    /// How long the first of them had waited since it arrived.
    pub wait_ms: Millis,
    /// The same of the first closed bar, if there was one.
    pub confirmed_wait_ms: Option<Millis>,
}

/// What the writer works with.
pub struct Writer {
    /// The files.
    pub files: Files,
    /// The clock whose offset each commit keeps.
    pub clock: Arc<Clock>,
    /// Pages, pushes and notes.
    pub orders: Receiver<Order>,
    /// Receipts to the supervisor.
    pub receipts: Sender<Receipt>,
    /// Who else hears of what is on disk.
    pub audience: Arc<Audience>,
    /// Running bars are committed once in so many ms for each file.
    pub commit_interval_ms: Millis,
    /// Whether to wait for a disk that is full; else its error is the answer to every page.
    pub patient: bool,
    /// Raised when nobody waits any longer: logs stay beside their files, and a full disk is not
    /// waited for. A commit that has begun is ended all the same.
    pub hurry: Arc<AtomicBool>,
}

impl Writer {
    /// Works until the orders end, then leaves whole files without logs behind.
    pub fn run(self) {
        Scribe::new(self).run();
    }
}

/// Why the writer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody can send to it, or hears it, any more.
    Alone,
    /// It was told to, or everybody is in a hurry.
    Stopped,
}

/// No file can be written.
#[derive(Clone, Copy, Debug)]
struct Stall {
    pause_ms: Millis,
    until: Millis,
}

/// The writer at work.
struct Scribe {
    writer: Writer,
    queue: Queue<Batch>,
    stall: Option<Stall>,
    /// Instruments whose file was deleted, and the last ticket that was given out before: what was
    /// under way must not bring it back.
    purged: BTreeMap<Instrument, u64>,
    /// When a file has taken a commit last.
    committed_at: Option<Millis>,
    compact: bool,
    end: Option<End>,
}

impl Scribe {
    fn new(writer: Writer) -> Scribe {
        Scribe {
            queue: Queue::new(writer.commit_interval_ms),
            writer,
            stall: None,
            purged: BTreeMap::new(),
            committed_at: None,
            compact: false,
            end: None,
        }
    }

    fn run(mut self) {
        while self.end.is_none() {
            self.drain();
            if self.end.is_none() && !self.commit_next() && !self.tidy_up() {
                self.wait();
            }
        }
        // One last try for each file; what fails now is given up.
        while let Some(work) = self.queue.any(self.now()) {
            self.commit(work);
        }
        if self.end == Some(End::Stopped) {
            return;
        }
        self.compact();
        if let Err(error) = self.writer.files.finish(&self.writer.hurry) {
            // Nothing is lost: the next process to open the file finds everything in its log.
            warn!(target: "writer", "{error}; the log stays beside the file");
        }
    }

    fn now(&self) -> Millis {
        self.writer.clock.now().local
    }

    /// Takes in what has come, as far as there is room for it.
    fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            if self.end.is_some() || self.is_full() {
                return;
            }
            match self.writer.orders.try_recv() {
                Ok(order) => self.hear(order),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.end = Some(End::Alone),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.queue.rows() >= QUEUED_MAX
    }

    fn hear(&mut self, order: Order) {
        match order {
            Order::Store(batch) => {
                let last = self.purged.get(&batch.instrument);
                if last.is_some_and(|&last| batch.ticket <= last) {
                    return self.refuse(&batch);
                }
                self.purged.remove(&batch.instrument);
                let (instrument, rows) = (batch.instrument.clone(), batch.entry.page.rows.len());
                self.queue.store(&instrument, rows, batch);
            }
            Order::Push(Push { series, rows, refused, arrived, at }) => {
                if !self.purged.contains_key(&series.instrument) {
                    self.queue.push(&series, rows, refused, arrived, at);
                }
            }
            Order::NoteError { series, error } => self.note_error(&series, &error),
            Order::Purge { instrument, ticket } => self.purge(instrument, ticket),
            Order::Compact => self.compact = true,
            Order::Stop => self.end = Some(End::Stopped),
        }
    }

    /// Commits what is due the most; tells whether anything was.
    fn commit_next(&mut self) -> bool {
        let now = self.now();
        if self.stall.is_some_and(|stall| stall.until > now) {
            return false;
        }
        let work = self.queue.next(now);
        work.map(|work| self.commit(work)).is_some()
    }

    fn commit(&mut self, work: Work<Batch>) {
        let entry =
            |heard: &Heard| Entry { bar: heard.bar, grid: None, page: heard.page(), at: heard.at };
        let pushes: Vec<Entry> = work.pushes.iter().map(entry).collect();
        let entries = work.pages().map(|batch| &batch.entry).chain(&pushes);
        let offset_ms = self.writer.clock.offset_ms();
        match self.writer.files.commit(&work.instrument, entries, offset_ms) {
            Ok(stored) => self.tell_stored(&work, stored),
            Err(error) => self.fail(work, error),
        }
    }

    fn tell_stored(&mut self, work: &Work<Batch>, stored: Vec<Stored>) {
        let (now, instrument) = (self.now(), &work.instrument);
        self.committed_at = Some(now);
        let closed: u32 = stored.iter().map(|page| page.closed).sum();
        debug!(target: "writer", "{instrument}: on disk, newly closed bars: {closed}");
        if self.stall.take().is_some() {
            self.tell(Receipt::Resumed);
        }
        self.tell_audience(work, &stored);
        let mut stored = stored.into_iter();
        for (batch, stored) in work.pages().zip(stored.by_ref()) {
            self.tell(Receipt::Stored { ticket: batch.ticket, stored });
        }
        for (heard, stored) in work.pushes.iter().zip(stored) {
            self.tell(Receipt::Pushed(Pushed {
                series: Series { instrument: instrument.clone(), bar: heard.bar },
                stored,
                rows: heard.states,
                wait_ms: heard.wait_ms(now),
                confirmed_wait_ms: heard.closed_wait_ms(now),
            }));
        }
    }

    /// Shows what the last commit has changed to those who have subscribed.
    fn tell_audience(&self, work: &Work<Batch>, stored: &[Stored]) {
        let Writer { audience, clock, files, .. } = &self.writer;
        if audience.is_empty() {
            return;
        }
        let now = clock.is_learnt().then(|| clock.now().exchange);
        let bars = work.pages().map(|batch| batch.entry.bar);
        let bars = bars.chain(work.pushes.iter().map(|heard| heard.bar));
        for ((bar, stored), rows) in bars.zip(stored).zip(files.fresh()) {
            audience.tell(&work.instrument, bar, stored.grid, rows, now);
        }
    }

    fn tell(&mut self, receipt: Receipt) {
        if self.writer.receipts.send(receipt).is_err() {
            self.end.get_or_insert(End::Alone);
        }
    }

    /// Keeps what may be stored later, and gives up what may not.
    fn fail(&mut self, mut work: Work<Batch>, error: StoreError) {
        let (now, patient) = (self.now(), self.writer.patient);
        let patience_ms = if patient { BUSY_PATIENCE_MS.0 } else { BUSY_PATIENCE_MS.1 };
        match error.scope() {
            Scope::WholeDisk if patient && self.end.is_none() => {
                // A file on a bad place of the disk says what all say where the disk is gone.
                let may_be_alone = error.is_failing_disk();
                let others_at = self.committed_at.filter(|_| may_be_alone);
                let alone_ms = work.fails_alone_ms(now, others_at);
                if alone_ms.is_some_and(|alone_ms| alone_ms >= ALONE_MS) {
                    self.writer.files.close(&work.instrument);
                    return self.give_up(&work, StoreError::Alone { error: Box::new(error) });
                }
                let is_alone = may_be_alone && work.has_failed_alone();
                self.queue.put_back(now, work, STALL_MAX_MS);
                if !is_alone {
                    self.stall(now, error);
                }
            }
            Scope::Busy if work.failing_ms(now) < patience_ms && self.end.is_none() => {
                debug!(target: "writer", "{error}: it is tried again");
                self.queue.put_back(now, work, BUSY_PAUSE_MAX_MS);
            }
            Scope::ThisFile => {
                self.writer.files.close(&work.instrument);
                self.give_up(&work, error);
            }
            Scope::WholeDisk | Scope::Busy => {
                if patient && self.end.is_none() {
                    warn!(target: "writer", "{error}: it is left for now, and tried again later");
                }
                self.give_up(&work, error);
            }
        }
    }

    fn stall(&mut self, now: Millis, error: StoreError) {
        let pause_ms = match self.stall {
            Some(stall) => (2 * stall.pause_ms).min(STALL_MAX_MS),
            None => {
                self.tell(Receipt::Stalled { error: Arc::new(error) });
                SECOND
            }
        };
        self.stall = Some(Stall { pause_ms, until: now + pause_ms });
    }

    fn give_up(&mut self, work: &Work<Batch>, error: StoreError) {
        let error = Arc::new(error);
        for batch in work.pages() {
            self.tell(Receipt::Broken { ticket: batch.ticket, error: error.clone() });
        }
        if !work.pushes.is_empty() {
            let instrument = work.instrument.clone();
            self.tell(Receipt::PushBroken { instrument, error });
        }
    }

    /// A note that cannot be written is only logged: what it is about was told already. It is no
    /// reason to make a file for an instrument that may not exist.
    fn note_error(&mut self, series: &Series, error: &str) {
        // After what came before: a page that is stored ends an earlier error, not a later one.
        if let Some(work) = self.queue.take(&series.instrument, self.now()) {
            self.commit(work);
        }
        if !self.writer.files.exists(&series.instrument) {
            return;
        }
        let noted = self.writer.files.get(&series.instrument);
        if let Err(failed) = noted.and_then(|file| file.note_error(series.bar, error)) {
            warn!(target: "writer", "{series}: the last error is not noted: {failed}");
        }
    }

    fn purge(&mut self, instrument: Instrument, ticket: u64) {
        let work = self.queue.remove(&instrument);
        let error = self.writer.files.purge(&instrument).err().map(Arc::new);
        for batch in work.iter().flat_map(Work::pages) {
            self.refuse(batch);
        }
        self.purged.insert(instrument.clone(), ticket);
        self.tell(Receipt::Purged { instrument, error });
    }

    /// A page was asked for before its file was deleted.
    fn refuse(&mut self, batch: &Batch) {
        let path = self.writer.files.path(&batch.instrument);
        let error = Arc::new(StoreError::Purged { path });
        self.tell(Receipt::Broken { ticket: batch.ticket, error });
    }

    /// Does what is better done while nobody waits, one thing at a time; tells whether there was
    /// anything.
    fn tidy_up(&mut self) -> bool {
        if self.stall.is_some() || !self.writer.orders.is_empty() {
            return false;
        }
        if self.compact && self.queue.is_empty() {
            self.compact();
            return true;
        }
        let now = self.now();
        let files = &mut self.writer.files;
        let tidied = match files.checkpoint() {
            Ok(false) => files.settle(now),
            tidied => tidied,
        };
        tidied.unwrap_or_else(|error| {
            warn!(target: "writer", "{error}; the log grows until the next time");
            true
        })
    }

    fn compact(&mut self) {
        if std::mem::take(&mut self.compact)
            && let Err(error) = self.writer.files.compact()
        {
            // The file is as it was, only larger than it need be.
            warn!(target: "writer", "{error}");
        }
    }

    /// Waits until something comes for which there is room, or something is due.
    fn wait(&mut self) {
        let now = self.now();
        let mut wait_ms = self.queue.deadline().map_or(MINUTE, |due| due.saturating_sub(now));
        if let Some(stall) = self.stall {
            if self.writer.hurry.load(Ordering::Relaxed) {
                self.end = Some(End::Stopped);
                return;
            }
            wait_ms = wait_ms.max(stall.until - now).min(HURRY_MS);
        }
        let closed = never();
        let orders = if self.is_full() { &closed } else { &self.writer.orders };
        let order = select! {
            recv(orders) -> order => Some(order),
            default(Duration::from_millis(wait_ms.max(0) as u64)) => None,
        };
        match order {
            Some(Ok(order)) => self.hear(order),
            Some(Err(_)) => self.end = Some(End::Alone),
            None => {}
        }
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

//! The shell of the writer: the real queue, and what `src/writer.rs` does around it, with the model
//! of the store in place of files. Its channel is here, too, with those who wait for room in it.

use std::collections::VecDeque;

use okx_local_store::control::Damage;
use okx_local_store::instrument::{Instrument, Series};
use okx_local_store::page::Stored;
use okx_local_store::queue::{Heard as Pushed, Queue, Work};
use okx_local_store::store::Scope;
use okx_local_store::store::file::Entry;
use okx_local_store::store::order::{Batch, Order, Push};
use okx_local_store::time::{MINUTE, Millis, Now, SECOND};

use crate::exchange::Exchange;
use crate::judge::Judge;
use crate::process::Heard;
use crate::stage::{Event, Lane, Stage, ToClient, note};
use crate::store::Store;
use crate::weather::{Spell, Weather};

/// As in `src/writer.rs`.
const DRAIN_MAX: usize = 256;
const STALL_MAX_MS: Millis = 30 * SECOND;
const BUSY_PAUSE_MAX_MS: Millis = 8 * SECOND;
const BUSY_PATIENCE_MS: (Millis, Millis) = (MINUTE, 10 * SECOND);
const ALONE_MS: Millis = MINUTE;
/// The most rows of a page, which may come when the queue is almost full.
const PAGE_ROWS: usize = 300;
/// A commit takes so long at the most while the disk is well.
const COMMIT_MS: Millis = 12;

#[derive(Clone, Copy)]
struct Stall {
    pause_ms: Millis,
    until: Millis,
}

/// Where the writer works: what it needs of the rest of the world.
pub struct Place<'a> {
    pub life: u64,
    pub now: Now,
    pub offset_ms: Millis,
    pub exchange: &'a mut Exchange,
    pub store: &'a mut Store,
    pub judge: &'a mut Judge,
}

pub struct Writer {
    queue: Queue<Batch>,
    channel: VecDeque<Order>,
    room: usize,
    /// Orders whose senders wait for room.
    blocked: VecDeque<Order>,
    /// The tickets of pages that found room since somebody asked.
    accepted: Vec<u64>,
    stall: Option<Stall>,
    committed_at: Option<Millis>,
    queued_max: usize,
    /// Whether it waits for a disk that is full.
    is_patient: bool,
    /// Until when a commit lasts.
    busy_until: Millis,
    /// The number of its wait, and the end of that.
    wait: (u64, Millis),
}

impl Writer {
    pub fn new(weather: &Weather) -> Writer {
        Writer {
            queue: Queue::new(weather.commit_interval_ms),
            channel: VecDeque::new(),
            room: weather.room,
            blocked: VecDeque::new(),
            accepted: Vec::new(),
            stall: None,
            committed_at: None,
            queued_max: weather.queued_max,
            is_patient: !weather.is_command,
            busy_until: Millis::MIN,
            wait: (0, Millis::MAX),
        }
    }

    /// Somebody sends to the writer, and waits if there is no room.
    pub fn take(&mut self, stage: &mut Stage, life: u64, now: Now, order: Order) {
        if self.channel.len() < self.room && self.blocked.is_empty() {
            self.admit(order);
        } else {
            note!(stage, "writer: a sender waits for room");
            self.blocked.push_back(order);
        }
        self.wake_after(stage, life, 0, now);
    }

    /// Somebody sends if there is room, and gets back what has none.
    pub fn offer(&mut self, stage: &mut Stage, life: u64, now: Now, order: Order) -> Option<Order> {
        if self.channel.len() >= self.room {
            return Some(order);
        }
        self.admit(order);
        self.wake_after(stage, life, 0, now);
        None
    }

    fn admit(&mut self, order: Order) {
        if let Order::Store(batch) = &order {
            self.accepted.push(batch.ticket);
        }
        self.channel.push_back(order);
    }

    /// Pages that found room since this was asked last.
    pub fn accepted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.accepted)
    }

    /// Whether the stream waits for room.
    pub fn keeps_stream(&self) -> bool {
        self.blocked.iter().any(|order| matches!(order, Order::Push(_)))
    }

    fn wake_after(&mut self, stage: &mut Stage, life: u64, after_ms: Millis, _: Now) {
        let at = (stage.at + after_ms).max(self.busy_until);
        if at < self.wait.1 {
            self.wait = (self.wait.0 + 1, at);
            let after_ms = at - stage.at;
            stage.post(after_ms, Event::Client(life, ToClient::Writer(self.wait.0)));
        }
    }

    /// The writer's loop, once.
    pub fn work(&mut self, stage: &mut Stage, wait: u64, place: &mut Place<'_>) {
        if wait != self.wait.0 {
            return;
        }
        self.wait.1 = Millis::MAX;
        self.drain();
        let bound = self.queued_max + PAGE_ROWS;
        assert!(self.queue.rows() <= bound, "{} rows wait in the queue", self.queue.rows());
        let now = place.now.local;
        let stalls = self.stall.is_some_and(|stall| stall.until > now);
        let work = if stalls { None } else { self.queue.next(now) };
        if let Some(work) = work {
            self.commit(stage, work, place);
            return self.wake_after(stage, place.life, 0, place.now);
        }
        let due = self.queue.deadline();
        assert_eq!(due.is_none(), self.queue.is_empty(), "what waits for a commit is never due");
        let stalled = self.stall.map(|stall| stall.until);
        if let Some(due) = due.map(|due| due.max(stalled.unwrap_or(due))) {
            assert!(due > now, "the writer would spin");
            self.wake_after(stage, place.life, due - now, place.now);
        }
    }

    fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            if self.queue.rows() >= self.queued_max {
                return;
            }
            let Some(order) = self.channel.pop_front() else { return };
            match order {
                Order::Store(batch) => {
                    let (name, rows) = (batch.instrument.clone(), batch.entry.page.rows.len());
                    self.queue.store(&name, rows, batch);
                }
                Order::Push(Push { series, rows, refused, arrived, at }) => {
                    self.queue.push(&series, rows, refused, arrived, at);
                }
                other => panic!("nobody sends {other:?}"),
            }
            while self.channel.len() < self.room
                && let Some(order) = self.blocked.pop_front()
            {
                self.admit(order);
            }
        }
    }

    fn commit(&mut self, stage: &mut Stage, work: Work<Batch>, place: &mut Place<'_>) {
        let at = stage.at;
        let slow_ms = place.exchange.spell(at, |spell| match spell {
            Spell::Slow(ms) => Some(ms),
            _ => None,
        });
        self.busy_until = at + 1 + stage.draw(slow_ms.unwrap_or(COMMIT_MS));
        if let Some(scope) = place.exchange.disk(at, &work.instrument) {
            return self.fail(stage, work, scope, place);
        }
        let entry =
            |heard: &Pushed| Entry { bar: heard.bar, grid: None, page: heard.page(), at: heard.at };
        let pushes: Vec<Entry> = work.pushes.iter().map(entry).collect();
        let entries: Vec<&Entry> = work.pages().map(|batch| &batch.entry).chain(&pushes).collect();
        let stored = place.store.commit(&work.instrument, &entries, place.offset_ms);
        place.judge.committed(&work.instrument, &entries, &stored, place.store, place.exchange);
        self.tell_stored(stage, &work, stored, place);
    }

    fn tell_stored(
        &mut self,
        stage: &mut Stage,
        work: &Work<Batch>,
        stored: Vec<Stored>,
        place: &Place<'_>,
    ) {
        self.committed_at = Some(place.now.local);
        self.stall = None;
        let mut stored = stored.into_iter();
        for (batch, stored) in work.pages().zip(stored.by_ref()) {
            let (bar, vouched) = (batch.entry.bar, &stored.evidence.vouched);
            note!(stage, "writer: {} {bar} ticket {} {vouched}", work.instrument, batch.ticket);
            self.tell(stage, place.life, Heard::Stored(batch.ticket, stored));
        }
        for (heard, stored) in work.pushes.iter().zip(stored) {
            let series = Series { instrument: work.instrument.clone(), bar: heard.bar };
            note!(stage, "writer: {series} pushed {}", stored.evidence.vouched);
            self.tell(stage, place.life, Heard::Pushed(series, stored));
        }
    }

    fn tell(&self, stage: &mut Stage, life: u64, heard: Heard) {
        let after_ms = self.busy_until - stage.at;
        stage.post_in(Lane::Receipts, after_ms, Event::Client(life, ToClient::Heard(heard)));
    }

    fn fail(
        &mut self,
        stage: &mut Stage,
        mut work: Work<Batch>,
        scope: (Scope, bool),
        place: &Place<'_>,
    ) {
        let now = place.now.local;
        note!(stage, "writer: {} cannot be committed: {scope:?}", work.instrument);
        let patience_ms = if self.is_patient { BUSY_PATIENCE_MS.0 } else { BUSY_PATIENCE_MS.1 };
        match scope {
            (Scope::WholeDisk, _) if !self.is_patient => {
                self.give_up(stage, &work, Damage::Disk, place.life);
            }
            (Scope::WholeDisk, may_be_alone) => {
                let others_at = self.committed_at.filter(|_| may_be_alone);
                let alone_ms = work.fails_alone_ms(now, others_at);
                if alone_ms.is_some_and(|alone_ms| alone_ms >= ALONE_MS) {
                    return self.give_up(stage, &work, Damage::File, place.life);
                }
                let is_alone = may_be_alone && work.has_failed_alone();
                self.queue.put_back(now, work, STALL_MAX_MS);
                if !is_alone {
                    let pause_ms = self.stall.map_or(SECOND, |stall| stall.pause_ms * 2);
                    let pause_ms = pause_ms.min(STALL_MAX_MS);
                    self.stall = Some(Stall { pause_ms, until: now + pause_ms });
                }
            }
            (Scope::Busy, _) if work.failing_ms(now) < patience_ms => {
                self.queue.put_back(now, work, BUSY_PAUSE_MAX_MS);
            }
            (Scope::Busy, _) => self.give_up(stage, &work, Damage::Busy, place.life),
            (Scope::ThisFile, _) => self.give_up(stage, &work, Damage::File, place.life),
        }
    }

    fn give_up(&mut self, stage: &mut Stage, work: &Work<Batch>, damage: Damage, life: u64) {
        for batch in work.pages() {
            self.tell(stage, life, Heard::Broken(batch.ticket, damage));
        }
        if !work.pushes.is_empty() {
            let instrument: Instrument = work.instrument.clone();
            self.tell(stage, life, Heard::PushBroken(instrument, damage));
        }
    }
}

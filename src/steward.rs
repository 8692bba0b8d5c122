//! The steward of a daemon: takes in a changed configuration, serves commands, and keeps the
//! picture of itself that other processes look at.

mod errand;
mod picture;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::time::SystemTime;

use crossbeam_channel::Sender;
use log::{error, info, warn};

use crate::config::{Config, ConfigError, InstrumentConfig};
use crate::control::Line;
use crate::daemon;
use crate::desk::Call;
use crate::engine::{self, Setup};
use crate::instrument::{Instrument, Series};
use crate::keeper::{Input, Keeper, Member};
use crate::link;
use crate::mode::Rule;
use crate::plan::Wanted;
use crate::request::{Answer, Request};
use crate::steward::errand::Errand;
use crate::steward::picture::Picture;
use crate::store::order::Order;
use crate::store::{Scope, StoreError};
use crate::supervisor::{Chores, News};
use crate::time::{Millis, Now, SECOND};
use crate::view::View;

/// How often the configuration file is looked at.
const CONFIG_MS: Millis = 2 * SECOND;

/// How long a file that is to be deleted waits for its pages, which time out sooner.
const PURGE_WAIT_MS: Millis = 12 * SECOND;

/// How often a file is tried that cannot be read.
const UNREAD_MS: Millis = 10 * SECOND;

/// How often it is looked whether all history is stored.
const WHOLE_MS: Millis = 5 * SECOND;

/// Reads the configuration anew.
pub type Reload = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

/// Somebody waits for the file of an instrument to be deleted.
struct Purge {
    instrument: Instrument,
    answers: Sender<Answer>,
    /// Until when pages are waited for that are under way, local time.
    wait_until: Millis,
    /// Whether the writer was told.
    is_ordered: bool,
}

/// The steward.
pub struct Steward {
    setup: Setup,
    config: Config,
    reload: Reload,
    /// What the file looked like when it was read last.
    seen: Option<(SystemTime, u64)>,
    looked_at: Millis,
    /// Whether there was no file at the last look, though there had been one.
    was_absent: bool,
    /// Why a changed file was refused.
    refusal: Option<String>,
    errands: BTreeMap<u64, Errand>,
    purges: Vec<Purge>,
    number: u64,
    /// Whether the end was told of.
    is_leaving: bool,
    notes: VecDeque<Order>,
    auditor: Sender<Series>,
    picture: Picture,
    /// Series whose files could not be read for a while, and when that was tried last.
    unread: BTreeSet<Series>,
    read_at: Millis,
    /// Whether it was told that all history is stored, and when that was looked at last.
    is_whole: bool,
    whole_at: Millis,
}

impl Steward {
    /// A steward of what `config` says. `auditor` counts rows for it.
    pub fn new(setup: Setup, config: Config, reload: Reload, auditor: Sender<Series>) -> Steward {
        Steward {
            seen: look(&config),
            picture: Picture::new(&setup.data_dir, &config),
            setup,
            config,
            reload,
            looked_at: Millis::MIN,
            was_absent: false,
            refusal: None,
            errands: BTreeMap::new(),
            purges: Vec::new(),
            number: 0,
            is_leaving: false,
            notes: VecDeque::new(),
            is_whole: false,
            whole_at: Millis::MIN,
            unread: BTreeSet::new(),
            read_at: Millis::MIN,
            auditor,
        }
    }

    /// Has the mind keep what is configured; gives the series that are new to it.
    ///
    /// Files that cannot be read for a while are read later: until then their series stay unknown.
    pub fn configure(&mut self, mind: &mut Keeper, now: Now) -> Vec<Series> {
        let members = members(&self.config);
        let (mut lines, mut unread) = (Vec::new(), BTreeSet::new());
        for member in &members {
            let wanted = Wanted::Days(member.history_days);
            for series in mind.unknown(member.series()) {
                match self.read_line(&series, wanted, now) {
                    Ok(line) => lines.push(line),
                    Err(error) if error.scope() == Scope::ThisFile => {
                        lines.push(engine::unread_line(&series, wanted, &error));
                    }
                    Err(error) => {
                        if !self.unread.contains(&series) {
                            warn!(target: "store", "{error}; {series} waits until it can be read");
                        }
                        unread.insert(series);
                    }
                }
            }
        }
        (self.unread, self.read_at) = (unread, now.local);
        let new = lines.iter().map(|line| line.series.clone()).collect();
        mind.configure(&members, lines, now);
        new
    }

    fn read_line(&self, series: &Series, wanted: Wanted, now: Now) -> Result<Line, StoreError> {
        engine::read_line(&self.setup, series, wanted, now, engine::Trust::Ledger)
    }

    /// Reads again what could not be read.
    fn read_again(&mut self, mind: &mut Keeper, now: Now) {
        if !self.unread.is_empty() && now.local >= self.read_at.saturating_add(UNREAD_MS) {
            self.keep_configured(mind, now);
        }
    }

    /// Has the mind keep what is configured, and the rows counted of what is new to it.
    fn keep_configured(&mut self, mind: &mut Keeper, now: Now) {
        for series in &self.configure(mind, now) {
            self.audit(series);
        }
    }

    fn line(&self, series: &Series, wanted: Wanted, now: Now) -> Line {
        engine::line(&self.setup, series, wanted, now, engine::Trust::Ledger)
    }

    /// Notices a file that has changed, or is gone: at the second look, because an editor may take
    /// the old one away before it writes the new one.
    fn look_at_config(&mut self, mind: &mut Keeper, now: Now) {
        if now.local < self.looked_at.saturating_add(CONFIG_MS) {
            return;
        }
        self.looked_at = now.local;
        let seen = look(&self.config);
        let was_absent = std::mem::replace(&mut self.was_absent, seen.is_none());
        if seen != self.seen && (seen.is_some() || was_absent) {
            self.take_in_config(mind, now);
        }
    }

    fn take_in_config(&mut self, mind: &mut Keeper, now: Now) {
        self.seen = look(&self.config);
        let config = match (self.reload)() {
            Ok(config) => config,
            Err(refused) => {
                error!(target: "config", "{refused}; what held before still holds");
                self.refusal = Some(refused.to_string());
                return;
            }
        };
        self.refusal = None;
        let later = settled(&self.config, &config);
        if !later.is_empty() {
            let keys = later.join(", ");
            warn!(target: "config", "these keys take effect at the next start: {keys}");
        }
        let link = |config: &Config| (config.websocket.clone(), config.circuit_breaker.clone());
        if link(&config) != link(&self.config) {
            let settings = Box::new(daemon::link_settings(&config, &self.setup));
            mind.tell_stream(link::Order::Configure(settings));
        }
        self.config = config;
        self.is_whole = false;
        mind.pardon();
        self.keep_configured(mind, now);
        let kept = self.config.instruments.iter().filter(|known| known.enabled).count();
        info!(target: "config", "taken in, instruments: {kept}");
    }

    /// Has the rows of a series counted; tells whether a result will come.
    fn audit(&self, series: &Series) -> bool {
        self.auditor.try_send(series.clone()).is_ok()
    }

    fn serve(&mut self, call: Call, mind: &mut Keeper, now: Now) {
        let Call { request, answers } = call;
        if mind.control().was_stopped() {
            // Who hears nothing waits for the lock, which is free soon.
            return;
        }
        match request {
            Request::Fill { wanted } => self.fill(&wanted, answers, mind, now),
            Request::Recheck { series, spans } => {
                self.fill(&[(series.clone(), Wanted::hull(&spans))], answers, mind, now);
                // What is not covered is fetched, and what it replaces is kept as revised.
                mind.on(now, Input::Audited { series: &series, lost: &spans });
            }
            Request::Purge { instrument } => {
                if self.seen != look(&self.config) {
                    // The command has edited the file a moment ago.
                    self.take_in_config(mind, now);
                }
                let wait_until = now.local + PURGE_WAIT_MS;
                self.purges.push(Purge { instrument, answers, wait_until, is_ordered: false });
                self.purge(mind, now);
            }
        }
    }

    /// Has those files deleted for which no page is under way any more: it would come back with it.
    fn purge(&mut self, mind: &Keeper, now: Now) {
        let (config, control) = (&self.config, mind.control());
        let configured = |it: &mut Purge| config.instrument(&it.instrument).is_some();
        let refused = |it: &mut Purge| !it.is_ordered && configured(it);
        for Purge { instrument, answers, .. } in self.purges.extract_if(.., refused) {
            let words = format!("{instrument} is still configured: remove it first");
            let _ = answers.try_send(Answer::Refused(words));
        }
        for it in self.purges.iter_mut().filter(|it| !it.is_ordered) {
            if now.local >= it.wait_until || !control.is_asking(&it.instrument) {
                it.is_ordered = true;
                let (instrument, ticket) = (it.instrument.clone(), control.requests());
                self.notes.push_back(Order::Purge { instrument, ticket });
            }
        }
    }

    fn fill(
        &mut self,
        wanted: &[(Series, Wanted)],
        answers: Sender<Answer>,
        mind: &mut Keeper,
        now: Now,
    ) {
        self.number += 1;
        let new = mind.unknown(wanted.iter().map(|(series, _)| series.clone()));
        let lines = wanted.iter().filter(|(series, _)| new.contains(series));
        let lines = lines.map(|(series, wanted)| self.line(series, *wanted, now)).collect();
        mind.demand(self.number, wanted, lines);
        let audits = wanted.iter().map(|(series, _)| series.clone());
        let audits = audits.filter(|series| self.audit(series)).collect();
        let pages = mind.control().pages();
        self.errands.insert(self.number, Errand::new(answers, audits, pages, now));
    }

    /// Tells once when the history that is configured is stored.
    fn look_at_history(&mut self, mind: &Keeper, now: Now) {
        if self.is_whole || now.local < self.whole_at.saturating_add(WHOLE_MS) {
            return;
        }
        self.whole_at = now.local;
        let lines = || mind.lines();
        if self.unread.is_empty()
            && lines().next().is_some()
            && lines().all(|line| line.is_done(now))
        {
            self.is_whole = true;
            let (bars, series) = (lines().map(Line::stored).sum::<i64>(), lines().count());
            match lines().filter(|line| line.error.is_some()).count() {
                0 => info!(
                    target: "daemon",
                    "history is complete: {bars} bars in {series} series"
                ),
                failed => warn!(
                    target: "daemon",
                    "history is not complete: {failed} of {series} series failed, see status"
                ),
            }
        }
    }

    /// Says so, and tells those who wait that nothing more is done.
    fn leave(&mut self, mind: &mut Keeper, now: Now) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            let words = "stopping: what is under way is waited for, by a second signal it is not";
            info!(target: "daemon", "{words}");
        }
        // Who is not answered deletes the file itself, once the daemon has ended.
        self.purges.retain(|purge| purge.is_ordered);
        for (number, mut errand) in std::mem::take(&mut self.errands) {
            let view = View { stopped: true, ..errand.view(number, mind, None, now) };
            errand.stop(view);
        }
    }

    /// Tells those who wait how far their errands are, and ends those that are done.
    fn report(&mut self, mind: &mut Keeper, now: Now) {
        let trouble = self.picture.trouble(mind, now);
        let due = self.errands.iter_mut().filter(|(_, errand)| errand.is_due(now));
        let over = due.filter_map(|(&number, errand)| {
            let view = errand.view(number, mind, trouble.clone(), now);
            errand.tell(view, now).then_some(number)
        });
        for number in over.collect::<Vec<u64>>() {
            self.errands.remove(&number);
            mind.dismiss(number);
        }
    }
}

impl Chores for Steward {
    fn turn(&mut self, mind: &mut Keeper, now: Now) {
        if mind.control().was_stopped() {
            self.leave(mind, now);
        } else {
            self.look_at_config(mind, now);
            self.read_again(mind, now);
            self.purge(mind, now);
            self.look_at_history(mind, now);
            self.report(mind, now);
        }
        self.picture.show(mind, &self.config, self.refusal.as_deref(), now);
    }

    fn hear(&mut self, news: News<'_>, mind: &mut Keeper, now: Now) {
        match news {
            News::Reload => {
                // Who sends SIGHUP may have mended the network instead.
                mind.tell_stream(link::Order::Hasten);
                self.take_in_config(mind, now);
            }
            News::Call(call) => self.serve(call, mind, now),
            News::Audited(audit) => {
                self.errands.values_mut().for_each(|errand| errand.audited(&audit.series));
            }
            News::Purged(instrument, error) => {
                let gone = |it: &mut Purge| it.is_ordered && it.instrument == instrument;
                for Purge { answers, .. } in self.purges.extract_if(.., gone) {
                    let answer = error.clone().map_or(Answer::Purged, Answer::Refused);
                    // Who does not take it has left.
                    let _ = answers.try_send(answer);
                }
            }
            News::Remark(words) => {
                self.errands.values_mut().for_each(|errand| errand.remark(words));
                self.picture.remark(words);
            }
            News::Health(health) => self.picture.health(health),
            News::Pushed(pushed) => self.picture.pushed(pushed, now),
            News::Stalled(why) => self.picture.stalled(why),
        }
    }

    fn note(&mut self) -> Option<Order> {
        self.notes.pop_front()
    }
}

/// What is kept by a configuration.
pub fn members(config: &Config) -> Vec<Member> {
    let member = |known: &InstrumentConfig| Member {
        instrument: known.instrument.clone(),
        bars: known.timeframes.clone(),
        rule: known.rule(config),
        interval_ms: known.sync_interval_ms,
        history_days: known.max_history_days,
    };
    config.instruments.iter().map(member).filter(|member| member.rule != Rule::Off).collect()
}

/// What a file looks like from outside.
fn look(config: &Config) -> Option<(SystemTime, u64)> {
    let about = fs::metadata(&config.file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// The keys that differ and that only a start takes in.
fn settled(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("data_dir", old.data_dir != new.data_dir),
        ("region", old.region != new.region),
        ("rest_url", old.rest_url != new.rest_url),
        ("ws_url", old.ws_url != new.ws_url),
        ("ca_file", old.ca_file != new.ca_file),
        ("sandbox", old.sandbox != new.sandbox),
        ("rate_limit_per_minute", old.rate_limit_per_minute != new.rate_limit_per_minute),
        ("max_concurrent_syncs", old.max_concurrent_syncs != new.max_concurrent_syncs),
        ("enable_auto_sync", old.enable_auto_sync != new.enable_auto_sync),
        ("log_level", old.log_level != new.log_level),
        ("log_file", old.log_file != new.log_file),
        ("commit_interval_ms", old.commit_interval_ms != new.commit_interval_ms),
        (
            "connection_timeout",
            old.websocket.connection_timeout_ms != new.websocket.connection_timeout_ms,
        ),
        ("buffer_size", old.websocket.buffer_size != new.websocket.buffer_size),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

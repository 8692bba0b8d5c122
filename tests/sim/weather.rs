//! What a seed decides about a run: who is kept in which way, how fast everything is, and every
//! fault with its time or its rate.
//!
//! Each kind of fault is left out of about half of all runs. Runs that have them all are alike:
//! nothing lives long enough in them for the rarer states to be reached.

use std::collections::BTreeSet;

use okx_local_store::bar::Bar;
use okx_local_store::breaker;
use okx_local_store::instrument::Instrument;
use okx_local_store::keeper::Member;
use okx_local_store::link;
use okx_local_store::mode::{Loss, Rule};
use okx_local_store::session;
use okx_local_store::store::Scope;
use okx_local_store::time::{DAY, HOUR, MINUTE, Millis, SECOND};

use crate::dice::Dice;

/// A Tuesday in 2024; runs begin within the year after it.
const T0: Millis = 1_704_153_600_000;
/// The names that instruments have.
const NAMES: [&str; 3] = ["BTC-USDT", "DOGE-USDT", "ETH-USD-SWAP"];
/// The bars that are kept: of shorter ones a run would have too many, of longer ones too few.
const BARS: [&str; 5] = ["1m", "3m", "5m", "15m", "1H"];

/// Something that happens at one moment, or begins then and lasts.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// For a while something is wrong.
    Spell(Spell, Millis),
    /// All connections of the stream break.
    Drop,
    /// They are closed with this code.
    Close(u16),
    /// They are forgotten without a word.
    Vanish,
    /// Their end is announced for that time.
    Notice(Millis),
    /// Something comes over them that no client expects.
    Garbage(Garbage),
    /// The exchange ends the subscription of this series, by its number.
    Unsubscribe(usize),
    /// The machine sleeps.
    Sleep(Millis),
    /// It sleeps, and its calendar is set back by as much, so that nothing tells of it.
    Doze(Millis),
    /// Its calendar is set forward, or back.
    Step(Millis),
    /// The process is killed, and the next one started so much later.
    Kill(Millis),
    /// The same, and rows are deleted by other hands meanwhile.
    Tamper(Millis),
    /// A closed bar of this series is revised, so many bars back.
    Revise(usize, i64),
    /// The file of this instrument, by its number, takes nothing any more.
    Damage(usize),
    /// This instrument, by its number, is no longer configured.
    Remove(usize),
    /// All that was removed is configured again.
    Restore,
    /// A command wants all series complete.
    Command,
    /// The oldest command is over.
    Dismiss,
}

/// Something that is wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spell {
    /// Nobody can connect to the stream.
    Refuse,
    /// An attempt to connect is not answered.
    Mute,
    /// Nothing comes over the connections, not even a pong.
    Silence,
    /// Pings are not answered.
    Deaf,
    LostAcks,
    LateAcks(Millis),
    /// The first push comes before the acknowledgement.
    DataFirst,
    /// More subscriptions than that end a connection with that code.
    Limit(usize, u16),
    /// A series, by its number, is refused with that code.
    RefuseSeries(usize, u32),
    /// Bars end without their closing push.
    NoConfirms,
    /// The closing pushes come so late, and the next bar's do not wait.
    LateConfirms(Millis),
    Duplicates,
    /// After each push comes the one before it.
    OutOfOrder,
    /// Nothing of a series is pushed, by its number.
    Quiet(usize),
    /// Bars are confirmed so late, by REST too.
    LateMarket(Millis),
    /// REST does not answer.
    RestMute,
    /// REST answers that it is down.
    RestDown,
    /// REST does not want us here.
    RestDenied,
    /// Requests are held back on their way, and arrive together.
    Hiccup,
    /// Commits fail: of every file, or of that of an instrument by its number.
    Disk(Scope, Option<usize>),
    /// Commits take so long.
    Slow(Millis),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Garbage {
    NoJson,
    Binary,
    NoNumber,
    Stranger,
    UnknownEvent,
    Error(u32),
}

/// What may be wrong with the answer to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RestFault {
    TooMany,
    TooManyInside,
    Unavailable,
    Html,
    Truncated,
    Mute,
    Reset,
    Empty,
    Short,
    Duplicates,
    NoNumber,
    /// It comes from a server that lags so much behind.
    Stale(Millis),
}

pub const REST_FAULTS: [RestFault; 12] = [
    RestFault::TooMany,
    RestFault::TooManyInside,
    RestFault::Unavailable,
    RestFault::Html,
    RestFault::Truncated,
    RestFault::Mute,
    RestFault::Reset,
    RestFault::Empty,
    RestFault::Short,
    RestFault::Duplicates,
    RestFault::NoNumber,
    RestFault::Stale(100_000),
];

/// All that a seed decides.
#[derive(Debug)]
pub struct Weather {
    pub start: Millis,
    pub length_ms: Millis,
    pub wrong_ms: Millis,
    pub drift: i64,
    pub members: Vec<Member>,
    /// Since when each instrument is listed; maybe in the midst of the run.
    pub listed: Vec<Millis>,
    /// The base bars that the exchange lost, by the number of the instrument.
    pub holes: Vec<(usize, Millis, Millis)>,
    pub all_history: bool,
    /// Whether it is not a daemon that keeps the store, but one command after the other.
    pub is_command: bool,
    pub workers: usize,
    pub per_minute: u32,
    pub link: link::Settings,
    pub commit_interval_ms: Millis,
    /// Orders that wait for the writer.
    pub room: usize,
    /// Rows that wait in its queue.
    pub queued_max: usize,
    /// How late a process is woken at the most, while it has nothing but time to wait for.
    pub lazy_ms: Millis,
    /// What a message takes on its way, at the most.
    pub latency_ms: Millis,
    pub push_ms: Millis,
    pub page_cap: usize,
    pub history_lag: i32,
    /// How many days of history are wanted.
    pub days: u32,
    /// Whether requests are always held back on their way, and arrive together.
    pub is_bursty: bool,
    pub rest: Vec<(RestFault, f64)>,
    pub deeds: Vec<(Millis, Deed)>,
}

impl Deed {
    /// What it is, without its numbers.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        let words = text.strip_prefix("Spell(").unwrap_or(&text);
        words.chars().take_while(char::is_ascii_alphabetic).collect()
    }
}

/// The kinds of deeds that there are.
pub fn kinds() -> BTreeSet<String> {
    let dice = &mut Dice::new(0);
    (0..KINDS).map(|kind| deed(dice, kind, 1, 1).kind()).collect()
}

impl Weather {
    /// What this seed decides.
    pub fn of(seed: u64) -> Weather {
        let dice = &mut Dice::new(seed);
        let start = T0 + dice.below(365 * 24 * 60) as Millis * MINUTE + draw(dice, MINUTE);
        // Most runs are short: many beginnings find more than long lives do.
        let length_ms = MINUTE * pick(dice, &[2, 4, 6, 10, 15, 25, 45]);
        let members = members(dice);
        let listed = members.iter().map(|_| listed(dice, start, length_ms)).collect();
        let series = members.iter().map(|member| member.bars.len()).sum();
        let mut weather = Weather {
            start,
            length_ms,
            wrong_ms: pick(dice, &[0, 0, 300, -2_500, 7_200_000, -86_400_000]),
            drift: pick(dice, &[0, 0, 40, -150, 400]),
            holes: holes(dice, members.len(), start, length_ms),
            members,
            listed,
            all_history: dice.below(8) > 0,
            is_command: dice.below(8) == 0,
            workers: 1 + dice.below(6),
            per_minute: pick(dice, &[0, 0, 30, 60, 240]) as u32,
            link: link_settings(dice),
            commit_interval_ms: pick(dice, &[100, 100, 1_000]),
            room: pick(dice, &[2, 8, 1_000]) as usize,
            queued_max: pick(dice, &[400, 10_000]) as usize,
            lazy_ms: pick(dice, &[100, 800, 2_000]),
            latency_ms: pick(dice, &[5, 60, 200, 390]),
            push_ms: pick(dice, &[3, 8, 20]) * SECOND,
            page_cap: pick(dice, &[300, 300, 100]) as usize,
            history_lag: pick(dice, &[1, 1, 2]) as i32,
            days: 1,
            is_bursty: false,
            rest: rest(dice),
            deeds: Vec::new(),
        };
        weather.leave_unused(dice);
        weather.deeds = deeds(dice, length_ms, weather.members.len(), series);
        if dice.below(6) == 0 {
            weather.long(dice);
        }
        weather
    }

    /// How an instrument is kept.
    pub fn rule(&self, instrument: &Instrument) -> Option<Rule> {
        let member = self.members.iter().find(|member| member.instrument == *instrument);
        member.map(|member| member.rule)
    }

    /// Some instruments are listed for a while before anybody trades them.
    fn leave_unused(&mut self, dice: &mut Dice) {
        for (n, &listed) in self.listed.iter().enumerate() {
            if listed > self.start && dice.below(2) == 0 {
                let unused_ms = pick(dice, &[5, 15, 30]) * MINUTE;
                self.holes.push((n, listed - MINUTE, listed + unused_ms));
            }
        }
    }

    /// Makes it a run with much history, which is fetched as fast as the exchange permits, maybe
    /// over a network that holds requests back and lets them go together: that tries the limits.
    fn long(&mut self, dice: &mut Dice) {
        self.days = 3 + dice.below(3) as u32;
        self.members.truncate(1);
        self.members[0].bars.truncate(1);
        self.members[0].bars[0] = "1m".parse().unwrap();
        self.members[0].history_days = self.days;
        self.listed[0] = self.start - 10 * DAY;
        self.holes.retain(|hole| hole.0 == 0);
        (self.per_minute, self.workers) = (0, 4 + dice.below(3));
        // Many pages are under way together, or many are answered in little time.
        self.latency_ms = pick(dice, &[20, 390]);
        self.length_ms = self.length_ms.min(4 * MINUTE);
        self.deeds = deeds(dice, self.length_ms, 1, 1);
        self.is_bursty = dice.below(2) == 0;
    }
}

fn draw(dice: &mut Dice, below: Millis) -> Millis {
    dice.below(below as usize) as Millis
}

fn pick(dice: &mut Dice, from: &[i64]) -> i64 {
    from[dice.below(from.len())]
}

fn members(dice: &mut Dice) -> Vec<Member> {
    let count = 1 + dice.below(NAMES.len());
    NAMES[..count].iter().map(|name| member(dice, name)).collect()
}

fn member(dice: &mut Dice, name: &str) -> Member {
    let mut bars: Vec<Bar> = Vec::new();
    for _ in 0..1 + dice.below(3) {
        bars.push(BARS[dice.below(BARS.len())].parse().unwrap());
    }
    bars.sort();
    bars.dedup();
    let loss = [Loss::Poll, Loss::Poll, Loss::PollLater, Loss::Wait][dice.below(4)];
    let rule = match dice.below(6) {
        0 => Rule::Poll("configured to poll"),
        1 => Rule::Stream { loss, auto: true },
        _ => Rule::Stream { loss, auto: false },
    };
    Member {
        instrument: name.parse().unwrap(),
        bars,
        rule,
        interval_ms: pick(dice, &[10, 30, 60, 60]) * SECOND,
        history_days: 1,
    }
}

/// Since when an instrument is listed: for longer than is wanted, for less, or not yet.
fn listed(dice: &mut Dice, start: Millis, length_ms: Millis) -> Millis {
    match dice.below(6) {
        0 => start - 3 * DAY,
        5 => start + draw(dice, length_ms),
        _ => start - HOUR - draw(dice, 8 * HOUR),
    }
}

fn holes(
    dice: &mut Dice,
    members: usize,
    start: Millis,
    length_ms: Millis,
) -> Vec<(usize, Millis, Millis)> {
    let count = [0, 0, 1, 3][dice.below(4)];
    let mut hole = |_| {
        let at = match dice.below(3) {
            0 => start + draw(dice, length_ms),
            _ => start - draw(dice, 10 * HOUR),
        };
        let length = [1, 1, 2, 7, 40][dice.below(5)] * MINUTE;
        (dice.below(members), at, at + length)
    };
    (0..count).map(&mut hole).collect()
}

fn link_settings(dice: &mut Dice) -> link::Settings {
    link::Settings {
        session: session::Settings {
            credentials: None,
            ping_interval_ms: pick(dice, &[10, 20, 25]) * SECOND,
            heartbeat_interval_ms: pick(dice, &[10, 30]) * SECOND,
        },
        breaker: breaker::Settings {
            failure_threshold: 2 + dice.below(5) as u32,
            max_reconnect_attempts: 2 + dice.below(5) as u32,
            recovery_timeout_ms: pick(dice, &[10, 60]) * SECOND,
            reconnect_delay_base_ms: pick(dice, &[500, 1_000]),
            reconnect_delay_max_ms: pick(dice, &[10, 60]) * SECOND,
        },
        max_connection_age_ms: pick(dice, &[3, 10, 60, 240]) * MINUTE,
    }
}

fn rest(dice: &mut Dice) -> Vec<(RestFault, f64)> {
    let rate = pick(dice, &[0, 1, 4, 10]) as f64 / 100.0;
    let kept: Vec<RestFault> = REST_FAULTS.into_iter().filter(|_| dice.below(2) == 0).collect();
    kept.into_iter().map(|fault| (fault, rate)).collect()
}

fn deeds(dice: &mut Dice, length_ms: Millis, members: usize, series: usize) -> Vec<(Millis, Deed)> {
    let every_ms = pick(dice, &[15, 40, 90, 600]) * SECOND;
    let allowed: Vec<usize> = (0..KINDS).filter(|_| dice.below(2) == 0).collect();
    let mut deeds = Vec::new();
    let mut at = draw(dice, every_ms);
    while at < length_ms && !allowed.is_empty() {
        let kind = allowed[dice.below(allowed.len())];
        deeds.push((at, deed(dice, kind, members, series)));
        at += 1 + draw(dice, 2 * every_ms);
    }
    deeds
}

/// The kinds of deeds.
const KINDS: usize = 41;

fn deed(dice: &mut Dice, kind: usize, members: usize, series: usize) -> Deed {
    let (member, one) = (dice.below(members), dice.below(series));
    let length_ms = pick(dice, &[2, 10, 40, 100, 200]) * SECOND;
    let spell = |spell| Deed::Spell(spell, length_ms);
    match kind {
        0 => Deed::Drop,
        1 => Deed::Close(pick(dice, &[1000, 1001, 1006, 1009, 4001, 4004, 4005, 4006]) as u16),
        2 => Deed::Close(pick(dice, &[4008, 4009]) as u16),
        3 => Deed::Notice(pick(dice, &[2, 20, 60]) * SECOND),
        4 => Deed::Garbage(
            [
                Garbage::NoJson,
                Garbage::Binary,
                Garbage::NoNumber,
                Garbage::Stranger,
                Garbage::UnknownEvent,
                Garbage::Error(pick(dice, &[60012, 60014, 63999, 64007, 60018]) as u32),
            ][dice.below(6)],
        ),
        5 => Deed::Unsubscribe(one),
        6 => Deed::Sleep(pick(dice, &[3, 20, 90, 700]) * SECOND),
        7 => Deed::Step(pick(dice, &[-3_600_000, -4_000, 4_000, 9_000, 3_600_000])),
        8 | 9 => Deed::Kill(pick(dice, &[0, 1, 20, 400]) * SECOND),
        10 => Deed::Tamper(pick(dice, &[1, 20]) * SECOND),
        11 => Deed::Revise(one, 1 + draw(dice, 20)),
        12 => Deed::Damage(member),
        13 => spell(Spell::Refuse),
        14 => spell(Spell::Mute),
        15 => spell(Spell::Silence),
        16 => spell(Spell::Deaf),
        17 => spell(Spell::LostAcks),
        18 => spell(Spell::LateAcks(pick(dice, &[700, 4_000, 15_000]))),
        19 => spell(Spell::DataFirst),
        20 => spell(Spell::Limit(dice.below(series.max(2)), pick(dice, &[4008, 4009]) as u16)),
        21 => spell(Spell::RefuseSeries(one, 60018)),
        22 => spell(Spell::NoConfirms),
        23 => spell(Spell::LateConfirms(pick(dice, &[4, 12, 40]) * SECOND)),
        24 => spell(Spell::Duplicates),
        25 => spell(Spell::OutOfOrder),
        26 => spell(Spell::Quiet(one)),
        27 => spell(Spell::LateMarket(pick(dice, &[3, 12, 45]) * SECOND)),
        28 => spell(Spell::RestMute),
        29 => spell(Spell::RestDown),
        30 => Deed::Spell(Spell::RestDenied, 2 * SECOND),
        31 => spell(Spell::Hiccup),
        32 => match dice.below(3) {
            0 => spell(Spell::Disk(Scope::WholeDisk, None)),
            1 => spell(Spell::Disk(Scope::WholeDisk, Some(member))),
            _ => spell(Spell::Disk(Scope::Busy, Some(member))),
        },
        33 | 39 => Deed::Vanish,
        34 => Deed::Remove(member),
        35 => Deed::Restore,
        36 => Deed::Command,
        37 => Deed::Dismiss,
        38 => Deed::Doze(pick(dice, &[20, 90, 700]) * SECOND),
        _ => spell(Spell::Slow(pick(dice, &[40, 400, 3_000]))),
    }
}

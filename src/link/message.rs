//! What the stream's mind hears, and what it says.

use std::collections::BTreeSet;

use log::Level;

use crate::breaker;
use crate::candle::Candle;
use crate::instrument::Series;
use crate::link::Health;
use crate::okx::stream::Request;
use crate::page::Refused;
use crate::session;
use crate::time::Millis;

/// How the stream is to be led.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How each connection is.
    pub session: session::Settings,
    /// When to connect.
    pub breaker: breaker::Settings,
    /// The age at which a connection is replaced.
    pub max_connection_age_ms: Millis,
}

/// What is wanted of the stream.
#[derive(Clone, Debug)]
pub enum Order {
    /// These series are wanted, and no others; none lets the connection go.
    Want(BTreeSet<Series>),
    /// Unsubscribe these of the wanted series and subscribe them anew: bars are missing. They are
    /// not acked any more, without a word, until that is reported anew.
    Renew(BTreeSet<Series>),
    /// Whatever there is may be dead, for this cause: drop it and connect anew.
    Reconnect(String),
    /// Where there is no connection, try to connect at once, however long the pause or the rest.
    Hasten,
    /// From the next connection on these settings hold; the current one is replaced by it.
    Configure(Box<Settings>),
    /// Let everything go, and end.
    Stop,
}

/// What has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Somebody wants something.
    Order(Order),
    /// A connection stands.
    Dialled {
        /// Its number.
        conn: u64,
    },
    /// A connection broke, or did not come about.
    Ended {
        /// Its number.
        conn: u64,
        /// Why, with its public name.
        cause: String,
    },
    /// Something came over a connection.
    Heard {
        /// Its number.
        conn: u64,
        /// What.
        what: session::Input<'a>,
    },
    /// Nothing but time has passed.
    Tick,
}

/// What whoever decides about the instruments is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A connection stands. It has no series yet.
    Up,
    /// A series is subscribed; rows of it may have come before.
    Acked(Series),
    /// A series is not, and will not be soon.
    Refused {
        /// Which.
        series: Series,
        /// Why, with its public name.
        cause: String,
    },
    /// A series that was subscribed is not for now; it is asked for again.
    Lost {
        /// Which.
        series: Series,
        /// Why.
        cause: String,
    },
    /// The connection is lost, and with it all series; once for each time that it was up.
    Down {
        /// Why, with its public name.
        cause: String,
    },
    /// How the stream is.
    Health(Health),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Try to connect under this number.
    Dial(u64),
    /// Send this over that connection.
    Send(u64, Request),
    /// Close that connection, or give up the attempt at it, if it is still there.
    HangUp(u64),
    /// States of bars have come.
    Rows {
        /// Of which series.
        series: Series,
        /// The states, as they came.
        rows: Vec<Candle>,
        /// Rows that are no candles.
        refused: Vec<Refused>,
    },
    /// Tell this to whoever decides about the instruments.
    Report(Report),
    /// Log this.
    Log(Level, String),
}

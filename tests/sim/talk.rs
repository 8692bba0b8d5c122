//! The conversation of one connection as the fixture exchange leads it, shared with it.

#[path = "../exchange/stream/order.rs"]
pub mod order;
#[path = "../exchange/stream/session.rs"]
pub mod session;

use std::fmt;

/// An instrument with a bar, the exact name of which the channel has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub symbol: String,
    pub bar: &'static str,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.symbol, self.bar)
    }
}

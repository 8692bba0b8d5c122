//! Why a series, a login or a whole connection of the stream failed, in words for people.

use std::fmt;

use crate::okx::stream::Said;
use crate::okx::{StreamPolicy, code_policy};
use crate::time::{Millis, format_length};
use crate::wire::Plain;

/// A failure of the stream. Its text begins with the public name of its kind and ends with what is
/// done, or can be done, about it; in the form `{:#}` with the latter alone, for whoever does
/// nothing about it.
///
/// ```
/// use okx_local_store::session::Cause;
///
/// let cause = Cause::Closed { code: Some(4004), reason: "No data received in 30s.".into() };
/// assert!(cause.to_string().starts_with("WebSocketConnectionError: closed with code 4004: No"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The login was refused, or not answered.
    Login(Option<Said>),
    /// A series was refused, or its requests were not answered.
    Refused(Option<Said>),
    /// The address has no candles at all.
    WrongPath(Said),
    /// Nothing came, for so long.
    Silent {
        /// Since the last frame.
        length_ms: Millis,
    },
    /// Frames that are none of the exchange's.
    Garbled {
        /// So many in a row.
        frames: u32,
        /// What is wrong with the last.
        why: Plain,
    },
    /// The connection is over.
    Closed {
        /// The close code; none if it just broke.
        code: Option<u16>,
        /// The other side's words, or the machine's.
        reason: Plain,
    },
}

impl Cause {
    /// What to do about it.
    pub fn policy(&self) -> StreamPolicy {
        match self {
            Cause::Login(_) => StreamPolicy::NoLogin,
            Cause::Refused(_) => StreamPolicy::DropSeries,
            Cause::WrongPath(_) => StreamPolicy::WrongPath,
            Cause::Silent { .. } | Cause::Garbled { .. } => StreamPolicy::Reconnect,
            Cause::Closed { code, .. } => {
                code.map_or(StreamPolicy::Reconnect, |code| code_policy(u32::from(code)))
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (polled, anew) = match f.alternate() {
            true => ("", ""),
            false => ("it is polled, and asked for again every 10 minutes: ", "connecting anew: "),
        };
        match self {
            Cause::Login(said) => {
                f.write_str("WebSocketAuthenticationError: ")?;
                say(f, said, "the login was not answered")?;
                f.write_str(
                    " (candles need no login and stream on: correct OKX_API_KEY, OKX_API_SECRET \
                     and OKX_PASSPHRASE, or unset them)",
                )
            }
            Cause::Refused(said) => {
                f.write_str("WebSocketSubscriptionError: ")?;
                say(f, said, "the requests for it were not answered")?;
                write!(f, " ({polled}if that lasts, look at its symbol and timeframe)")
            }
            Cause::WrongPath(said) => write!(
                f,
                "WebSocketSubscriptionError: {said} (nothing streams from this address: look at \
                 the config keys ws_url and region)"
            ),
            Cause::Silent { length_ms } => write!(
                f,
                "WebSocketTimeoutError: nothing came for {}, not even the answer to a ping \
                 ({anew}if it lasts, look at the network)",
                format_length(*length_ms)
            ),
            Cause::Garbled { frames, why } => {
                match frames {
                    1 => f.write_str("WebSocketDataError: a frame cannot be read: ")?,
                    _ => write!(
                        f,
                        "WebSocketDataError: {frames} in a row cannot be read, the last for "
                    )?,
                }
                write!(f, "{why} (if it lasts, look for a proxy on the way)")
            }
            Cause::Closed { code, reason } => {
                match code {
                    Some(code) => {
                        write!(f, "WebSocketConnectionError: closed with code {code}: {reason}")?;
                    }
                    None => write!(f, "WebSocketConnectionError: {reason}")?,
                }
                match self.policy() {
                    StreamPolicy::TooMany => f.write_str(" (keeping what fits, polling the rest)"),
                    _ => write!(f, " ({anew}if it lasts, look at the network)"),
                }
            }
        }
    }
}

impl std::error::Error for Cause {}

/// The exchange's words, or ours where it had none.
fn say(f: &mut fmt::Formatter<'_>, said: &Option<Said>, else_this: &str) -> fmt::Result {
    match said {
        Some(said) => write!(f, "{said}"),
        None => f.write_str(else_this),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_public_name_an_advice_and_a_policy() {
        let said = |code: &str| Said { code: code.into(), msg: "m".into() };
        let closed = |code| Cause::Closed { code, reason: "r".into() };
        for (cause, begins, holds, policy) in [
            (
                Cause::Login(Some(said("60009"))),
                "WebSocketAuthenticationError: 60009: m (",
                "OKX_API_KEY",
                StreamPolicy::NoLogin,
            ),
            (
                Cause::Login(None),
                "WebSocketAuthenticationError: the login was not answered (",
                "unset",
                StreamPolicy::NoLogin,
            ),
            (
                Cause::Refused(Some(said("60018"))),
                "WebSocketSubscriptionError: 60018: m (",
                "symbol",
                StreamPolicy::DropSeries,
            ),
            (
                Cause::WrongPath(said("64001")),
                "WebSocketSubscriptionError: 64001: m (",
                "ws_url",
                StreamPolicy::WrongPath,
            ),
            (
                Cause::Silent { length_ms: 50_000 },
                "WebSocketTimeoutError: nothing came for 50s",
                "network",
                StreamPolicy::Reconnect,
            ),
            (
                Cause::Garbled { frames: 5, why: "w".into() },
                "WebSocketDataError: 5 in a row",
                "proxy",
                StreamPolicy::Reconnect,
            ),
            (
                closed(None),
                "WebSocketConnectionError: r (",
                "connecting anew",
                StreamPolicy::Reconnect,
            ),
            (
                closed(Some(4009)),
                "WebSocketConnectionError: closed with code 4009: r (",
                "polling the rest",
                StreamPolicy::TooMany,
            ),
        ] {
            let text = cause.to_string();
            assert!(text.starts_with(begins) && text.contains(holds), "{text}");
            assert_eq!(cause.policy(), policy, "{text}");
        }
    }
}

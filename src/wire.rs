//! The wire, whatever the venue: what is asked of it, what it answers, and what went wrong.
//!
//! Pure: the HTTP edge fills an [`Answer`] in, a venue reads it. Both fail with a [`Trouble`], and
//! a trouble ends in a [`Policy`], so that nobody has to match on texts.

#[cfg(test)]
pub(crate) mod wild;

use std::fmt::{self, Write};
use std::sync::Arc;

use crate::time::Millis;

/// The longest foreign text that is kept, in characters: a sentence, not a page.
const PLAIN_MAX: usize = 200;

/// What can be asked of a venue. Each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The newest candles, the running one among them.
    Candles,
    /// The closed candles of all years.
    History,
    /// The exchange's clock.
    Time,
    /// The list of what is traded.
    Instruments,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Endpoint::Candles => "candles",
            Endpoint::History => "history",
            Endpoint::Time => "time",
            Endpoint::Instruments => "instruments",
        })
    }
}

/// How often an endpoint may be asked, as the venue documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many requests…
    pub requests: u32,
    /// …in any stretch of this length.
    pub window_ms: Millis,
}

/// One HTTP answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who was asked: host and port, for messages.
    pub host: Arc<str>,
    /// The HTTP status.
    pub status: u16,
    /// How long the answer asks to be left alone for.
    pub retry_after_ms: Option<Millis>,
    /// The body, unzipped. Its length is bounded.
    pub body: Vec<u8>,
}

/// What to do about a [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// This endpoint was asked too often: it pauses, the others go on.
    RateLimited {
        /// For so long at least, where the answer says.
        retry_after_ms: Option<Millis>,
    },
    /// It may pass: ask again, later each time.
    Busy {
        /// After so long at least, where the answer says.
        retry_after_ms: Option<Millis>,
    },
    /// We are not wanted here: stop asking for minutes.
    Denied,
    /// The same request will never be answered otherwise.
    Permanent,
}

/// Why a request gave nothing to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No whole answer came: refused, not resolved, not trusted, timed out, cut short.
    Transport {
        /// Who was asked.
        host: Arc<str>,
        /// What happened.
        why: Plain,
    },
    /// The exchange refused in its own words.
    Refused {
        /// Its code.
        code: Plain,
        /// Its message.
        msg: Plain,
        /// What our side can do about it, where there is something.
        advice: Option<&'static str>,
        /// What the venue's documentation makes of the code.
        policy: Policy,
    },
    /// A status without the exchange's words, or a web page: something in between answered.
    Edge {
        /// Who was asked.
        host: Arc<str>,
        /// The HTTP status.
        status: u16,
        /// What our side can do about it, where there is something.
        advice: Option<&'static str>,
        /// What the status means.
        policy: Policy,
    },
    /// The answer sends us elsewhere. No redirect is followed: a store mirrors one host, and
    /// signed requests go to no other.
    Redirect {
        /// Who was asked.
        host: Arc<str>,
        /// The HTTP status.
        status: u16,
        /// The host it names.
        to: Plain,
    },
    /// The body is not what the venue documents.
    Undecodable {
        /// Who was asked.
        host: Arc<str>,
        /// What is wrong with it.
        why: Plain,
    },
    /// The body is longer than any honest one.
    TooLarge {
        /// Who was asked.
        host: Arc<str>,
        /// The bound it broke.
        bytes_max: u64,
    },
}

impl Trouble {
    /// What to do about it.
    ///
    /// ```
    /// use okx_local_store::wire::{Policy, Trouble};
    ///
    /// let cut = Trouble::Transport { host: "www.okx.com".into(), why: "it hung up".into() };
    /// assert_eq!(cut.policy(), Policy::Busy { retry_after_ms: None });
    /// assert_eq!(cut.to_string(), "no answer from www.okx.com: it hung up");
    /// ```
    pub fn policy(&self) -> Policy {
        match self {
            Trouble::Refused { policy, .. } | Trouble::Edge { policy, .. } => *policy,
            // A redirect is most often the log-in page of a network that lets nobody out yet, and
            // garbage that of a proxy in trouble: both pass.
            Trouble::Transport { .. }
            | Trouble::Redirect { .. }
            | Trouble::Undecodable { .. }
            | Trouble::TooLarge { .. } => Policy::Busy { retry_after_ms: None },
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self {
            Trouble::Transport { host, why } => {
                write!(f, "no answer from {host}: {why}")?;
                None
            }
            Trouble::Refused { code, msg, advice, .. } => {
                write!(f, "{code}: {msg}")?;
                *advice
            }
            Trouble::Edge { host, status, advice, .. } => {
                write!(f, "{host} answered HTTP {status} without a word of the exchange's own")?;
                *advice
            }
            Trouble::Redirect { host, status, to } => {
                write!(f, "{host} answered HTTP {status} and points to {to}: not followed")?;
                None
            }
            Trouble::Undecodable { host, why } => {
                write!(f, "the answer of {host} cannot be read: {why}")?;
                None
            }
            Trouble::TooLarge { host, bytes_max } => {
                write!(f, "the answer of {host} is longer than {bytes_max} bytes")?;
                None
            }
        };
        advice.map_or(Ok(()), |advice| write!(f, " ({advice})"))
    }
}

impl std::error::Error for Trouble {}

/// Foreign text made fit for a log, a terminal and a status file.
///
/// **Invariant:** one line of at most 200 characters, none of which moves a cursor, rings a bell,
/// is invisible or turns the direction of writing.
///
/// ```
/// use okx_local_store::wire::Plain;
///
/// assert_eq!(Plain::from("two\nlines \u{1b}[2J").as_str(), "two lines ?[2J");
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plain(Box<str>);

impl Plain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes what somebody else says of it, and no more of that than fits.
    pub fn of(said: impl fmt::Display) -> Plain {
        let mut line = Line { text: String::new(), left: PLAIN_MAX };
        // The line refuses what is too much, which ends the writing: that is no failure.
        let _ = write!(line, "{said}");
        Plain(line.text.into())
    }
}

impl From<&str> for Plain {
    fn from(text: &str) -> Plain {
        Plain::of(text)
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A [`Plain`] while it is written.
struct Line {
    text: String,
    left: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.text.push('…');
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.text.push(match c {
                '\n' | '\r' | '\t' => ' ',
                c if c.is_control() || is_invisible(c) => '?',
                c => c,
            });
        }
        Ok(())
    }
}

/// Characters that show nothing, or change how their neighbours show.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_trouble_is_one_sentence_that_names_its_host() {
        let host: Arc<str> = "www.okx.com".into();
        let busy = Policy::Busy { retry_after_ms: None };
        let cases = [
            (
                Trouble::Refused {
                    code: "50121".into(),
                    msg: "Not\nhere".into(),
                    advice: Some("look at the config key region"),
                    policy: Policy::Denied,
                },
                "50121: Not here (look at the config key region)",
                Policy::Denied,
            ),
            (
                Trouble::Edge { host: host.clone(), status: 502, advice: None, policy: busy },
                "www.okx.com answered HTTP 502 without a word of the exchange's own",
                busy,
            ),
            (
                Trouble::Redirect { host: host.clone(), status: 302, to: "login.example".into() },
                "www.okx.com answered HTTP 302 and points to login.example: not followed",
                busy,
            ),
            (
                Trouble::Undecodable { host: host.clone(), why: "it has no data".into() },
                "the answer of www.okx.com cannot be read: it has no data",
                busy,
            ),
            (
                Trouble::TooLarge { host, bytes_max: 9 },
                "the answer of www.okx.com is longer than 9 bytes",
                busy,
            ),
        ];
        for (trouble, text, policy) in cases {
            assert_eq!((trouble.to_string().as_str(), trouble.policy()), (text, policy));
        }
    }

    #[test]
    fn foreign_text_is_cut_after_a_sentence() {
        let long = Plain::from("é".repeat(1_000_000).as_str());
        assert_eq!(long.as_str().chars().count(), PLAIN_MAX + 1);
        assert!(long.as_str().ends_with('…'));
        assert_eq!(Plain::from("x".repeat(PLAIN_MAX).as_str()).as_str().len(), PLAIN_MAX);
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_left_in_plain_text(text in any::<String>()) {
            let plain = Plain::from(text.as_str());
            prop_assert!(plain.as_str().chars().count() <= PLAIN_MAX + 1);
            prop_assert!(!plain.as_str().contains(|c: char| c.is_control() || is_invisible(c)));
            prop_assert_eq!(&Plain::from(plain.as_str().trim_end_matches('…')).0,
                &Box::from(plain.as_str().trim_end_matches('…')));
        }
    }
}

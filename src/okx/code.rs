//! OKX's error codes, and the HTTP statuses and close codes that come instead of them, as policies.
//!
//! Sources: <https://www.okx.com/docs-v5/en/#error-code> and, for the stream,
//! <https://www.okx.com/docs-v5/en/#error-code-websocket>.

use crate::wire::{Answer, Plain, Policy, Trouble};

/// What a user can do where his place in the world is the trouble.
const REGION: &str = "access is denied from here: look at the config key region";
/// What a user can do whose keys are refused.
const KEYS: &str = "candles need no credentials: correct OKX_API_KEY, OKX_API_SECRET and \
                    OKX_PASSPHRASE, or unset them";

/// What to do about a code of the stream: of an event, or of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPolicy {
    /// That series cannot be had here: leave it, keep the others, never ask again by itself.
    DropSeries,
    /// The address is no place for candles: nothing on it will ever work.
    WrongPath,
    /// Too many requests on this connection: none for a while, then fewer and larger ones.
    Pause,
    /// The login is refused. Candles need none.
    NoLogin,
    /// It may pass: ask again, later each time.
    Retry,
    /// The connection ends soon: open the next one first.
    Replace,
    /// The connection is over: open the next one, later each time.
    Reconnect,
    /// More channels than a connection holds: keep what fits, poll the rest.
    TooMany,
}

/// What a code of the stream means. The codes of events have five digits, those of closes four, so
/// the two never meet. What is not known is taken for passing, as it is by REST.
///
/// ```
/// use okx_local_store::okx::{StreamPolicy, code_policy};
///
/// assert_eq!(code_policy(60018), StreamPolicy::DropSeries);
/// assert_eq!(code_policy(4004), StreamPolicy::Reconnect);
/// ```
pub fn code_policy(code: u32) -> StreamPolicy {
    match code {
        60012 | 60013 | 60018 | 60027 | 60033 => StreamPolicy::DropSeries,
        60008 | 64001 | 64002 => StreamPolicy::WrongPath,
        60014 => StreamPolicy::Pause,
        60004..=60007 | 60009 | 60024 => StreamPolicy::NoLogin,
        64008 => StreamPolicy::Replace,
        4008 | 4009 => StreamPolicy::TooMany,
        0..=9_999 => StreamPolicy::Reconnect,
        _ => StreamPolicy::Retry,
    }
}

/// The trouble of an answer whose `code` is not zero.
pub(super) fn refused(answer: &Answer, code: Plain, msg: Plain) -> Trouble {
    let (policy, advice) = by_code(&code, answer).unwrap_or_else(|| by_status(answer));
    Trouble::Refused { code, msg, advice, policy }
}

/// The trouble of an answer that has no code, or the status of a failure beside a good one.
pub(super) fn edge(answer: &Answer) -> Trouble {
    let (policy, advice) = by_status(answer);
    Trouble::Edge { host: answer.host.clone(), status: answer.status, advice, policy }
}

/// What a documented code means.
fn by_code(code: &Plain, answer: &Answer) -> Option<(Policy, Option<&'static str>)> {
    let retry_after_ms = answer.retry_after_ms;
    Some(match code.as_str().parse::<u32>().ok()? {
        50011 => (Policy::RateLimited { retry_after_ms }, None),
        50001 | 50004 | 50013 | 50026 => (Policy::Busy { retry_after_ms }, None),
        // The signature's time was too old or too new: it passes once the clock is learnt anew.
        50102 => (Policy::Busy { retry_after_ms }, None),
        50100..=50119 => (Policy::Permanent, Some(KEYS)),
        50121 => (Policy::Denied, Some(REGION)),
        // A bad parameter; no such instrument; settled; not in demo trading, or only there.
        50014..=50016 | 51000 | 51001 | 50047 | 50038 | 50053 => (Policy::Permanent, None),
        _ => return None,
    })
}

/// What a status means where no known code explains it.
///
/// Whatever is not known to last is asked again: a retry that was in vain costs a request in some
/// seconds, but a series given up for a passing error stays behind for good. So a code that OKX
/// adds tomorrow, and the 404 of a proxy that is being set up, are both taken for passing.
fn by_status(answer: &Answer) -> (Policy, Option<&'static str>) {
    let retry_after_ms = answer.retry_after_ms;
    match answer.status {
        429 => (Policy::RateLimited { retry_after_ms }, None),
        403 | 451 => (Policy::Denied, Some(REGION)),
        _ => (Policy::Busy { retry_after_ms }, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after_ms: Option<i64>) -> Answer {
        Answer { host: "h".into(), status, retry_after_ms, body: Vec::new() }
    }

    #[test]
    fn codes_become_policies() {
        use Policy::{Busy, Denied, Permanent, RateLimited};
        let after = Some(3_000);
        let cases = [
            ("50011", 200, RateLimited { retry_after_ms: after }),
            ("50011", 429, RateLimited { retry_after_ms: after }),
            ("50001", 503, Busy { retry_after_ms: after }),
            ("50004", 400, Busy { retry_after_ms: after }),
            ("50013", 429, Busy { retry_after_ms: after }),
            ("50026", 500, Busy { retry_after_ms: after }),
            ("50102", 401, Busy { retry_after_ms: after }),
            ("51000", 400, Permanent),
            ("51001", 200, Permanent),
            ("50014", 400, Permanent),
            ("50016", 400, Permanent),
            ("50038", 200, Permanent),
            ("50047", 200, Permanent),
            ("50053", 200, Permanent),
            ("50100", 401, Permanent),
            ("50119", 401, Permanent),
            ("50121", 200, Denied),
            ("59999", 200, Busy { retry_after_ms: after }),
            ("59999", 429, RateLimited { retry_after_ms: after }),
            ("59999", 451, Denied),
            ("what?", 200, Busy { retry_after_ms: after }),
        ];
        for (code, status, policy) in cases {
            let trouble = refused(&answer(status, after), code.into(), "m".into());
            assert_eq!(trouble.policy(), policy, "{code} with {status}");
            assert!(trouble.to_string().starts_with(&format!("{code}: m")));
        }
    }

    #[test]
    fn statuses_without_a_code_become_policies() {
        use Policy::{Busy, Denied, RateLimited};
        let busy = Busy { retry_after_ms: None };
        for (status, policy) in [
            (429, RateLimited { retry_after_ms: None }),
            (403, Denied),
            (451, Denied),
            (404, busy),
            (500, busy),
            (502, busy),
            (522, busy),
        ] {
            assert_eq!(edge(&answer(status, None)).policy(), policy, "{status}");
        }
    }

    #[test]
    fn codes_of_the_stream_become_policies() {
        use StreamPolicy::{
            DropSeries, NoLogin, Pause, Reconnect, Replace, Retry, TooMany, WrongPath,
        };
        for (codes, policy) in [
            (&[60012, 60013, 60018, 60027, 60033][..], DropSeries),
            (&[60008, 64001, 64002], WrongPath),
            (&[60014], Pause),
            (&[60004, 60005, 60006, 60007, 60009, 60024], NoLogin),
            (&[63999, 64007, 60099], Retry),
            (&[64008], Replace),
            (&[1000, 1001, 1006, 1009, 1011, 4004, 4005, 4006], Reconnect),
            (&[4008, 4009], TooMany),
        ] {
            for code in codes {
                assert_eq!(code_policy(*code), policy, "{code}");
            }
        }
    }

    #[test]
    fn who_can_help_himself_is_told_how() {
        let said = |status, code: &str| {
            refused(&answer(status, None), code.into(), "m".into()).to_string()
        };
        assert!(said(200, "50121").contains("config key region"));
        assert!(edge(&answer(403, None)).to_string().contains("config key region"));
        assert!(said(401, "50105").contains("candles need no credentials"));
        assert_eq!(said(200, "51001"), "51001: m");
    }
}

//! Signed requests, and the login of the stream. Candles need neither; who has keys may have limits
//! of his own.
//!
//! Sources: <https://www.okx.com/docs-v5/en/#overview-rest-authentication> and
//! <https://www.okx.com/docs-v5/en/#overview-websocket-login>.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Serialize;

use crate::time::{Millis, SECOND, format_time};

/// The three parts of an API key.
///
/// **Invariant:** no text of it, `Debug` included, shows any part.
#[derive(Clone)]
pub struct Credentials {
    key: String,
    secret: hmac::Key,
    passphrase: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// Credentials that no request can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// The key is empty or has a character that no header takes.
    Key,
    /// The secret is empty.
    Secret,
    /// The passphrase is empty or has a character that no header takes.
    Passphrase,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            CredentialsError::Key => "the API key",
            CredentialsError::Secret => "the API secret",
            CredentialsError::Passphrase => "the passphrase",
        };
        write!(f, "{what} is empty, or has a space at an end or characters that are not ASCII")
    }
}

impl std::error::Error for CredentialsError {}

impl Credentials {
    /// Takes the parts as OKX gave them out.
    pub fn new(key: &str, secret: &str, passphrase: &str) -> Result<Credentials, CredentialsError> {
        // What a header cannot carry would fail each request with a riddle.
        let fits = |text: &str| {
            !text.is_empty()
                && text.trim() == text
                && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        };
        for (text, error) in [
            (key, CredentialsError::Key),
            (secret, CredentialsError::Secret),
            (passphrase, CredentialsError::Passphrase),
        ] {
            if !fits(text) {
                return Err(error);
            }
        }
        Ok(Credentials {
            key: key.to_owned(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            passphrase: passphrase.to_owned(),
        })
    }

    /// The headers of a GET of `path` (and its query) that is sent at `now` by the exchange's
    /// clock. OKX takes a signature for 30 s.
    pub fn headers(&self, path: &str, now: Millis) -> [(&'static str, String); 4] {
        let timestamp = timestamp(now);
        let signed = hmac::sign(&self.secret, format!("{timestamp}GET{path}").as_bytes());
        [
            ("OK-ACCESS-KEY", self.key.clone()),
            ("OK-ACCESS-SIGN", STANDARD.encode(signed)),
            ("OK-ACCESS-TIMESTAMP", timestamp),
            ("OK-ACCESS-PASSPHRASE", self.passphrase.clone()),
        ]
    }

    /// The argument of a login that is sent at `now` by the exchange's clock. It counts in whole
    /// seconds here, and is taken for 30 s.
    pub(super) fn login(&self, now: Millis) -> Login<'_> {
        let timestamp = now.div_euclid(SECOND).to_string();
        let signed =
            hmac::sign(&self.secret, format!("{timestamp}GET/users/self/verify").as_bytes());
        let sign = STANDARD.encode(signed);
        Login { key: &self.key, passphrase: &self.passphrase, timestamp, sign }
    }
}

/// The argument of a login.
#[derive(Serialize)]
pub(super) struct Login<'a> {
    #[serde(rename = "apiKey")]
    key: &'a str,
    passphrase: &'a str,
    timestamp: String,
    sign: String,
}

/// ISO 8601 in UTC, always with milliseconds.
fn timestamp(now: Millis) -> String {
    let ms = now.rem_euclid(SECOND);
    let whole = format_time(now - ms);
    format!("{}.{ms:03}Z", whole.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/api/v5/market/candles?instId=BTC-USDT&bar=1m&limit=300";

    /// What is expected was computed with the openssl program:
    /// `printf '%s' "$timestamp"GET"$path" | openssl dgst -sha256 -hmac $secret -binary | base64`.
    #[test]
    fn a_signature_is_what_openssl_computes() {
        let secret = "22582BD0CFF14C41EDBF1AB98506286D";
        let credentials = Credentials::new("the-key", secret, "the phrase").unwrap();
        let now = crate::time::parse_time("2026-11-20T10:57:00.007Z").unwrap();
        let expected = [
            ("OK-ACCESS-KEY", "the-key"),
            ("OK-ACCESS-SIGN", "YL2a4jBJkoui1gAbHOMpvKldWwUs8OefkZaY22nCU54="),
            ("OK-ACCESS-TIMESTAMP", "2026-11-20T10:57:00.007Z"),
            ("OK-ACCESS-PASSPHRASE", "the phrase"),
        ];
        let headers = credentials.headers(PATH, now);
        assert_eq!(headers.each_ref().map(|(name, value)| (*name, value.as_str())), expected);
    }

    /// As above: `printf '1763629260GET/users/self/verify' | openssl dgst -sha256 -hmac …`.
    #[test]
    fn a_login_is_signed_over_its_second() {
        let secret = "22582BD0CFF14C41EDBF1AB98506286D";
        let credentials = Credentials::new("the-key", secret, "the phrase").unwrap();
        let login = serde_json::to_string(&credentials.login(1_763_629_260_999)).unwrap();
        for (name, value) in [
            ("apiKey", "the-key"),
            ("passphrase", "the phrase"),
            ("timestamp", "1763629260"),
            ("sign", "VtWS2EJFIOl+7YRmWgSf8G+h7Py2H6FaAPkYUUU5e3E="),
        ] {
            assert!(login.contains(&format!("\"{name}\":\"{value}\"")), "{name} in {login}");
        }
    }

    #[test]
    fn whole_seconds_have_milliseconds_too() {
        assert_eq!(timestamp(1_714_521_600_000), "2024-05-01T00:00:00.000Z");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", Credentials::new("kkkk", "ssss", "pppp").unwrap());
        assert!(["kkkk", "ssss", "pppp"].iter().all(|part| !shown.contains(part)), "{shown}");
    }

    #[test]
    fn what_no_header_can_carry_is_refused_unseen() {
        for (key, secret, passphrase, error) in [
            ("", "s", "p", CredentialsError::Key),
            ("k\r\nHost: x", "s", "p", CredentialsError::Key),
            ("k", "", "p", CredentialsError::Secret),
            ("k", "s", "p\n", CredentialsError::Passphrase),
            ("k", "s", "pä", CredentialsError::Passphrase),
        ] {
            let refused = Credentials::new(key, secret, passphrase).unwrap_err();
            assert_eq!(refused, error);
            assert!(!refused.to_string().contains("Host"));
        }
    }
}

//! The addresses that a configuration may name: a scheme, a host and maybe a port.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest host name that the domain name system can hold.
const HOST_MAX: usize = 253;
/// The longest part of one.
const LABEL_MAX: usize = 63;

/// Checks a base address and returns it without a final `/`; else the rule that it breaks.
///
/// `secure` and `plain` are the two schemes it may have. The plain one is taken for loopback
/// addresses alone, so that a slip cannot send requests, signed ones among them, in the clear.
/// The rule's text never repeats the address: it may hold a password.
pub(super) fn check(text: &str, secure: &str, plain: &str) -> Result<String, String> {
    let shape = || format!("give {secure}://HOST or {secure}://HOST:PORT, without a path");
    let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
    let address = rest.strip_suffix('/').unwrap_or(rest);
    if address.contains('@') {
        return Err("a user name or password has no place in an address".to_owned());
    }
    let host = host(address).ok_or_else(shape)?;
    if scheme == plain && !is_loopback(host) {
        return Err(format!("{plain}:// is for loopback addresses alone: give {secure}://"));
    }
    if scheme != secure && scheme != plain {
        return Err(shape());
    }
    Ok(format!("{scheme}://{address}"))
}

/// The host of `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`, if both parts are sound.
fn host(address: &str) -> Option<&str> {
    let after_host = if address.starts_with('[') {
        address.find(']')? + 1
    } else {
        address.find(':').unwrap_or(address.len())
    };
    let (host, port) = address.split_at(after_host);
    let sound_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|p| p > 0)
        });
    (sound_port && (ipv6(host).is_some() || is_name(host))).then_some(host)
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether it is a host name, or an IPv4 address, which has the same form.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= HOST_MAX && host.split('.').all(label)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || ipv6(host).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(text: &str) -> Result<String, String> {
        check(text, "https", "http")
    }

    #[test]
    fn sound_addresses_are_taken() {
        for text in [
            "https://openapi.okx.com",
            "https://my.okx.com:8443",
            "https://192.0.2.7",
            "https://[2001:db8::1]:443",
            "http://127.0.0.1:8080",
            "http://127.8.9.10",
            "http://localhost:1",
            "http://LOCALHOST",
            "http://[::1]:65535",
        ] {
            assert_eq!(rest(text).as_deref(), Ok(text));
        }
        assert_eq!(rest("https://www.okx.com/").as_deref(), Ok("https://www.okx.com"));
        assert!(check("ws://[::1]:9000", "wss", "ws").is_ok());
        assert!(check("https://ws.okx.com", "wss", "ws").is_err());
    }

    #[test]
    fn plain_addresses_off_loopback_are_refused() {
        for text in [
            "http://www.okx.com",
            "http://127.0.0.1.evil.com",
            "http://127.1",
            "http://128.0.0.1",
            "http://0.0.0.0",
            "http://localhost.evil.com",
            "http://notlocalhost",
            "http://[::2]",
            "http://[::ffff:8.8.8.8]",
        ] {
            assert!(rest(text).is_err_and(|rule| rule.contains("loopback")), "{text}");
        }
    }

    #[test]
    fn what_is_no_base_address_is_refused() {
        for text in [
            "",
            "www.okx.com",
            "https:/www.okx.com",
            "HTTPS://www.okx.com",
            "ftp://www.okx.com",
            "file:///etc/passwd",
            "https://",
            "https://:443",
            "https://www.okx.com/api",
            "https://www.okx.com//",
            "https://www.okx.com?a=b",
            "https://www.okx.com#a",
            "https://www.okx.com:0",
            "https://www.okx.com:65536",
            "https://www.okx.com:+443",
            "https://www.okx.com:",
            "https://www..okx.com",
            "https://-www.okx.com",
            "https://www.okx.com\r\nx: y",
            "https://www okx com",
            "https://[::1",
            "https://[::1]x",
            "https://[127.0.0.1]",
            "http://127.0.0.1\\@evil.com",
        ] {
            assert!(rest(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_neither_taken_nor_repeated() {
        for text in ["https://me:hunter2@www.okx.com", "http://127.0.0.1@evil.com"] {
            let rule = rest(text).unwrap_err();
            assert!(rule.contains("user name or password") && !rule.contains("hunter2"), "{rule}");
        }
    }
}

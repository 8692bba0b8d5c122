//! The commands by which a running exchange is broken.

use super::super::{COMMANDS, Exchange, Listed, obey};
use super::client::DEADLINE;
use super::socket::subscribed;

#[test]
fn every_command_is_obeyed() {
    let exchange = Exchange::builder().start();
    let lines = "drop|reset|close 4005|notice 5|garbage|oversized 1|announce 1024|refuse 9|\
                 refuse 9 0|refuse 9 403|silence 9|half-open 9|deaf 9|drip 9|lost-acks 9|\
                 late-acks 9|data-first 9|refuse-series 9|no-confirms 9|late-confirms 9|\
                 duplicates 9|out-of-order 9|limit 5 9|heal|stop|resume";
    for line in lines.split('|') {
        assert_eq!(obey(&exchange, line), Ok(format!("done: {line}")));
        let name = line.split(' ').next().unwrap();
        assert!(COMMANDS.contains(name), "{name} is not explained");
    }
    assert_eq!(obey(&exchange, "  "), Ok(String::new()));
    for line in ["dance", "drop 3", "silence", "silence long", "close 70000", "limit 5"] {
        assert!(obey(&exchange, line).is_err(), "{line}");
    }
}

#[test]
fn a_command_breaks_the_stream() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(1)).start();
    let mut client = subscribed(&exchange, &[("BTC-USDT", "1m")]);
    assert!(obey(&exchange, "status").unwrap().starts_with("1 open, 1 series"));
    obey(&exchange, "close 4005").unwrap();
    assert_eq!(client.end(), Some(4005));
    exchange.wait_for(|stats| stats.open() == 0, DEADLINE, "the end of the connection");
}

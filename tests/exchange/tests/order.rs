//! Rules of the stream that take longer than a test: a session with the time passed in.

use super::super::stream::session::{Effect, Moment, OPERATIONS_MAX, Session, World};
use super::super::{HOUR_MS, Rule, Series};

struct Everything;

impl World for Everything {
    fn is_served(&self, _: &str) -> bool {
        true
    }

    fn is_refused(&self, _: &Series) -> bool {
        false
    }
}

#[test]
fn an_hour_has_so_many_operations() {
    let mut session = Session::new("c".to_owned(), "/ws/v5/business", None);
    let text = r#"{"op":"subscribe","args":[{"channel":"candle1m","instId":"A-B"}]}"#;
    let mut refused = |text: &str, at_ms: u64| {
        let effects = session.on(text, Moment { at_ms, exchange_ms: 0 }, &Everything);
        matches!(effects.first(), Some(Effect::Broke(Rule::Operations, _)))
            && matches!(&effects[1], Effect::Say(text) if text.contains(r#""code":"60014""#))
    };
    for index in 0..OPERATIONS_MAX as u64 {
        assert!(!refused(text, 1_000 + index), "{index}");
    }
    let hour_ms = HOUR_MS as u64;
    assert!(refused(text, 2_000));
    assert!(!refused("ping", 2_000), "pings are free");
    assert!(refused(text, 1_000 + hour_ms - 1));
    assert!(!refused(text, 1_000 + hour_ms), "the first one has left the window");
    assert!(refused(text, 1_000 + hour_ms));
}

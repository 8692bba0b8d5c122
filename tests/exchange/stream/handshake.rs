//! The upgrade of a connection, or why there is none.

use std::io::Write;
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::super::gate::Gate;
use super::super::held;
use super::super::http::{Head, deliver};
use super::super::rest::{Core, html, refused};
use super::super::rules::Rule;
use super::super::wire::Wire;
use super::strike::Refuse;
use super::{Party, link};

const PATHS: [&str; 3] = ["/ws/v5/public", "/ws/v5/private", "/ws/v5/business"];

/// Serves a connection whose client asked for an upgrade, to its end.
pub fn serve(core: &Arc<Core>, head: &Head, mut wire: Wire, pending: Vec<u8>, gate: &Gate) {
    let Ok(peer) = wire.tcp().peer_addr() else {
        return;
    };
    let (id, within_rate) = core.hub.arrive(peer.ip(), &head.target);
    let refusal = held(&core.hub.strikes).refusal();
    let broken = slip(head).or((!within_rate).then_some(Rule::ConnectRate));
    if let Some(rule) = broken {
        held(&core.rules).record(core.hub.at_ms(), rule, &head.target);
    }
    let answer = match (broken, refusal) {
        (_, Some(Refuse::Reset)) => return wire.reset(),
        (_, Some(Refuse::Http(status))) => Some(html(status)),
        (Some(rule), None) => Some(refused(rule)),
        (None, None) => None,
    };
    if let Some(answer) = answer {
        core.hub.note(|stats| stats.change(id, |connection| connection.status = answer.status));
        // Who has left misses nothing.
        let _ = deliver(&mut wire, &answer, gate);
        return;
    }
    let key = head.header("sec-websocket-key").expect("because a request without it is refused");
    let accept = derive_accept_key(key.as_bytes());
    let text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    // Who reads the answer is connected, and is struck by what strikes from then on.
    let post = core.hub.open(id);
    match wire.write_all(text.as_bytes()).and_then(|()| wire.flush()) {
        Ok(()) => link::serve(core, post, &head.target, wire, pending, gate),
        Err(_) => core.hub.close(id, Party::Client, None),
    }
}

/// The rule that an upgrade request breaks by what it says.
fn slip(head: &Head) -> Option<Rule> {
    let is = |name: &str, wanted: &str| {
        let words = head.header(name).unwrap_or("").split(',');
        words.map(str::trim).any(|word| word.eq_ignore_ascii_case(wanted))
    };
    let asks = is("upgrade", "websocket")
        && is("connection", "upgrade")
        && is("sec-websocket-version", "13")
        && head.header("sec-websocket-key").is_some_and(|key| key.len() == 24);
    match () {
        () if head.header("host").is_none() => Some(Rule::Host),
        () if head.method != "GET" => Some(Rule::Method),
        () if !PATHS.contains(&head.target.as_str()) => Some(Rule::Path),
        () if !asks => Some(Rule::Upgrade),
        () => None,
    }
}

//! Commands by which a person or a script breaks the exchange while it runs, one a line.

use super::{Exchange, Garbage, Refuse, StreamFault, Strike};

pub const COMMANDS: &str =
    "  drop, reset                  end the connections, by FIN or by RST, without a close frame
  close CODE                   end them with a close frame
  notice S                     announce an upgrade, and close S seconds later
  garbage                      send one of each kind of nonsense
  oversized MB, announce MB    send a frame of that size, or its header alone
  refuse S [STATUS]            refuse connections for S seconds, by HTTP or, with 0, by RST
  silence S, half-open S, deaf S, drip S, lost-acks S, late-acks S, data-first S,
  refuse-series S, no-confirms S, late-confirms S, duplicates S, out-of-order S
                               that fault for S seconds
  limit N S                    close with 4008 above N subscriptions, for S seconds
  heal                         end all of these
  stop, resume                 close the port, and open it again
  status                       tell what is connected
";

/// Carries out a line, and gives what there is to say about it; an error says what was wrong.
pub fn obey(exchange: &Exchange, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((name, values)) = words.split_first() else {
        return Ok(String::new());
    };
    let values: Result<Vec<u64>, _> = values.iter().map(|value| value.parse()).collect();
    let values = values.map_err(|_| format!("{line:?} wants whole numbers"))?;
    match (*name, values.as_slice()) {
        ("heal", []) => exchange.heal(),
        ("stop", []) => exchange.stop(),
        ("resume", []) => exchange.resume(),
        ("garbage", []) => {
            Garbage::ALL.iter().for_each(|kind| exchange.strike(StreamFault::Garbage(*kind)));
        }
        ("status", []) => {
            let stats = exchange.stats();
            let (open, series) = (stats.open(), stats.subscriptions().len());
            return Ok(format!("{open} open, {series} series, {} pushes", stats.pushes()));
        }
        (name, values) => {
            let strike = strike_of(name, values).ok_or_else(|| format!("{line:?} is unknown"))?;
            exchange.strike(strike);
        }
    }
    Ok(format!("done: {line}"))
}

fn strike_of(name: &str, values: &[u64]) -> Option<Strike> {
    let deed = |fault| Some(Strike::new(fault));
    let state =
        |fault, seconds: u64| Some(Strike::new(fault).lasting(seconds.saturating_mul(1_000)));
    let code = |value: u64| u16::try_from(value).ok();
    match (name, values) {
        ("drop", []) => deed(StreamFault::Drop),
        ("reset", []) => deed(StreamFault::Reset),
        ("close", [value]) => deed(StreamFault::Close(code(*value)?)),
        ("notice", [seconds]) => {
            deed(StreamFault::Notice { close_after_ms: seconds.saturating_mul(1_000) })
        }
        ("oversized", [mb]) => deed(StreamFault::Oversized(mb.saturating_mul(1 << 20))),
        ("announce", [mb]) => deed(StreamFault::Announced(mb.saturating_mul(1 << 20))),
        ("refuse", [seconds]) => state(StreamFault::Refuse(Refuse::Http(503)), *seconds),
        ("refuse", [seconds, 0]) => state(StreamFault::Refuse(Refuse::Reset), *seconds),
        ("refuse", [seconds, status]) => {
            state(StreamFault::Refuse(Refuse::Http(code(*status)?)), *seconds)
        }
        ("limit", [most, seconds]) => {
            let most = usize::try_from(*most).ok()?;
            state(StreamFault::ChannelLimit { most, code: 4008 }, *seconds)
        }
        (name, [seconds]) => {
            let fault = match name {
                "silence" => StreamFault::Silence,
                "half-open" => StreamFault::HalfOpen,
                "deaf" => StreamFault::DeafToPings,
                "drip" => StreamFault::Drip { bytes: 16, pause_ms: 2 },
                "lost-acks" => StreamFault::LostAcks,
                "late-acks" => StreamFault::LateAcks(3_000),
                "data-first" => StreamFault::DataFirst,
                "refuse-series" => StreamFault::RefuseSeries,
                "no-confirms" => StreamFault::NoConfirms,
                "late-confirms" => StreamFault::LateConfirms(12_000),
                "duplicates" => StreamFault::Duplicates,
                "out-of-order" => StreamFault::OutOfOrder,
                _ => return None,
            };
            state(fault, *seconds)
        }
        _ => None,
    }
}

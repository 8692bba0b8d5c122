//! Faults that are deeds, as what a connection has to send.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::post::{Parcel, Post};
use super::strike::{Garbage, StreamFault};

/// Leaves the deed at `post`; a state is none.
pub fn post(fault: StreamFault, post: &Post) {
    match fault {
        StreamFault::Drop | StreamFault::Close(1006) => post.put(Parcel::Drop),
        StreamFault::Reset => post.put(Parcel::Reset),
        StreamFault::Close(code) => post.put(Parcel::Close(code)),
        StreamFault::Notice { .. } => {
            let text =
                "The connection will soon be closed for a service upgrade. Please reconnect.";
            let id = post.conn_id();
            post.say(format!(
                r#"{{"event":"notice","msg":"{text}","code":"64008","connId":"{id}"}}"#
            ));
        }
        StreamFault::Garbage(garbage) => post.put(Parcel::Raw(garbage.frame())),
        StreamFault::Oversized(bytes) => post.put(Parcel::Oversized(bytes)),
        StreamFault::Announced(bytes) => post.put(Parcel::Announced(bytes)),
        _ => {}
    }
}

impl Garbage {
    /// The frame as it stands on the wire.
    fn frame(self) -> Vec<u8> {
        let candle = |symbol: &str, row: &str| {
            format!(r#"{{"arg":{{"channel":"candle1m","instId":"{symbol}"}},"data":[[{row}]]}}"#)
                .into_bytes()
        };
        let payload = match self {
            Self::InvalidJson => br#"{"arg":{"channel":"candle1m","instId":"BTC-"#.to_vec(),
            Self::Binary => (0..=255).collect(),
            Self::InvalidUtf8 => b"{\"event\":\"\xff\xfe\xc0\"}".to_vec(),
            Self::HugeNumbers => {
                let huge = "9".repeat(400);
                candle("BTC-USDT", &format!(r#""{huge}","{huge}","1e999","1","1","1","1","1","0""#))
            }
            Self::NoNumber => {
                candle("BTC-USDT", r#""1763629260000","NaN","inf","","-","1","1","1","1""#)
            }
            Self::UnknownEvent => br#"{"event":"weather","msg":"rain","code":"99999"}"#.to_vec(),
            Self::Stranger => {
                candle("NOBODY-USDT", r#""1763629260000","1","1","1","1","1","1","1","1""#)
            }
        };
        let kind = if self == Self::Binary { Data::Binary } else { Data::Text };
        let mut frame = header(kind, payload.len() as u64);
        frame.extend(payload);
        frame
    }
}

/// The header of a server's frame with so many bytes behind it.
pub fn header(kind: Data, bytes: u64) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
    let mut text = Vec::new();
    header.format(bytes, &mut text).expect("because a vector takes what is written");
    text
}

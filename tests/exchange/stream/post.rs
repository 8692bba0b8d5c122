//! What waits to be sent over one connection. Anybody may put something there; the connection's
//! own thread takes it away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tungstenite::Utf8Bytes;

use super::super::dice::mix;
use super::super::held;
use super::Series;

/// Who does not take away so many is hung up on, as the exchange does with slow readers.
const PARCELS_MAX: usize = 100_000;

pub enum Parcel {
    /// A candle; the open time of the bar if this is its closing push.
    Push {
        text: Utf8Bytes,
        series: Arc<Series>,
        confirmed: Option<i64>,
    },
    /// Any other text.
    Say(Utf8Bytes),
    /// A frame as it stands on the wire.
    Raw(Vec<u8>),
    /// A text frame of so many bytes.
    Oversized(u64),
    /// The header of such a frame, and nothing more for ever.
    Announced(u64),
    Drop,
    Reset,
    Close(u16),
}

pub struct Post {
    id: u64,
    parcels: Mutex<VecDeque<Parcel>>,
}

impl Post {
    pub fn new(id: u64) -> Self {
        Self { id, parcels: Mutex::default() }
    }

    /// The number of the connection; later ones have larger numbers.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name of the connection in the exchange's events.
    pub fn conn_id(&self) -> String {
        format!("{:08x}", mix(self.id, 0) as u32)
    }

    pub fn put(&self, parcel: Parcel) {
        let mut parcels = held(&self.parcels);
        if parcels.len() == PARCELS_MAX {
            parcels.clear();
            parcels.push_back(Parcel::Close(4005));
        }
        parcels.push_back(parcel);
    }

    pub fn say(&self, text: impl Into<Utf8Bytes>) {
        self.put(Parcel::Say(text.into()));
    }

    pub fn take(&self) -> VecDeque<Parcel> {
        std::mem::take(&mut *held(&self.parcels))
    }
}

//! The way out of a connection, which can be shut or narrow.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::super::gate::Gate;
use super::super::held;
use super::super::rest::Core;
use super::super::wire::Wire;
use super::strike::StreamFault;

pub struct Tap<'a> {
    pub wire: Wire,
    /// What is written disappears.
    pub mute: bool,
    core: Arc<Core>,
    gate: &'a Gate,
    link: u64,
}

impl<'a> Tap<'a> {
    pub fn new(wire: Wire, core: Arc<Core>, gate: &'a Gate, link: u64) -> Self {
        Self { wire, mute: false, core, gate, link }
    }

    fn drip(&self) -> Option<(usize, u64)> {
        held(&self.core.hub.strikes).of_link(self.link, |fault| match fault {
            StreamFault::Drip { bytes, pause_ms } => Some((*bytes, *pause_ms)),
            _ => None,
        })
    }
}

impl Read for Tap<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read(buffer)
    }
}

impl Write for Tap<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.mute {
            return Ok(bytes.len());
        }
        let Some((piece, pause_ms)) = self.drip() else {
            return self.wire.write(bytes);
        };
        let count = self.wire.write(&bytes[..piece.max(1).min(bytes.len())])?;
        self.wire.flush()?;
        self.gate.pause(pause_ms)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.mute { Ok(()) } else { self.wire.flush() }
    }
}

//! How many series one connection holds, which the exchange does not say but by closing.

use std::collections::BTreeSet;

use crate::instrument::Series;
use crate::time::{HOUR, MINUTE, Millis};

/// What did not fit is tried again after so long, for a close may have had a reason that passes …
const WAIT_MIN_MS: Millis = 5 * MINUTE;
/// … and each time it does not fit again after twice as long, up to this.
const WAIT_MAX_MS: Millis = HOUR;
/// A try that ended for another reason is made again after this part of the wait.
const UNTOLD_PART: Millis = 10;
/// Where it is not known how much fits, this part of what is wanted is asked for at a time.
const STEPS: usize = 10;

/// What one connection holds.
#[derive(Debug)]
struct Cap {
    fits: BTreeSet<Series>,
    /// What was ever wanted since it was learnt: only what is new is a reason to try more at once.
    known: BTreeSet<Series>,
    /// How long it is waited between two tries.
    wait_ms: Millis,
    /// When more is tried; `None` while that waits for the next connection.
    until: Option<Millis>,
}

/// What was learnt of it. Times are local.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    cap: Option<Cap>,
    step: Option<usize>,
}

impl Capacity {
    /// As many of the wanted series as fit.
    pub(super) fn fit(&self, wanted: &BTreeSet<Series>) -> BTreeSet<Series> {
        let Some(cap) = self.cap.as_ref().filter(|cap| cap.fits.len() < wanted.len()) else {
            return wanted.clone();
        };
        let all = wanted.intersection(&cap.fits).chain(wanted.difference(&cap.fits));
        all.take(cap.fits.len()).cloned().collect()
    }

    /// How many series are asked for at a time, while it is to be learnt how many fit.
    pub(super) fn step(&self) -> Option<usize> {
        self.step
    }

    /// A connection was closed because it held too many of the series that it was `asked` for.
    pub(super) fn overfilled(
        &mut self,
        now: Millis,
        acked: &BTreeSet<Series>,
        asked: usize,
        wanted: &BTreeSet<Series>,
    ) {
        if acked.is_empty() {
            // The close overtook the acknowledgements: small steps will tell.
            let step = self.step.map_or(asked / STEPS, |step| step / 2);
            self.step = Some(step.max(1));
            return;
        }
        // If it took them all, and yet did not keep them, half of them is a guess that ends soon.
        let count = if acked.len() < asked { acked.len() } else { asked.div_ceil(2) };
        let fits = acked.iter().take(count).cloned().collect();
        let wait_ms = self.wait_ms();
        let (known, until) = (wanted.clone(), Some(now + wait_ms));
        (self.cap, self.step) = (Some(Cap { fits, known, wait_ms, until }), None);
    }

    /// Whether it is time to try more, on a connection beside the current one: tells so once.
    pub(super) fn expire(&mut self, now: Millis) -> bool {
        let until = self.cap.as_mut().and_then(|cap| cap.until.take_if(|until| *until <= now));
        until.is_some()
    }

    /// Other series are wanted. If some of them are new, more is to be tried at once.
    pub(super) fn want(&mut self, now: Millis, wanted: &BTreeSet<Series>) {
        if let Some(cap) = self.cap.as_mut().filter(|cap| !wanted.is_subset(&cap.known)) {
            cap.known.extend(wanted.iter().cloned());
            cap.until = Some(now);
        }
    }

    /// Whether more waits to be tried by the next connection.
    pub(super) fn is_untried(&self) -> bool {
        self.cap.as_ref().is_some_and(|cap| cap.until.is_none())
    }

    /// A connection tries to hold everything, and will tell: it is not tried again for long.
    pub(super) fn tried(&mut self, now: Millis) {
        if let Some(cap) = &mut self.cap {
            cap.until = Some(now + cap.wait_ms);
        }
    }

    /// One that tried to was closed for it; gives how long it is waited now.
    pub(super) fn full(&mut self, now: Millis) -> Millis {
        let wait_ms = self.wait_ms();
        if let Some(cap) = &mut self.cap {
            (cap.wait_ms, cap.until) = (wait_ms, Some(now + wait_ms));
        }
        wait_ms
    }

    /// One that tried to ended for another reason, so nothing is known: gives how long it is
    /// waited now.
    pub(super) fn untold(&mut self, now: Millis) -> Millis {
        let wait_ms = self.cap.as_ref().map_or(WAIT_MIN_MS, |cap| cap.wait_ms) / UNTOLD_PART;
        if let Some(cap) = &mut self.cap {
            cap.until = Some(now + wait_ms);
        }
        wait_ms
    }

    /// The wait after one more failure.
    fn wait_ms(&self) -> Millis {
        self.cap.as_ref().map_or(WAIT_MIN_MS, |cap| (2 * cap.wait_ms).min(WAIT_MAX_MS))
    }

    /// One connection holds more than was known.
    pub(super) fn lift(&mut self) {
        self.cap = None;
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.cap.as_ref().and_then(|cap| cap.until)
    }
}

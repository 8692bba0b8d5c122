//! What keeps the exchange's endpoints from being asked: the pauses after failures, and their
//! causes.

use std::collections::BTreeMap;

use crate::backoff::{Backoff, Random};
use crate::time::{Millis, SECOND, format_length};
use crate::wire::{Endpoint, Policy};

/// So many failures in a row, some seconds, are an outage whose end is worth a line in the log.
const OUTAGE_FAILURES: u32 = 3;
/// The next request after a pause fails within so long, or nobody has asked again.
const TRIAL_MS: Millis = 30 * SECOND;

/// How an endpoint fares.
#[derive(Debug, Default)]
struct Outage {
    backoff: Backoff,
    /// When it failed first, and why it did last; nothing since it has answered.
    failed: Option<(Millis, String)>,
}

/// How all of them fare. Times are local.
#[derive(Debug, Default)]
pub(super) struct Outages(BTreeMap<Endpoint, Outage>);

impl Outages {
    /// When an endpoint may be asked again.
    pub(super) fn free_at(&self, endpoint: Endpoint) -> Option<Millis> {
        self.0.get(&endpoint).map(|outage| outage.backoff.free_at())
    }

    /// A request has failed; tells how many have in a row.
    pub(super) fn failed(
        &mut self,
        endpoint: Endpoint,
        policy: Policy,
        cause: &str,
        now: Millis,
        random: &mut Random,
    ) -> u32 {
        let outage = self.0.entry(endpoint).or_default();
        outage.backoff.failed(policy, now, random);
        if policy != Policy::Permanent {
            let since = outage.failed.take().map_or(now, |(since, _)| since);
            outage.failed = Some((since, cause.to_owned()));
        }
        outage.backoff.failures()
    }

    /// A good answer has come; tells in words what has ended with it, if that was long enough.
    pub(super) fn succeeded(&mut self, endpoint: Endpoint, now: Millis) -> Option<String> {
        let outage = self.0.get_mut(&endpoint)?;
        let failures = outage.backoff.failures();
        outage.backoff.succeeded();
        let (since, cause) = outage.failed.take()?;
        (failures >= OUTAGE_FAILURES).then(|| {
            let length = format_length(now - since);
            format!(
                "{endpoint}: answered again after {length}, failures in a row: {failures}, the \
                 last: {cause}"
            )
        })
    }

    /// Why requests fail at present, if any do.
    pub(super) fn cause(&self, now: Millis) -> Option<String> {
        let failing = |(_, outage): &(&Endpoint, &Outage)| {
            outage.failed.is_some() && now < outage.backoff.free_at() + TRIAL_MS
        };
        // Of several the first is told, so that it stays the same while they take turns.
        let (endpoint, outage) = self.0.iter().find(failing)?;
        outage.failed.as_ref().map(|(_, cause)| format!("{endpoint}: {cause}"))
    }
}

//! What the exchange lists, and whether it knows a name.

use crate::bar::Bar;
use crate::config::default_timeframes;
use crate::engine::Setup;
use crate::error::Error;
use crate::inquiry::{Inquirer, InquiryError};
use crate::instrument::{Instrument, Series};
use crate::okx::{self, Kind, Listing};
use crate::page::Ask;
use crate::spelling::nearest;
use crate::wire::{Endpoint, Policy};

/// What the exchange offers of one kind.
pub fn listings(inquirer: &mut Inquirer, kind: Kind) -> Result<Vec<Listing>, InquiryError> {
    let path = okx::instruments_path(kind);
    inquirer.ask(Endpoint::Instruments, &path, okx::decode_instruments)
}

/// Asks for one candle: whoever has none of the wanted length cannot be mirrored, whatever the
/// exchange's lists say.
///
/// # Errors
///
/// [`Error::NotListed`] if the exchange does not know it, with a name that may have been meant.
pub fn check_listed(
    setup: &Setup,
    instrument: &Instrument,
    timeframes: &[Bar],
) -> Result<(), Error> {
    let mut inquirer = Inquirer::new(setup).map_err(Error::Inquiry)?;
    let bar = timeframes.first().copied().filter(|bar| okx::candles_have(*bar));
    let bar = bar.unwrap_or_else(|| default_timeframes()[0]);
    let series = Series { instrument: instrument.clone(), bar };
    let ask = Ask::Newest { limit: 1, until: 0 };
    let path = okx::page_path(&series, Endpoint::Candles, ask);
    let refusal =
        match inquirer.ask(Endpoint::Candles, &path, |answer| okx::decode_page(ask, answer)) {
            Ok(_) => return Ok(()),
            Err(InquiryError::Trouble(trouble)) if trouble.policy() == Policy::Permanent => trouble,
            Err(error) => return Err(Error::Inquiry(error)),
        };
    // The names that it may have been meant for; if the list does not come, there is no advice.
    let known = listings(&mut inquirer, kind_of(instrument)).unwrap_or_default();
    let names = known.iter().map(|listing| listing.instrument.as_str());
    let near = nearest(instrument.as_str(), names).map(str::to_owned);
    let (instrument, refusal) = (instrument.clone(), refusal.to_string());
    Err(Error::NotListed { instrument, refusal, near })
}

/// The kind that a name looks like.
fn kind_of(instrument: &Instrument) -> Kind {
    let parts: Vec<&str> = instrument.as_str().split('-').collect();
    match parts.as_slice() {
        [_, _] => Kind::Spot,
        [.., "SWAP"] => Kind::Swap,
        [_, _, _] => Kind::Futures,
        _ => Kind::Option,
    }
}

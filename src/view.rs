//! Where work stands, as plain data: for whoever shows it, in this process or in another one.
//!
//! It is read as what a stranger sent. Whatever has passed is safe to print and to reckon with.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::control::{Control, Hold, Line};
use crate::coverage::Tally;
use crate::instrument::Series;
use crate::spelling::printable;
use crate::time::{Millis, Now, SECOND, TIME_MAX};

/// More bars no series can have: one for each second of all time.
const BARS_MAX: i64 = TIME_MAX / SECOND + 1;
/// What is kept of a long text where many have to fit into a line, bytes.
const SHORT_BYTES: usize = 200;

/// Where the work for some series stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The series, in the order in which they were asked for.
    pub lines: Vec<LineView>,
    /// Pages that were answered and stored.
    #[serde(deserialize_with = "bounded")]
    pub pages: u64,
    /// Pages of history that can be asked for in a minute.
    #[serde(deserialize_with = "rate")]
    pub pages_per_minute: f64,
    /// How long nothing will happen, ms, and why.
    #[serde(serialize_with = "tell_wait", deserialize_with = "wait")]
    pub wait: Option<(Millis, Hold)>,
    /// What is in the way at present, if a daemon does the work: who does it itself logs that.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "words")]
    pub trouble: Option<String>,
    /// Why everything was given up.
    #[serde(deserialize_with = "words")]
    pub gave_up: Option<String>,
    /// Whether the user stopped it.
    pub stopped: bool,
    /// Whether all is done, or nothing more will be.
    pub finished: bool,
}

/// Where one series stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineView {
    /// Which.
    #[serde(serialize_with = "spell", deserialize_with = "spelt")]
    pub series: Series,
    /// Closed bars that were new.
    #[serde(deserialize_with = "bounded")]
    pub closed: u64,
    /// Closed bars that the exchange has revised.
    #[serde(deserialize_with = "bounded")]
    pub revised: u64,
    /// Closed bars that are stored, however old.
    #[serde(deserialize_with = "bounded")]
    pub stored: i64,
    /// The wanted bars by what is known of them.
    #[serde(with = "TallyForm")]
    pub tally: Tally,
    /// Bars that have ended and wait for their confirm.
    #[serde(deserialize_with = "bounded")]
    pub unconfirmed: usize,
    /// Whether nothing is left to do.
    pub done: bool,
    /// Why it was given up.
    #[serde(deserialize_with = "words")]
    pub error: Option<String>,
}

impl View {
    /// Where everything stands that `control` does.
    pub fn of(control: &Control, now: Now) -> View {
        View {
            lines: control.lines().iter().map(|line| LineView::of(line, now)).collect(),
            pages: control.pages(),
            pages_per_minute: control.pages_per_minute(),
            wait: control.waits_for(now).map(|(until, hold)| (until - now.local, hold)),
            trouble: None,
            gave_up: control.gave_up().map(str::to_owned),
            stopped: control.was_stopped(),
            finished: control.is_finished(now),
        }
    }

    /// Wanted bars that are not stored, over all series.
    pub fn missing(&self) -> i64 {
        self.lines.iter().map(|line| line.tally.missing).sum()
    }

    /// The same with every error cut short, for a line that holds only so much.
    pub fn shortened(&self) -> View {
        let mut view = self.clone();
        let errors = view.lines.iter_mut().filter_map(|line| line.error.as_mut());
        errors.chain(&mut view.trouble).chain(&mut view.gave_up).for_each(shorten);
        view
    }
}

impl LineView {
    /// Where a series stands.
    pub fn of(line: &Line, now: Now) -> LineView {
        LineView {
            series: line.series.clone(),
            closed: line.closed,
            revised: line.revised,
            stored: line.stored(),
            tally: line.tally(now),
            unconfirmed: line.unconfirmed(now),
            done: line.is_done(now),
            error: line.error.clone(),
        }
    }
}

fn shorten(text: &mut String) {
    if text.len() > SHORT_BYTES {
        let ends = text.char_indices().map(|(at, _)| at);
        text.truncate(ends.take_while(|&at| at <= SHORT_BYTES).last().unwrap_or(0));
        text.push('…');
    }
}

/// A number whose sums over all series, and products with small numbers, do not overflow.
fn bounded<'de, D, N>(from: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + Copy + TryInto<i64>,
{
    let number = N::deserialize(from)?;
    let whole: Option<i64> = number.try_into().ok();
    let sound = whole.is_some_and(|whole| (-BARS_MAX..=BARS_MAX).contains(&whole));
    if sound { Ok(number) } else { Err(D::Error::custom("a number is beyond all bounds")) }
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(from)?;
    let sound = rate.is_finite() && rate >= 0.0;
    if sound { Ok(rate) } else { Err(D::Error::custom("a rate is below zero")) }
}

fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.map(|text| printable(&text).into_owned()))
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Tally", deny_unknown_fields)]
struct TallyForm {
    #[serde(deserialize_with = "bounded")]
    wanted: i64,
    #[serde(deserialize_with = "bounded")]
    missing: i64,
    #[serde(deserialize_with = "bounded")]
    suspected_empty: i64,
    #[serde(deserialize_with = "bounded")]
    known_empty: i64,
    #[serde(deserialize_with = "bounded")]
    before_history: i64,
    #[serde(deserialize_with = "bounded")]
    unconfirmed: i64,
}

/// A series as people write it, `BTC-USDT 1m`.
pub(crate) fn spell<S: Serializer>(series: &Series, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(series)
}

/// Reads what [`spell`] writes, by the parsers of its parts.
pub(crate) fn spelt<'de, D: Deserializer<'de>>(from: D) -> Result<Series, D::Error> {
    let text = String::deserialize(from)?;
    let parts = text.split_once(' ').ok_or_else(|| D::Error::custom("a series without a bar"))?;
    let instrument = parts.0.parse().map_err(D::Error::custom)?;
    Ok(Series { instrument, bar: parts.1.parse().map_err(D::Error::custom)? })
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hold", rename_all = "lowercase")]
enum HoldForm {
    Budget,
    Pause,
    Confirm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitForm {
    #[serde(deserialize_with = "bounded")]
    length_ms: Millis,
    #[serde(with = "HoldForm")]
    hold: Hold,
}

fn tell_wait<S: Serializer>(wait: &Option<(Millis, Hold)>, to: S) -> Result<S::Ok, S::Error> {
    wait.map(|(length_ms, hold)| WaitForm { length_ms, hold }).serialize(to)
}

fn wait<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(Millis, Hold)>, D::Error> {
    let wait = Option::<WaitForm>::deserialize(from)?;
    Ok(wait.map(|WaitForm { length_ms, hold }| (length_ms, hold)))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A view in which every field says something.
    pub(crate) fn sample() -> View {
        let tally = Tally {
            wanted: 1_440,
            missing: 300,
            suspected_empty: 1,
            known_empty: 2,
            before_history: 3,
            unconfirmed: 1,
        };
        let line = |name: &str, error: Option<&str>| LineView {
            series: Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() },
            closed: 1_133,
            revised: 4,
            stored: 9_000,
            tally,
            unconfirmed: 1,
            done: error.is_some(),
            error: error.map(str::to_owned),
        };
        View {
            lines: vec![line("BTC-USDT", None), line("ETH-USDT", Some("51001: no such thing"))],
            pages: 7,
            pages_per_minute: 540.5,
            wait: Some((1_500, Hold::Pause)),
            trouble: Some("candles: connection refused".to_owned()),
            gave_up: None,
            stopped: false,
            finished: false,
        }
    }

    #[test]
    fn it_comes_back_as_it_went() {
        for hold in [Hold::Budget, Hold::Pause, Hold::Confirm] {
            let view = View { wait: Some((-1, hold)), ..sample() };
            let text = serde_json::to_string(&view).unwrap();
            assert_eq!(serde_json::from_str::<View>(&text).unwrap(), view);
        }
        let text = serde_json::to_string(&View::default()).unwrap();
        assert_eq!(serde_json::from_str::<View>(&text).unwrap(), View::default());
    }

    #[test]
    fn nothing_unsound_is_taken() {
        let sound = serde_json::to_string(&sample()).unwrap();
        for (name, from, to) in [
            ("a path for a name", "BTC-USDT 1m", "../../etc/passwd 1m"),
            ("an unknown bar", "BTC-USDT 1m", "BTC-USDT 7m"),
            ("no bar", "BTC-USDT 1m", "BTC-USDT"),
            ("bars without end", "\"missing\":300", "\"missing\":9223372036854775807"),
            ("bars below all", "\"wanted\":1440", "\"wanted\":-9223372036854775808"),
            ("a negative count", "\"closed\":1133", "\"closed\":-1"),
            ("rows without end", "\"closed\":1133", "\"closed\":18446744073709551615"),
            ("a broken number", "\"stored\":9000", "\"stored\":1e400"),
            ("no rate", "540.5", "null"),
            ("a rate below zero", "540.5", "-1.0"),
            ("an endless wait", "\"length_ms\":1500", "\"length_ms\":9223372036854775807"),
            ("an unknown reason", "\"pause\"", "\"boredom\""),
            ("an unknown field", "\"pages\":7", "\"pages\":7,\"more\":1"),
            ("a missing field", "\"pages\":7,", ""),
        ] {
            assert!(sound.contains(from), "{name}");
            let text = sound.replacen(from, to, 1);
            assert!(serde_json::from_str::<View>(&text).is_err(), "{name}: {text}");
        }
    }

    #[test]
    fn words_are_safe_to_print() {
        let mut view = sample();
        view.gave_up = Some("one\n\u{1b}[2Jtwo".into());
        view.trouble = view.gave_up.clone();
        let text = serde_json::to_string(&view).unwrap();
        let read: View = serde_json::from_str(&text).unwrap();
        assert_eq!(read.gave_up.as_deref(), Some("one\\n\\u{1b}[2Jtwo"));
        assert_eq!(read.trouble, read.gave_up);
    }

    proptest! {
        #[test]
        fn a_text_is_cut_between_letters(mut text in "\\PC{0,300}") {
            let before = text.clone();
            shorten(&mut text);
            prop_assert!(text.len() <= SHORT_BYTES + '…'.len_utf8());
            prop_assert!(before == text || before.starts_with(text.trim_end_matches('…')));
        }
    }
}

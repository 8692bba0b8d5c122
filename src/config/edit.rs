//! Changes to a configuration file by commands. Comments and layout stay as they are.
//!
//! **Invariant:** what is written has been checked first, and takes the file's place in one step,
//! so neither a slip here nor a kill can leave a broken file behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode};

use crate::bar::Bar;
use crate::config::raw::SYNTAX;
use crate::config::{ConfigError, RealtimeMode, SAMPLE, check, default_timeframes, raw};
use crate::instrument::Instrument;

/// An instrument to be mirrored. What is not said takes the default, or stays as it is if the
/// instrument is in the file already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// What to mirror.
    pub instrument: Instrument,
    /// At which lengths; for a new instrument, none stands for the default ones.
    pub timeframes: Vec<Bar>,
    /// Seconds between two polls, within [`crate::config::SYNC_INTERVAL_SECONDS`].
    pub sync_interval_seconds: Option<u32>,
    /// How far back to fetch, within [`crate::config::HISTORY_DAYS`].
    pub max_history_days: Option<u32>,
    /// How fresh bars come.
    pub realtime_source: Option<RealtimeMode>,
}

/// A change of what holds for the stream as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// `enable_websocket`
    Enabled(bool),
    /// `realtime_mode`
    Mode(RealtimeMode),
}

/// What became of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The instrument was not in it before, or not in it after; the key has another value now.
    Done,
    /// The instrument was in it before, and has other values now.
    Updated,
    /// It says already what was wanted, and was not touched.
    Unchanged,
}

/// Adds an instrument to the configuration in `file`, which is written from the sample if it does
/// not exist.
///
/// An instrument that is there already keeps its bars and gets the new ones beside them; other
/// values are replaced where they are given, and it is enabled if it was not.
///
/// # Errors
///
/// The file is refused as it is, or cannot be read or written. It is then as it was before.
pub fn add_instrument(file: &Path, addition: &Addition) -> Result<Edit, ConfigError> {
    edit(file, |root| {
        let instruments = root.object_value_or_set().array_value_or_set("instruments");
        match find(&instruments, &addition.instrument) {
            Some(entry) => {
                merge(&entry, addition);
                Edit::Updated
            }
            None => {
                instruments.append(entry(addition));
                Edit::Done
            }
        }
    })
}

/// Takes an instrument out of the configuration in `file`. Its data stay where they are.
/// [`Edit::Unchanged`] if it was not in it. The list may become empty.
///
/// # Errors
///
/// As for [`add_instrument`].
pub fn remove_instrument(file: &Path, instrument: &Instrument) -> Result<Edit, ConfigError> {
    edit(file, |root| {
        let instruments = root.object_value().and_then(|root| root.array_value("instruments"));
        match instruments.and_then(|instruments| find(&instruments, instrument)) {
            Some(entry) => {
                entry.remove();
                Edit::Done
            }
            None => Edit::Unchanged,
        }
    })
}

/// Changes how the stream is used in the configuration in `file`, which is written from the sample
/// if it does not exist.
///
/// # Errors
///
/// As for [`add_instrument`].
pub fn set_stream(file: &Path, change: StreamChange) -> Result<Edit, ConfigError> {
    let (key, value): (&str, CstInputValue) = match change {
        StreamChange::Enabled(enabled) => ("enable_websocket", enabled.into()),
        StreamChange::Mode(mode) => ("realtime_mode", mode.as_str().into()),
    };
    edit(file, |root| {
        let root = root.object_value_or_set();
        match root.get(key) {
            Some(property) => property.set_value(value),
            None => drop(root.append(key, value)),
        }
        Edit::Done
    })
}

/// Reads a file, changes it, checks it and puts it back.
fn edit(file: &Path, change: impl FnOnce(&CstRootNode) -> Edit) -> Result<Edit, ConfigError> {
    let unwritable = |cause| ConfigError::Unwritable(file.to_owned(), cause);
    // A link is followed: the file that it names is the one to be replaced.
    let target =
        if file.exists() { fs::canonicalize(file).map_err(unwritable)? } else { file.to_owned() };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    fs::create_dir_all(&folder).map_err(unwritable)?;
    // Two commands at once would each write without the other's change, so the second waits.
    // Where a folder cannot be locked, that is left to luck.
    let lock = File::open(&folder).and_then(|folder| folder.lock().map(|()| folder));

    let exists = target.exists();
    let text = if exists { raw::read(&target)? } else { SAMPLE.to_owned() };
    check::config(file, &text, None)?;
    let root = CstRootNode::parse(&text, &SYNTAX)
        .expect("because the check has parsed the same text by the same rules");
    let edit = change(&root);
    let changed = root.to_string();
    if changed == text && (exists || edit == Edit::Unchanged) {
        return Ok(Edit::Unchanged);
    }
    check::config(file, &changed, None)?;
    replace(&target, &changed).map_err(unwritable)?;
    drop(lock);
    Ok(edit)
}

/// Writes a file beside the target and renames it, with the target's permissions.
fn replace(target: &Path, text: &str) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = target.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        if let Ok(metadata) = fs::metadata(target) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, target)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn find(instruments: &CstArray, instrument: &Instrument) -> Option<CstObject> {
    instruments.elements().iter().filter_map(|element| element.as_object()).find(|entry| {
        text(entry, "symbol").and_then(|symbol| symbol.parse().ok()).as_ref() == Some(instrument)
    })
}

fn text(entry: &CstObject, key: &str) -> Option<String> {
    entry.get(key)?.value()?.as_string_lit()?.decoded_value().ok()
}

fn names(bars: &[Bar]) -> CstInputValue {
    CstInputValue::Array(bars.iter().map(|bar| bar.name().into()).collect())
}

/// The keys other than the bars that were given.
fn given(addition: &Addition) -> Vec<(String, CstInputValue)> {
    [
        ("sync_interval_seconds", addition.sync_interval_seconds.map(CstInputValue::from)),
        ("max_history_days", addition.max_history_days.map(CstInputValue::from)),
        ("realtime_source", addition.realtime_source.map(|mode| mode.as_str().into())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_owned(), value?)))
    .collect()
}

/// A new element for the list.
fn entry(addition: &Addition) -> CstInputValue {
    let defaults = default_timeframes();
    let bars = if addition.timeframes.is_empty() { &defaults } else { &addition.timeframes };
    let mut keys = vec![
        ("symbol".to_owned(), addition.instrument.as_str().into()),
        ("timeframes".to_owned(), names(bars)),
    ];
    keys.extend(given(addition));
    CstInputValue::Object(keys)
}

/// Brings an element that is there already up to what is wanted.
fn merge(entry: &CstObject, addition: &Addition) {
    let enabled = entry.get("enabled").and_then(|property| property.value()?.as_boolean_lit());
    if let Some(enabled) = enabled {
        enabled.set_value(true);
    }
    let list = entry.array_value("timeframes");
    let there: Vec<Bar> = match &list {
        Some(list) => list.elements().iter().filter_map(bar).collect(),
        None => default_timeframes(),
    };
    let new: Vec<Bar> =
        addition.timeframes.iter().copied().filter(|bar| !there.contains(bar)).collect();
    match list {
        Some(list) => new.iter().for_each(|bar| drop(list.append(bar.name().into()))),
        None if new.is_empty() => {}
        None => drop(entry.append("timeframes", names(&[there, new].concat()))),
    }
    for (key, value) in given(addition) {
        match entry.get(&key) {
            Some(property) => property.set_value(value),
            None => drop(entry.append(&key, value)),
        }
    }
}

fn bar(element: &CstNode) -> Option<Bar> {
    element.as_string_lit()?.decoded_value().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addition(symbol: &str, bars: &[&str]) -> Addition {
        Addition {
            instrument: symbol.parse().unwrap(),
            timeframes: bars.iter().map(|bar| bar.parse().unwrap()).collect(),
            sync_interval_seconds: None,
            max_history_days: None,
            realtime_source: None,
        }
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(text: &str) -> Folder {
            let folder = Folder(tempfile::tempdir().unwrap());
            fs::write(folder.file(), text).unwrap();
            folder
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("config.json")
        }

        fn text(&self) -> String {
            fs::read_to_string(self.file()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    const COMMENTED: &str = r#"// mine
{
    "data_dir": "/data", // the big disk
    "instruments": [
        // the first
        { "symbol": "btc/usdt", "timeframes": ["1m", "1h"] }, // since 2017
        { "symbol": "ETH-USDT", "enabled": false } /* sleeps */
    ]
}
"#;

    #[test]
    fn adding_keeps_comments_and_layout() {
        let folder = Folder::with(COMMENTED);
        let sol = Addition { sync_interval_seconds: Some(30), ..addition("SOL-USDT", &["1m"]) };
        assert_eq!(add_instrument(&folder.file(), &sol).unwrap(), Edit::Done);
        let expected = COMMENTED.replace(
            "false } /* sleeps */\n",
            "false }, /* sleeps */\n        {\n            \"symbol\": \"SOL-USDT\",\n            \
             \"timeframes\": [\"1m\"],\n            \"sync_interval_seconds\": 30\n        }\n",
        );
        assert_eq!(folder.text(), expected);
        assert_eq!(add_instrument(&folder.file(), &sol).unwrap(), Edit::Unchanged);
        assert_eq!(remove_instrument(&folder.file(), &sol.instrument).unwrap(), Edit::Done);
        assert_eq!(folder.names(), ["config.json"], "no temporary file stays");
    }

    #[test]
    fn adding_what_is_there_unites_its_bars_and_enables_it() {
        let folder = Folder::with(COMMENTED);
        let wanted = Addition {
            max_history_days: Some(30),
            realtime_source: Some(RealtimeMode::Polling),
            ..addition("BTC-USDT", &["1H", "1D"])
        };
        assert_eq!(add_instrument(&folder.file(), &wanted).unwrap(), Edit::Updated);
        assert_eq!(
            add_instrument(&folder.file(), &addition("ETH-USDT", &["1W"])).unwrap(),
            Edit::Updated
        );
        let text = folder.text();
        let config = check::config(&folder.file(), &text, None).unwrap();
        let [btc, eth] = &config.instruments[..] else { panic!("{text}") };
        assert_eq!(btc.timeframes, addition("BTC-USDT", &["1m", "1h", "1d"]).timeframes);
        assert_eq!((btc.max_history_days, btc.realtime_source), (30, RealtimeMode::Polling));
        assert!(eth.enabled);
        assert_eq!(eth.timeframes.len(), 5, "the default ones and the new one");
        for comment in ["// mine", "// the big disk", "// the first", "// since 2017", "sleeps"] {
            assert!(text.contains(comment), "{comment} is lost:\n{text}");
        }
    }

    #[test]
    fn removing_leaves_the_rest() {
        let folder = Folder::with(COMMENTED);
        let remove = |name: &str| remove_instrument(&folder.file(), &name.parse().unwrap());
        assert_eq!(remove("SOL-USDT").unwrap(), Edit::Unchanged);
        assert_eq!(folder.text(), COMMENTED);
        assert_eq!(remove("ETH-USDT").unwrap(), Edit::Done);
        assert_eq!(remove("BTC-USDT").unwrap(), Edit::Done);
        let text = folder.text();
        assert_eq!(check::config(&folder.file(), &text, None).unwrap().instruments, []);
        assert!(text.contains("// the big disk"), "{text}");
        assert_eq!(add_instrument(&folder.file(), &addition("A-B", &[])).unwrap(), Edit::Done);
    }

    #[test]
    fn the_first_edit_writes_the_sample() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let file = folder.0.path().join("new/config.json");
        let nothing = remove_instrument(&file, &"SOL-USDT".parse().unwrap()).unwrap();
        assert_eq!((nothing, file.exists()), (Edit::Unchanged, false));
        assert_eq!(add_instrument(&file, &addition("SOL-USDT", &["1m"])).unwrap(), Edit::Done);
        let text = fs::read_to_string(&file).unwrap();
        let config = check::config(&file, &text, None).unwrap();
        let names: Vec<&str> = config.instruments.iter().map(|e| e.instrument.as_str()).collect();
        assert_eq!(names, ["BTC-USDT", "ETH-USDT", "SOL-USDT"]);
        assert!(text.contains("// Which hosts to ask"), "{text}");
    }

    #[test]
    fn the_stream_is_set_and_comments_stay() {
        let commented = COMMENTED
            .replace("instruments\"", "realtime_mode\": \"auto\", // why\n\"instruments\"");
        for (name, text) in [("absent", COMMENTED), ("there", commented.as_str()), ("bare", "{}")] {
            let folder = Folder::with(text);
            let set = |change| set_stream(&folder.file(), change).unwrap();
            let polling = StreamChange::Mode(RealtimeMode::Polling);
            assert_eq!(set(polling), Edit::Done, "{name}");
            assert_eq!(set(polling), Edit::Unchanged, "{name}");
            assert_eq!(set(StreamChange::Enabled(false)), Edit::Done, "{name}");
            let config = check::config(&folder.file(), &folder.text(), None).unwrap();
            assert_eq!(
                (config.realtime_mode, config.enable_websocket),
                (RealtimeMode::Polling, false)
            );
            for comment in ["// mine", "// the big disk", "// the first", "// why"] {
                assert_eq!(folder.text().contains(comment), text.contains(comment), "{name}");
            }
        }
        let folder = Folder(tempfile::tempdir().unwrap());
        let file = folder.0.path().join("new/config.json");
        assert_eq!(set_stream(&file, StreamChange::Enabled(true)).unwrap(), Edit::Done);
        assert_eq!(fs::read_to_string(&file).unwrap(), SAMPLE);
    }

    #[test]
    fn lists_of_every_shape_grow() {
        for (name, text) in [
            ("absent", "{}"),
            ("absent, other keys", "{ \"sandbox\": true }"),
            ("empty", "{ \"instruments\": [] }"),
            ("empty with a comment", "{\n  \"instruments\": [\n    // none yet\n  ]\n}"),
            ("one line", "{\"instruments\":[{\"symbol\":\"A-B\"}]}"),
            ("trailing comma", "{\n\t\"instruments\": [\n\t\t{\"symbol\":\"A-B\"},\n\t],\n}"),
            ("windows", "{\r\n  \"instruments\": [\r\n  ]\r\n}\r\n"),
        ] {
            let folder = Folder::with(text);
            let edit = add_instrument(&folder.file(), &addition("SOL-USDT", &[])).unwrap();
            assert_eq!(edit, Edit::Done, "{name}");
            let config = check::config(&folder.file(), &folder.text(), None).unwrap();
            let last = config.instruments.last().unwrap();
            assert_eq!(last.instrument.as_str(), "SOL-USDT", "{name}: {}", folder.text());
            assert!(!text.contains("none yet") || folder.text().contains("none yet"));
        }
    }

    #[test]
    fn a_broken_file_is_refused_and_kept() {
        for text in ["{ \"instruments\": [ }", "[]", "", "{ \"instrument\": [] }"] {
            let folder = Folder::with(text);
            let refused = add_instrument(&folder.file(), &addition("SOL-USDT", &[])).unwrap_err();
            assert!(matches!(refused, ConfigError::Refused(..)), "{refused}");
            assert_eq!(folder.text(), text);
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = Folder::with(COMMENTED);
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.0.path().join("link.json");
        symlink(folder.file(), &link).unwrap();
        add_instrument(&link, &addition("SOL-USDT", &[])).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(folder.text().contains("SOL-USDT"));
    }

    #[test]
    fn edits_at_the_same_time_all_arrive() {
        let folder = Folder::with("{}");
        let file = folder.file();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let file = &file;
                scope.spawn(move || add_instrument(file, &addition(&format!("A{n}-B"), &[])));
            }
        });
        let config = check::config(&file, &folder.text(), None).unwrap();
        assert_eq!(config.instruments.len(), 8);
    }
}
